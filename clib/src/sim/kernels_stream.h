// How a channel's stream of one weight tile goes on, block by block (doc/architecture.md "Layouts").
#pragma once

#include "sim/kernels.h"

namespace dlavm::sim {

// Blocks of 32 k that share metadata; powers of two.
struct Spans {
    uint32_t group_blocks;  // of a group
    uint32_t scale_blocks;  // that a beat of scales serves
    uint32_t zero_blocks;   // that a beat of zero points serves; 0: there is none
    uint32_t unit_row_bytes;
};

static inline Spans spans_of(const formats::Format& f) {
    const uint32_t blocks = f.group / kBlock;
    return {blocks, f.e8m0 ? 2 * blocks : blocks, f.zeros ? 2 * blocks : 0, 4 * f.bits};
}

namespace {

// Stands on one block after the other. In no shared namespace, like all that files of several instruction
// sets include.
class Walk {
  public:
    Walk(const Spans& spans, uint32_t rows, const uint8_t* stream)
        : spans_(spans), rows_(rows), at_(stream) {}

    // Goes on to block kb, the one behind the last.
    void next(uint32_t kb) {
        if (spans_.zero_blocks != 0 && (kb & (spans_.zero_blocks - 1)) == 0) zeros = metadata();
        if ((kb & (spans_.scale_blocks - 1)) == 0) scales = metadata();
        unit = at_;
        at_ += size_t{spans_.unit_row_bytes} * rows_;
        group_begins = (kb & (spans_.group_blocks - 1)) == 0;
        second = (kb & spans_.group_blocks) != 0;
    }

    const uint16_t* scales = nullptr;  // of every row: fp16, or two bytes of E8M0
    const uint16_t* zeros = nullptr;   // of every row: two bytes
    const uint8_t* unit = nullptr;
    bool group_begins = false;
    bool second = false;  // the group has the second of two bytes

  private:
    const uint16_t* metadata() {
        const uint8_t* const beat = at_;
        at_ += size_t{2} * rows_;
        return reinterpret_cast<const uint16_t*>(beat);
    }

    const Spans spans_;
    const uint32_t rows_;
    const uint8_t* at_;
};

// Metadata of the channel whose stream is so many bytes behind.
inline const uint16_t* in_channel(const uint16_t* pairs, size_t bytes) {
    return pairs + bytes / sizeof *pairs;
}

}  // namespace

constexpr uint32_t kLeastScale = formats::kScaleBias - formats::kScaleLimit;
constexpr uint32_t kLargestScale = formats::kScaleBias + formats::kScaleLimit;

}  // namespace dlavm::sim
