// The parameters of dlavm_core (targets/rtl) as the twin needs them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "abi/space.h"

namespace dlavm::timed {

constexpr uint32_t kUnitBytes = 16;

// Of memory_fabric and the queues, where no board changes them.
constexpr uint32_t kChunkRows = 16, kQueueDepth = 8, kWeightsUnderWay = 96, kRequests = 64;
constexpr uint32_t kWeightRows = 4096;  // at most

// Sizes are powers of two, by which nobody needs a division.
inline uint64_t divided(uint64_t a, uint32_t power) { return a >> __builtin_ctz(power); }
inline uint32_t divided(uint32_t a, uint32_t power) { return a >> __builtin_ctz(power); }
inline uint32_t divided_up(uint32_t a, uint32_t power) { return divided(a + power - 1, power); }
inline uint32_t remainder(uint64_t a, uint32_t power) { return static_cast<uint32_t>(a & (power - 1)); }

struct Shape {
    std::vector<abi::Space> spaces;
    std::vector<uint32_t> chunk_rows;  // of each space: rows of a burst at most
    uint32_t units = 0;                // of 16 bytes in a beat of the fabric's clients
    uint32_t row_units = 0;            // in a row of the fabric, a beat of weights
    uint32_t halves = 0;               // 1: a row is two beat rows of the weights' space
    uint32_t port_bytes = 0;           // of AXI
    uint32_t weight_rows = 0;          // that the buffer of the weights' reader holds
    uint32_t client_rows = 0;          // those of the others
    uint32_t lanes = 0;                // of the vector engine
    uint32_t share = 0;                // 2: wide formats at half rate
    uint32_t header_words = 2;         // 0: the host writes commands into registers
    bool ordered = true;               // by semaphores; else one command after the other
    uint64_t activation_elements = 0;  // of the buffer
    uint32_t rows_most = 0;            // of a LINEAR
    uint32_t result_blocks = 0;        // pairs of tokens whose results wait for the epilogue
    bool fold = true;                  // one channel of a space stands for all: they see the same

    uint32_t tile() const { return 4 * halves * row_units; }  // rows of weights
    // Blocks of 32 of a row tile, row tiles of a block.
    uint32_t sets() const { return tile() > 32 ? tile() / 32 : 1; }
    uint32_t parts() const { return tile() < 32 ? 32 / tile() : 1; }
};

// The parameters for a board; `sizes`: "units=2,row_units=2,..", those of dlavm/target/sizes.py. Throws
// Misuse for what does not fit.
Shape shape_of(const dlavm_config& config, const std::string& sizes);

}  // namespace dlavm::timed
