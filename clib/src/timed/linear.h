// linear_decode.sv: what the parts of the matrix engine count with.
#pragma once

#include <algorithm>

#include "timed/command.h"
#include "timed/shape.h"

namespace dlavm::timed {

enum class Element : uint8_t { kInt4, kInt8, kE2m1, kE2m3, kE4m3, kCache };

constexpr uint32_t kBlockUnits = 128;  // kv_pkg: of 32 fp16 elements of 32 tokens, in units of 16 bytes
constexpr uint32_t kTogether = 4;      // matrix_pkg

struct LinearJob {
    isa::Linear c;
    Element element = Element::kCache;
    uint32_t group_blocks = 1;  // blocks of 32 k that share a scale
    bool e8m0 = false, zero = false;
    bool keys = false, values = false, bytes = false;
    bool narrow = false;       // a block takes 8 steps, not 16
    bool short_slots = false;  // of the unit buffer: 8 entries, not 16
    bool pieces = false;       // src is loaded 32 k at a time,
    uint32_t places = 1;       // to so many places of the activation buffer
    uint32_t heads = 1;        // that share a unit of values, at most
    bool ordered = false;      // the cache is fetched in the order of memory: BlockOrder
    uint32_t rows = 0, k_blocks = 0, n_blocks = 0, tiles = 0, tile_units = 0;

    bool cache() const { return keys || values; }
    uint32_t dim_blocks() const { return keys ? k_blocks : n_blocks; }
    // Of the unit whose first head is `batch`.
    uint32_t heads_here(uint32_t batch) const { return std::min(heads, c.batch - batch); }
    bool uses_aux() const { return c.aux_mode != isa::AuxMode::kNone; }
};

LinearJob linear_job(const Command& command, const Shape& shape);

// row_walker.sv: addresses of rows (o, i), i fastest. In units.
class RowWalker {
  public:
    void start(uint64_t base) {
        outer_ = address_ = base;
        inner_ = 0;
    }
    uint64_t address() const { return address_; }
    void next(uint64_t so, uint64_t si, uint32_t rows_i) {
        if (inner_ + 1 == rows_i) {
            outer_ += so;
            address_ = outer_;
            inner_ = 0;
        } else {
            address_ += si;
            ++inner_;
        }
    }

  private:
    uint64_t outer_ = 0, address_ = 0;
    uint32_t inner_ = 0;
};

}  // namespace dlavm::timed
