// Choosing the next token from the exact fp16 logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace host {

// Temperature, then top-k, then top-p, by the rules of doc/numerics.md, section 12, of dlavm: the same token
// for the same logits, parameters, seed and counter on every machine, and as `dlavm run` chooses it.
class Sampler {
  public:
    // temperature: at least 0; 0 takes the likeliest token and draws nothing. top_k: 0 keeps every token.
    // top_p: in (0, 1]. counter: draws of this seed that were taken before. Throws std::runtime_error for a
    // parameter out of range.
    Sampler(double temperature, std::uint32_t top_k, double top_p, std::uint64_t seed, std::uint64_t counter);

    // The next token after logits (count,) in the bits of fp16. Throws std::runtime_error for no logits and
    // for one that is not finite; nothing is drawn then.
    std::uint32_t sample(const std::uint16_t* half_logits, std::size_t count);

    // Draws of the seed that were taken so far.
    std::uint64_t counter() const { return counter_; }

  private:
    struct Candidate {
        std::uint32_t token;
        std::uint16_t key;
    };

    void order(const std::uint16_t* half_logits, std::size_t count);
    void sum_weights();

    double temperature_;
    std::uint32_t top_k_;
    double top_p_;
    std::uint64_t seed_;
    std::uint64_t counter_;
    // Kept from call to call, so that only the first allocates.
    std::vector<Candidate> candidates_;  // by (-logit, token)
    std::vector<Candidate> scratch_;
    std::vector<double> sums_;  // of the weights of the first candidates, up to each of them
};

// exp of -40 <= x <= 0 as doc/numerics.md states it.
double stated_exp(double x);

}  // namespace host
