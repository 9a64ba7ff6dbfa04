// A unit of work for the device: one step, or one piece of a saved cache. Conversations take turns.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "driver.hpp"
#include "sampling.hpp"

namespace host {

using ConversationId = std::uint64_t;

struct Turn {
    enum class Kind { kStep, kSave, kLoad };

    ConversationId conversation = 0;
    Kind kind = Kind::kStep;
    Sequence sequence;  // advanced by a step

    // A step: what it feeds, whether a token follows, and who chooses it (null: the likeliest).
    Tokens tokens;
    bool choose = false;
    std::unique_ptr<Sampler> sampler;

    // A piece of a state at `offset`. Of a save it is a frame: the header, and room for the piece behind it.
    std::uint64_t offset = 0;
    std::string bytes;

    // What perform() found. An error is one line of text; `refused`: it is the bytes that are wrong, not the
    // device.
    std::uint32_t token = 0;
    dlavm_counters counters = {};
    std::uint64_t microseconds = 0;
    std::string error;
    bool refused = false;
};

// Does the work. What goes wrong is told by the turn; nothing is thrown.
void perform(Model& model, Turn& turn) noexcept;

}  // namespace host
