// The parameters of dlavm_core (targets/rtl) as the twin needs them.
#pragma once

#include <cstdint>
#include <vector>

#include "abi/space.h"

namespace dlavm::timed {

constexpr uint32_t kUnitBytes = 16;

// Of memory_fabric and the queues, where no board changes them.
constexpr uint32_t kChunkRows = 16, kReadRows = 64, kQueueDepth = 4;

struct Shape {
    std::vector<abi::Space> spaces;
    uint32_t units;  // of 16 bytes in a beat row of the widest space
    uint32_t port_bytes;
    uint32_t lanes;  // of the vector engine
    uint32_t activation_elements, accumulators;
    bool fold = true;  // one channel of a space stands for all: they see the same
};

// The parameters for a board. Throws Misuse for one that the RTL does not cover.
Shape shape_of(const dlavm_config& config, uint32_t lanes);

}  // namespace dlavm::timed
