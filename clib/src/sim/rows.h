// Row sets of commands in bytes.
#pragma once

#include "dlavm_formats.h"
#include "dlavm_isa.h"
#include "sim/access.h"
#include "sim/number.h"

namespace dlavm::sim {

inline uint64_t in_bytes(uint32_t units) { return static_cast<uint64_t>(units) * isa::kAddressUnit; }

inline uint64_t divide_up(uint64_t x, uint64_t by) { return (x + by - 1) / by; }

// Works for every command with the group `rows`.
template <class Command>
RowSet src_rows(const Command& c) {
    return {in_bytes(c.src), 0, in_bytes(c.src_so), in_bytes(c.src_si), 1, c.rows_o, c.rows_i};
}

template <class Command>
RowSet dst_rows(const Command& c) {
    return {in_bytes(c.dst), 0, in_bytes(c.dst_so), in_bytes(c.dst_si), 1, c.rows_o, c.rows_i};
}

// The same with batches.
template <class Command>
RowSet src_batches(const Command& c) {
    return {in_bytes(c.src), in_bytes(c.src_b), in_bytes(c.src_so), in_bytes(c.src_si), c.batch,
            c.rows_o,        c.rows_i};
}

template <class Command>
RowSet dst_batches(const Command& c) {
    return {in_bytes(c.dst), in_bytes(c.dst_b), in_bytes(c.dst_so), in_bytes(c.dst_si), c.batch,
            c.rows_o,        c.rows_i};
}

inline RowSet aux_rows(const isa::Linear& c) {
    return {in_bytes(c.aux), 0, in_bytes(c.aux_so), in_bytes(c.aux_si), 1, c.rows_o, c.rows_i};
}

inline RowSet second_rows(const isa::Eltwise& c) {
    return {in_bytes(c.b), 0, in_bytes(c.b_so), in_bytes(c.b_si), 1, c.rows_o, c.rows_i};
}

// Outer rows alone.
inline RowSet outer_rows(uint32_t base, uint32_t stride, uint32_t rows) {
    return {in_bytes(base), 0, in_bytes(stride), 0, 1, rows, 1};
}

// How the tiles of a packed matrix stand in a space.
struct TileLayout {
    uint64_t tiles;       // row tiles of the matrix
    uint64_t rows;        // of a tile in one channel
    uint64_t tile_rows;   // over all channels
    uint64_t tile_bytes;  // over all channels
};

inline TileLayout tile_layout(const Space& s, const formats::Format& f, uint64_t k, uint64_t n) {
    const uint64_t rows = s.port_bytes / 2, tile_rows = rows * s.channels, groups = divide_up(k, f.group);
    const uint64_t zero_beats = f.zeros ? divide_up(groups, 2) : 0;
    const uint64_t scale_beats = f.e8m0 ? divide_up(groups, 2) : groups;
    const uint64_t beats = zero_beats + scale_beats + 2 * f.bits * divide_up(k, kBlock);
    return {divide_up(n, tile_rows), rows, tile_rows, beats * s.beat_row()};
}

// The first position that a row of SOFTMAX sees whose last one is seen - 1.
inline uint64_t first_visible(const isa::Softmax& c, uint64_t seen) {
    return c.window != 0 && seen > c.window ? seen - c.window : 0;
}

// Null for the formats of the KV cache.
inline const formats::Format* packed_format(isa::WeightFormat number) {
    for (const formats::Format& f : formats::kFormats) {
        if (f.number == number) return &f;
    }
    return nullptr;
}

// Tokens and head_dim of a product with the KV cache.
inline bool is_keys(const isa::Linear& c) {
    return c.format == isa::WeightFormat::kKvK || c.format == isa::WeightFormat::kKvqK;
}
inline bool is_values(const isa::Linear& c) {
    return c.format == isa::WeightFormat::kKvV || c.format == isa::WeightFormat::kKvqV;
}
inline uint64_t cache_tokens(const isa::Linear& c) { return is_keys(c) ? c.n : c.k; }
inline uint64_t cache_dim(const isa::Linear& c) { return is_keys(c) ? c.k : c.n; }

// How a cache holds its numbers: units of 32 tokens with rows of 32 elements, and the exponents of all units
// behind the last of them.
struct CacheLayout {
    uint64_t row_bytes, exponent_bytes;

    uint64_t rows_bytes() const { return kBlock * row_bytes; }  // of a unit
    uint64_t unit_bytes() const { return kBlock * (row_bytes + exponent_bytes); }
    uint64_t block_bytes(uint64_t units) const { return divide_up(units * unit_bytes(), 64) * 64; }
};

constexpr CacheLayout kHalfCache = {2 * kBlock, 0}, kByteCache = {kBlock, 1};

inline const CacheLayout& cache_layout(const isa::Linear& c) {
    const bool bytes = c.format == isa::WeightFormat::kKvqK || c.format == isa::WeightFormat::kKvqV;
    return bytes ? kByteCache : kHalfCache;
}

inline const CacheLayout& cache_layout(const isa::KvAppend& c) {
    return c.format == isa::KvFormat::kMxint8 ? kByteCache : kHalfCache;
}

}  // namespace dlavm::sim
