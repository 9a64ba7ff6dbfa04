// Drives the model of model.hpp on a device behind the C interface (dlavm/device.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bus.hpp"
#include "files.hpp"
#include "program.hpp"

namespace host {

using Tokens = std::vector<std::uint32_t>;

// A sequence of tokens: which of the kSequences caches it uses, and how many tokens are in there.
struct Sequence {
    std::uint32_t place = 0;
    std::uint32_t cached = 0;
};

// Bytes that cannot be the state of a sequence.
struct BadState : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A device that holds the model. What cannot be throws std::runtime_error with one line of text; a step that
// failed leaves the sequence as it was.
class Model {
  public:
    // Opens the device at `url` ("sim:" is the simulator) and puts the artifact into its memory. A device of
    // another target is refused, and so are files that differ from those this driver was written for.
    static Model open(const std::string& url, const std::filesystem::path& artifact,
                      const DeviceOptions& options = {});

    // Tokens that the cache of a sequence still has room for.
    static std::uint32_t room(const Sequence& sequence);

    // Runs 1..kChunk tokens after those in the cache; logits after each of the last `head_rows` of them.
    void step(Sequence& sequence, const Tokens& tokens, std::uint32_t head_rows = 1);

    // Runs tokens of any number, cut into steps; logits after the last one. Nothing runs if they do not fit.
    void prefill(Sequence& sequence, const Tokens& tokens);

    // Throws if the tokens cannot follow those of the sequence.
    static void check_tokens(const Sequence& sequence, const Tokens& tokens);

    // Likeliest token after each row of the last step: (head_rows,). The lowest id where two are equal.
    Tokens next_tokens() const;

    // Likeliest token after the last row of the last step.
    std::uint32_t greedy_next() const;

    // Logits of the last step: (head_rows, kVocabulary), row after row; fp16 as the device wrote them, or as
    // float.
    std::vector<std::uint16_t> half_logits() const;
    std::vector<float> logits() const;

    // Bytes of the state of that many tokens: what read_state gives and write_state takes.
    static std::uint64_t state_bytes(std::uint32_t cached);

    // Bytes [offset, offset + bytes) of the state of a sequence: its cache, zero behind the last token.
    void read_state(const Sequence& sequence, std::uint64_t offset, char* out, std::uint64_t bytes) const;

    // Puts bytes of a state where read_state found them, for a sequence of as many tokens. Whole fp16
    // numbers; throws BadState for one that is not finite.
    void write_state(const Sequence& sequence, std::uint64_t offset, const char* in, std::uint64_t bytes);

    // Of the last step.
    dlavm_counters counters() const;

  private:
    explicit Model(Bus bus) : bus_(std::move(bus)) {}

    void upload(const std::filesystem::path& artifact);
    static void check_state(const Sequence& sequence, std::uint64_t offset, std::uint64_t bytes);
    void run(const Sequence& sequence, const Tokens& tokens, std::uint32_t head_rows);
    void write_input(const Tokens& tokens) const;

    Bus bus_;
    Program program_;
    MappedFile table_;             // of model::kTable
    std::uint32_t head_rows_ = 0;  // of the last step
};

// Value of an fp16 number.
float to_float(std::uint16_t half);

}  // namespace host
