// int4 weights against activations split into a high byte and four low bits. Written once over the vectors V
// of an instruction set: V::kRows rows make a group, of which several meet several tokens at a time, so that
// each broadcast activation serves all groups and sums of many tokens are in flight.
#pragma once

#include "sim/kernels_stream.h"

namespace dlavm::sim {

namespace {

constexpr size_t kAhead = 1024;  // bytes of a stream that are fetched in advance

// 16 * high + low of every row of kGroups groups and token of kTokens, scaled and added to acc.
template <class V, uint32_t kGroups, uint32_t kTokens, bool kZeros>
[[gnu::always_inline]] inline void int4_tokens(const typename V::I (&quad)[kGroups][8], const ActBlock* a,
                                               const typename V::I* zero, const typename V::F* scale,
                                               float* acc, size_t columns) {
    typename V::I high[kTokens][kGroups], low[kTokens][kGroups], bias[kTokens][kGroups];
#pragma GCC unroll 4
    for (uint32_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
        for (uint32_t g = 0; g < kGroups; ++g) {
            bias[t][g] = V::broadcast(&a[t].bias);
            if (kZeros) bias[t][g] = V::mul32(zero[g], V::all32(a[t].bias / kInt4Zero));
            high[t][g] = V::all32(0);
            low[t][g] = V::begin_quads(bias[t][g]);
        }
    }
#pragma GCC unroll 8
    for (uint32_t q = 0; q < 8; ++q) {
#pragma GCC unroll 4
        for (uint32_t t = 0; t < kTokens; ++t) {
            const typename V::I x = V::broadcast(a[t].high + 4 * q), y = V::broadcast(a[t].low + 4 * q);
#pragma GCC unroll 4
            for (uint32_t g = 0; g < kGroups; ++g) {
                high[t][g] = V::add_quads(high[t][g], quad[g][q], x);
                low[t][g] = V::add_quads(low[t][g], quad[g][q], y);
            }
        }
    }
#pragma GCC unroll 4
    for (uint32_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
        for (uint32_t g = 0; g < kGroups; ++g) {
            const typename V::I dot = V::end_quads(high[t][g], low[t][g], bias[t][g]);
            float* const sum = acc + t * columns + g * V::kRows;
            const typename V::F scaled = V::mul(V::to_float(dot), scale[g]);
            V::store(sum, V::add_exact_product(V::load_floats(sum), scaled, V::all(a[t].scale)));
        }
    }
}

// The groups from `first` on, of all tokens.
template <class V, uint32_t kGroups, uint32_t kTokens, bool kZeros>
inline void int4_groups(const TileJob& job, uint32_t first) {
    const uint32_t per_channel = job.rows / V::kRows;
    const size_t columns = size_t{job.channels} * job.rows, slice = size_t{4} * job.rows;
    size_t channel[kGroups], row[kGroups];
    for (uint32_t g = 0; g < kGroups; ++g) {
        channel[g] = (first + g) / per_channel * job.pitch;
        row[g] = (first + g) % per_channel * V::kRows;
    }
    Walk walk(spans_of(*job.format), job.rows, job.stream);
    const typename V::I nibble = V::all8(15);
    typename V::I quad[kGroups][8], zero[kGroups] = {};
    typename V::F scale[kGroups] = {};
    for (uint32_t kb = 0; kb < job.k_blocks; ++kb) {
        walk.next(kb);
        for (uint32_t g = 0; g < kGroups; ++g) {
            if (walk.group_begins) {
                scale[g] = V::halves(in_channel(walk.scales, channel[g]) + row[g]);
                if (kZeros) zero[g] = V::bytes(in_channel(walk.zeros, channel[g]) + row[g], walk.second);
            }
            const uint8_t* const unit = walk.unit + channel[g] + 4 * row[g];
            for (uint32_t p = 0; p < 4; ++p) {
                const typename V::I w = V::load(unit + p * slice);
                __builtin_prefetch(unit + p * slice + kAhead);
                quad[g][2 * p] = V::both(w, nibble);
                quad[g][2 * p + 1] = V::both(V::template right16<4>(w), nibble);
            }
        }
        const ActBlock* a = job.acts + static_cast<size_t>(kb) * job.tokens;
        float* acc = job.acc + first * V::kRows;
        uint32_t t = 0;
        for (; t + kTokens <= job.tokens; t += kTokens, acc += kTokens * columns) {
            int4_tokens<V, kGroups, kTokens, kZeros>(quad, a + t, zero, scale, acc, columns);
        }
        for (; kTokens > 1 && t < job.tokens; ++t, acc += columns) {
            int4_tokens<V, kGroups, 1, kZeros>(quad, a + t, zero, scale, acc, columns);
        }
    }
}

template <class V, bool kZeros>
inline void int4_tile(const TileJob& job) {
    const uint32_t groups = job.channels * job.rows / V::kRows;
    uint32_t g = 0;
    if (job.tokens == 1) {
        for (; g + V::kLoneGroups <= groups; g += V::kLoneGroups)
            int4_groups<V, V::kLoneGroups, 1, kZeros>(job, g);
        for (; g < groups; ++g) int4_groups<V, 1, 1, kZeros>(job, g);
        return;
    }
    for (; g + V::kGroups <= groups; g += V::kGroups) int4_groups<V, V::kGroups, V::kTokens, kZeros>(job, g);
    for (; g < groups; ++g) int4_groups<V, 1, V::kTokens, kZeros>(job, g);
}

template <class V>
inline void int4_vectors(const TileJob& job) {
    if (job.format->zeros) return int4_tile<V, true>(job);
    int4_tile<V, false>(job);
}

}  // namespace

}  // namespace dlavm::sim
