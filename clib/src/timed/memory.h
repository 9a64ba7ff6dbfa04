// The memory behind the channels of a core: when it answers. Either as the board's memory would
// (dlavm/memory_timing.h), or a fixed number of cycles after the address. It outlives a reset of the core.
#pragma once

#include <optional>
#include <vector>

#include "timing/channel.h"

namespace dlavm::timed {

// One channel's.
struct ChannelMemory {
    std::optional<timing::Channel> timed;
    timing::Channel* board = nullptr;  // that, or a fixed latency
    uint64_t latency = 40;
};

// By space; one channel of a space stands for all where they are folded.
using Memories = std::vector<std::vector<ChannelMemory>>;

}  // namespace dlavm::timed
