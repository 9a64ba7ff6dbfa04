// Sets of bytes that stand in rows at regular distances, and whether two of them meet.
#pragma once

#include <cstdint>

namespace dlavm::sim {

// Rows (b, o, i) of one operand; everything in bytes.
struct RowSet {
    uint64_t base;
    uint64_t stride_b, stride_o, stride_i;
    uint64_t count_b, count_o, count_i;

    uint64_t at(uint64_t b, uint64_t o, uint64_t i) const {
        return base + b * stride_b + o * stride_o + i * stride_i;
    }
    uint64_t count() const { return count_b * count_o * count_i; }
    bool overlaps_itself(uint64_t bytes) const;
};

struct Level {
    uint64_t stride, count;
};

// Rows of `bytes` at begin + sum of k * stride over the levels, 0 <= k < count. Levels are in the order of
// their strides, and rows of the innermost level are apart from each other. Addresses are below 2^62.
struct Strided {
    uint64_t begin, end, bytes;
    unsigned levels;
    Level level[3];

    uint64_t rows() const;
};

Strided strided(const RowSet& rows, uint64_t bytes);  // of at least one row; no address overflows
Strided strided(uint64_t begin, uint64_t end);

// True where the sets share a byte; also once `budget`, which goes down by the work done, is used up.
bool meet(const Strided& a, const Strided& b, uint64_t& budget);

// Calls body(begin, end) for each row.
template <class Body>
void for_each_row(const Strided& s, Body&& body) {
    Level l[3] = {{0, 1}, {0, 1}, {0, 1}};
    for (unsigned j = 0; j < s.levels; ++j) l[j] = s.level[j];
    for (uint64_t k2 = 0; k2 < l[2].count; ++k2) {
        for (uint64_t k1 = 0; k1 < l[1].count; ++k1) {
            for (uint64_t k0 = 0; k0 < l[0].count; ++k0) {
                const uint64_t begin = s.begin + k2 * l[2].stride + k1 * l[1].stride + k0 * l[0].stride;
                body(begin, begin + s.bytes);
            }
        }
    }
}

}  // namespace dlavm::sim
