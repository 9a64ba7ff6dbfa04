// int4 weights with AVX2, 8 rows at a time; also what AVX-512 takes where a tile has 8 rows a channel.
#pragma once

#include <immintrin.h>

#include "sim/kernels.h"

namespace dlavm::sim {

static inline __m256i broadcast_quad(const int8_t* p) {
    int32_t x;
    std::memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}

// 8 fp16; an exponent of 31 reads as +-65504.
static inline __m256 load_eight_halves(const uint16_t* p) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i magnitude = _mm_min_epu16(_mm_and_si128(h, _mm_set1_epi16(0x7fff)), _mm_set1_epi16(0x7bff));
    const __m128i sign = _mm_and_si128(h, _mm_set1_epi16(static_cast<short>(0x8000)));
    return _mm256_cvtph_ps(_mm_or_si128(magnitude, sign));
}

// Products of 8 rows in one unit. The 16-bit sums cannot overflow: 8 quads of two products up to 15 * 128.
static inline __m256 unit_product_avx2(const __m256i* quad, const ActBlock& a, __m256 scale) {
    __m256i high = _mm256_setzero_si256(), low = high;
    for (int q = 0; q < 8; ++q) {
        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(quad[q], broadcast_quad(a.high + 4 * q)));
        low = _mm256_add_epi16(low, _mm256_maddubs_epi16(quad[q], broadcast_quad(a.low + 4 * q)));
    }
    const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(16)),
                                         _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
    const __m256 dot = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_set1_epi32(a.eight_sums)));
    return _mm256_mul_ps(_mm256_mul_ps(dot, scale), _mm256_set1_ps(a.scale));
}

static inline void int4_group_avx2(const Int4Job& job, uint32_t first_row) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const uint8_t* stream = job.stream;
    __m256 scale = _mm256_setzero_ps();
    for (uint32_t kb = 0; kb < job.k_blocks; ++kb) {
        if (kb % (kGroup / kBlock) == 0) {
            scale = load_eight_halves(reinterpret_cast<const uint16_t*>(stream) + first_row);
            stream += size_t{2} * job.rows;
        }
        __m256i quad[8];
        for (uint32_t p = 0; p < 4; ++p) {
            const uint8_t* at = stream + size_t{4} * (p * job.rows + first_row);
            const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
            quad[2 * p] = _mm256_and_si256(w, nibble);
            quad[2 * p + 1] = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
        }
        stream += size_t{16} * job.rows;
        const ActBlock* acts = job.acts + static_cast<size_t>(kb) * job.tokens;
        float* acc = job.acc + first_row;
        for (uint32_t t = 0; t < job.tokens; ++t, acc += job.rows) {
            _mm256_storeu_ps(acc,
                             _mm256_add_ps(_mm256_loadu_ps(acc), unit_product_avx2(quad, acts[t], scale)));
        }
    }
}

static void int4_avx2(const Int4Job& job) {
    for (uint32_t row = 0; row < job.rows; row += 8) int4_group_avx2(job, row);
}

}  // namespace dlavm::sim
