#include "sampling.hpp"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

// Each operation must round once to binary64: no fused multiply-add, no wider registers, no reordering. The
// build passes -ffp-contract=off; this holds it where the file is built in another way.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
#if defined(__FAST_MATH__)
#error "sampling.cpp: expected IEEE 754 arithmetic, got -ffast-math"
#endif
static_assert(std::numeric_limits<double>::is_iec559 && FLT_EVAL_METHOD == 0,
              "sampling.cpp: expected binary64 arithmetic");

namespace host {

namespace {

constexpr std::uint32_t kMaxTopK = 0x7fffffff;
constexpr double kExpLimit = -40;  // exp of less is under half a unit of a sum that begins with 1
constexpr double kInvLn2 = 0x1.71547652b82fep+0;
constexpr double kLn2High = 0x1.62e42feep-1;  // 32 bits: the product with an integer of a few bits is exact
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr std::array<double, 14> kTaylor = {
    1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
    1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

template <class Value>
[[noreturn]] void fail(const std::string& what, const std::string& expected, const Value& got) {
    std::ostringstream text;
    text << what << ": expected " << expected << ", got " << got;
    throw std::runtime_error(text.str());
}

void check_logits(const std::uint16_t* half_logits, std::size_t count) {
    constexpr std::uint16_t kExponent = 0x7c00;
    if (count == 0) fail("logits", "at least one", "none");
    for (std::size_t i = 0; i < count; ++i)
        if ((half_logits[i] & kExponent) == kExponent)
            fail("logits", "finite numbers", "another one for token " + std::to_string(i));
}

// Ascends where the logit descends; -0 has the key of +0. Without a branch on the sign, which nothing
// predicts.
std::uint16_t key_of(std::uint16_t half) {
    if (half == 0x8000) half = 0;
    const std::uint32_t positive = (half >> 15) - 1u;  // all ones, or zero for a negative number
    return static_cast<std::uint16_t>(half ^ (positive & 0x7fff));
}

// The logit of a key in units of 2^-24, in which every finite fp16 is an integer.
std::int64_t units_of(std::uint16_t key) {
    const bool negative = key > 0x7fff;
    const int half = negative ? key & 0x7fff : 0x7fff - key;
    const int exponent = half >> 10;
    const std::int64_t fraction = half & 0x3ff;
    const std::int64_t magnitude = exponent == 0 ? fraction : (0x400 + fraction) << (exponent - 1);
    return negative ? -magnitude : magnitude;
}

// Draw number `counter` of `seed`: SplitMix64.
std::uint64_t draw(std::uint64_t seed, std::uint64_t counter) {
    std::uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

}  // namespace

double stated_exp(double x) {
    const double n = std::nearbyint(x * kInvLn2);
    const double r = (x - n * kLn2High) - n * kLn2Low;
    double result = kTaylor.back();
    for (std::size_t k = kTaylor.size() - 1; k-- > 0;) result = result * r + kTaylor[k];
    return std::ldexp(result, static_cast<int>(n));
}

Sampler::Sampler(double temperature, std::uint32_t top_k, double top_p, std::uint64_t seed,
                 std::uint64_t counter)
    : temperature_(temperature), top_k_(top_k), top_p_(top_p), seed_(seed), counter_(counter) {
    if (!std::isfinite(temperature) || temperature < 0)
        fail("sampler: temperature", "a finite number of at least 0", temperature);
    if (!(top_p > 0 && top_p <= 1)) fail("sampler: top_p", "a number above 0 and at most 1", top_p);
    if (top_k > kMaxTopK) fail("sampler: top_k", "an integer in 0.." + std::to_string(kMaxTopK), top_k);
}

std::uint32_t Sampler::sample(const std::uint16_t* half_logits, std::size_t count) {
    check_logits(half_logits, count);
    if (temperature_ == 0) {
        const auto less = [](std::uint16_t a, std::uint16_t b) { return key_of(a) < key_of(b); };
        return static_cast<std::uint32_t>(std::min_element(half_logits, half_logits + count, less) -
                                          half_logits);
    }
    order(half_logits, count);
    sum_weights();
    auto end = sums_.cend();
    if (top_p_ < 1) end = std::lower_bound(sums_.cbegin(), end, top_p_ * sums_.back()) + 1;
    const double uniform = static_cast<double>(draw(seed_, counter_++) >> 11) * 0x1p-53;
    // The product is less than the sum, as `uniform` is at most 1 - 2^-53: some sum is above it.
    const auto chosen = std::upper_bound(sums_.cbegin(), end, uniform * *(end - 1));
    return candidates_[static_cast<std::size_t>(chosen - sums_.cbegin())].token;
}

// Radix sort by the key, low byte first; each pass keeps the order of equals.
void Sampler::order(const std::uint16_t* half_logits, std::size_t count) {
    std::array<std::array<std::uint32_t, 256>, 2> places = {};
    candidates_.resize(count);
    scratch_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint16_t key = key_of(half_logits[i]);
        candidates_[i] = {static_cast<std::uint32_t>(i), key};
        ++places[0][key & 0xff];
        ++places[1][key >> 8];
    }
    for (auto& digit : places) {
        std::uint32_t begin = 0;
        for (std::uint32_t& place : digit) begin += std::exchange(place, begin);
    }
    for (const Candidate& candidate : candidates_) scratch_[places[0][candidate.key & 0xff]++] = candidate;
    for (const Candidate& candidate : scratch_) candidates_[places[1][candidate.key >> 8]++] = candidate;
}

// Of what top_k keeps, as far as the weights are not zero. Equal logits have equal weights, computed once.
void Sampler::sum_weights() {
    const std::size_t kept =
        top_k_ == 0 ? candidates_.size() : std::min<std::size_t>(top_k_, candidates_.size());
    const std::int64_t largest = units_of(candidates_[0].key);
    double weight = 1;
    double sum = 0;
    sums_.clear();
    sums_.reserve(candidates_.size());
    for (std::size_t i = 0; i < kept; ++i) {
        if (i > 0 && candidates_[i].key != candidates_[i - 1].key) {
            const auto below = static_cast<double>(units_of(candidates_[i].key) - largest) * 0x1p-24;
            const double x = below / temperature_;
            if (x < kExpLimit) break;
            weight = stated_exp(x);
        }
        sum += weight;
        sums_.push_back(sum);
    }
}

}  // namespace host
