// int4 weights with AVX2, 8 rows at a time; also what AVX-512 takes where a tile has 8 rows a channel.
#pragma once

#include "sim/kernels_stream.h"
#include "sim/vector_avx2.h"

namespace dlavm::sim {

// Products of 8 rows in one unit; `bias` is zero point times sum of the mantissas. The 16-bit sums cannot
// overflow: 8 quads of two products up to 15 * 128.
static inline __m256 unit_product_avx2(const __m256i* quad, const ActBlock& a, __m256i bias, __m256 scale) {
    __m256i high = _mm256_setzero_si256(), low = high;
    for (int q = 0; q < 8; ++q) {
        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(quad[q], Avx2::broadcast(a.high + 4 * q)));
        low = _mm256_add_epi16(low, _mm256_maddubs_epi16(quad[q], Avx2::broadcast(a.low + 4 * q)));
    }
    const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(16)),
                                         _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
    const __m256 dot = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, bias));
    return _mm256_mul_ps(_mm256_mul_ps(dot, scale), _mm256_set1_ps(a.scale));
}

template <bool kG128>
static inline void int4_group_avx2(const TileJob& job, uint32_t first_row) {
    const Spans spans = kG128 ? kInt4G128 : spans_of(*job.format);
    const __m256i nibble = _mm256_set1_epi8(15);
    Walk walk(spans, job);
    __m256 scale = _mm256_setzero_ps();
    __m256i zero = _mm256_set1_epi32(8);
    for (uint32_t kb = 0; kb < job.k_blocks; ++kb) {
        walk.next(kb);
        if (walk.group_begins) {
            scale = Avx2::halves(walk.scales + first_row);
            if (spans.zero_blocks != 0) zero = Avx2::bytes(walk.zeros + first_row, walk.second);
        }
        __m256i quad[8];
        for (uint32_t p = 0; p < 4; ++p) {
            const __m256i w = Avx2::load(walk.unit + size_t{4} * (p * job.rows + first_row));
            quad[2 * p] = _mm256_and_si256(w, nibble);
            quad[2 * p + 1] = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
        }
        const ActBlock* acts = job.acts + static_cast<size_t>(kb) * job.tokens;
        float* acc = job.acc + first_row;
        for (uint32_t t = 0; t < job.tokens; ++t, acc += job.rows) {
            const __m256i bias = kG128 ? _mm256_set1_epi32(acts[t].eight_sums)
                                       : _mm256_mullo_epi32(zero, _mm256_set1_epi32(acts[t].eight_sums / 8));
            const __m256 product = unit_product_avx2(quad, acts[t], bias, scale);
            _mm256_storeu_ps(acc, _mm256_add_ps(_mm256_loadu_ps(acc), product));
        }
    }
}

static void int4_avx2(const TileJob& job) {
    const bool g128 = job.format->number == isa::WeightFormat::kInt4g128;
    for (uint32_t row = 0; row < job.rows; row += Avx2::kRows) {
        if (g128) {
            int4_group_avx2<true>(job, row);
        } else {
            int4_group_avx2<false>(job, row);
        }
    }
}

}  // namespace dlavm::sim
