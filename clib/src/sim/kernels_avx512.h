// AVX-512: 16 rows, tokens or columns at a time; V is Avx512 or Avx512Vnni. Included once by the file of
// each.
#pragma once

#include <immintrin.h>

#include "sim/kernels_common.h"
#include "sim/kernels_epilogue.h"
#include "sim/kernels_int4.h"
#include "sim/kernels_wide.h"
#include "sim/vector_avx2.h"
#include "sim/vector_avx512.h"

namespace dlavm::sim {

namespace {

constexpr uint32_t kWide = 16;

struct Block512 {
    __m512i first, second;  // 32 mantissas
    int exponent;           // floor(log2) of the largest
};

inline Block512 quantize512(__m512 a, __m512 b, int bits, int zero) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    const __m512i larger = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a), mask),
                                            _mm512_and_si512(_mm512_castps_si512(b), mask));
    const uint32_t largest = static_cast<uint32_t>(_mm512_reduce_max_epu32(larger));
    const int exponent = largest == 0 ? zero : static_cast<int>(largest >> 23) - 127;
    const __m512 factor = _mm512_set1_ps(power_of_two(bits - 2 - exponent));
    const __m512i high = _mm512_set1_epi32((1 << (bits - 1)) - 1),
                  low = _mm512_sub_epi32(_mm512_setzero_si512(), high);
    const __m512i x = _mm512_cvtps_epi32(_mm512_mul_ps(a, factor)),
                  y = _mm512_cvtps_epi32(_mm512_mul_ps(b, factor));
    return {_mm512_max_epi32(low, _mm512_min_epi32(high, x)),
            _mm512_max_epi32(low, _mm512_min_epi32(high, y)), exponent};
}

inline void store_words(int16_t* out, const Block512& m) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(m.first));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kWide), _mm512_cvtepi32_epi16(m.second));
}

inline void store_act(ActBlock& out, const Block512& m, int bits) {
    const __m512i mask = _mm512_set1_epi32(15);
    const auto put = [](int8_t* to, __m512i x) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(x));
    };
    put(out.high, _mm512_srai_epi32(m.first, 4));
    put(out.high + kWide, _mm512_srai_epi32(m.second, 4));
    put(out.low, _mm512_and_si512(m.first, mask));
    put(out.low + kWide, _mm512_and_si512(m.second, mask));
    out.bias = -kInt4Zero * _mm512_reduce_add_epi32(_mm512_add_epi32(m.first, m.second));
    out.scale = power_of_two(m.exponent - (bits - 2));
}

// Calls put(block number, mantissas) for the blocks of a row.
template <class Put>
inline void quantize_row(const uint16_t* in, size_t k, int bits, Put put) {
    size_t block = 0;
    for (; (block + 1) * kBlock <= k; ++block) {
        const uint16_t* x = in + block * kBlock;
        put(block, quantize512(Avx512::halves(x), Avx512::halves(x + kWide), bits, -24));
    }
    if (block * kBlock < k) {
        uint16_t tail[kBlock] = {};
        for (size_t i = block * kBlock; i < k; ++i) tail[i - block * kBlock] = in[i];
        put(block, quantize512(Avx512::halves(tail), Avx512::halves(tail + kWide), bits, -24));
    }
}

void quantize_act_512(const uint16_t* in, size_t k, int bits, ActBlock* out, size_t stride) {
    quantize_row(in, k, bits,
                 [=](size_t block, const Block512& m) { store_act(out[block * stride], m, bits); });
}

void quantize_wide_512(const uint16_t* in, size_t k, int bits, WideBlock* out, size_t stride) {
    quantize_row(in, k, bits, [=](size_t block, const Block512& m) {
        WideBlock& b = out[block * stride];
        store_words(b.mantissa, m);
        interleave(b);
        b.scale = power_of_two(m.exponent - (bits - 2));
    });
}

void quantize_512(const uint16_t* in, size_t k, int bits, MantissaBlock* out) {
    quantize_row(in, k, bits, [=](size_t block, const Block512& m) {
        store_words(out[block].mantissa, m);
        out[block].scale = power_of_two(m.exponent - (bits - 2));
    });
}

// A tile of 8 rows a channel is too narrow for these vectors.
template <class V>
void int4_512(const TileJob& job) {
    if (job.rows % kWide != 0) return int4_vectors<Avx2>(job);
    int4_vectors<V>(job);
}

template <class V>
void wide_512(const TileJob& job) {
    if (job.rows % kWide != 0) return wide_vectors<Avx2>(job);
    wide_vectors<V>(job);
}

// One row of a cache unit; columns from `columns` on count as zero.
inline Block512 quantize_cache_row(const uint16_t* row, uint32_t columns) {
    __m512 a = Avx512::halves(row), b = Avx512::halves(row + kWide);
    if (columns < kBlock) {
        const uint32_t mask = (1u << columns) - 1;
        a = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask), a);
        b = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask >> kWide), b);
    }
    return quantize512(a, b, 12, -24);
}

// Rows of a cache unit as mantissas and scales.
void load_unit(const CacheUnit& unit, uint32_t columns, int16_t (*rows)[kBlock], float* scale) {
    if (unit.exponents != nullptr) return stored_unit(unit, rows, scale);
    for (uint32_t t = 0; t < kBlock; ++t) {
        const Block512 m = quantize_cache_row(half_rows(unit) + t * kBlock, columns);
        store_words(rows[t], m);
        scale[t] = power_of_two(m.exponent - 10);
    }
}

template <class V>
void scores_512(const ScoresJob& job) {
    const uint32_t blocks = (job.dim + kBlock - 1) / kBlock;
    alignas(64) int16_t rows[kBlock][kBlock];  // [token][k]
    alignas(64) int32_t pairs[kWide][kBlock];  // [pair of k][token]
    alignas(64) float scale[kBlock];
    for (uint32_t c = 0; c < blocks; ++c) {
        const uint32_t columns = job.dim - c * kBlock < kBlock ? job.dim - c * kBlock : kBlock;
        load_unit(unit_of(job.keys, c), columns, rows, scale);
        for (uint32_t p = 0; p < kWide; ++p) {
            for (uint32_t t = 0; t < kBlock; ++t)
                std::memcpy(&pairs[p][t], rows[t] + 2 * p, sizeof pairs[p][t]);
        }
        for (uint32_t r = 0; r < job.queries; ++r) {
            const MantissaBlock& q = job.query[static_cast<size_t>(r) * blocks + c];
            __m512i dot[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
            for (uint32_t p = 0; p < kWide; ++p) {
                const __m512i x = Avx512::broadcast(q.mantissa + 2 * p);
                dot[0] = V::add_pairs(dot[0], x, _mm512_load_si512(pairs[p]));
                dot[1] = V::add_pairs(dot[1], x, _mm512_load_si512(pairs[p] + kWide));
            }
            for (uint32_t h = 0; h < 2; ++h) {
                float* acc = job.acc + size_t{r} * kBlock + h * kWide;
                const __m512 power =
                    _mm512_mul_ps(_mm512_load_ps(scale + h * kWide), _mm512_set1_ps(q.scale));
                const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[h]), power);
                _mm512_storeu_ps(acc, _mm512_add_ps(_mm512_loadu_ps(acc), part));
            }
        }
    }
}

template <class V>
void values_512(const ValuesJob& job) {
    __m512i even[kWide], odd[kWide];  // pairs of tokens; columns 0-3, 8-11, .. and 4-7, 12-15, ..
    alignas(64) float scale[kBlock];
    alignas(64) int16_t rows[kBlock][kBlock];
    load_unit(job.values, job.columns, rows, scale);
    for (uint32_t p = 0; p < kWide; ++p) {
        const __m512i a = _mm512_load_si512(rows[2 * p]), b = _mm512_load_si512(rows[2 * p + 1]);
        even[p] = _mm512_unpacklo_epi16(a, b);
        odd[p] = _mm512_unpackhi_epi16(a, b);
    }
    const __m512 scale0 = _mm512_load_ps(scale), scale1 = _mm512_load_ps(scale + kWide);
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    for (uint32_t r = 0; r < job.queries; ++r) {
        const uint16_t* p16 = job.weights + size_t{r} * kBlock;
        const Block512 m = quantize512(_mm512_mul_ps(Avx512::halves(p16), scale0),
                                       _mm512_mul_ps(Avx512::halves(p16 + kWide), scale1), job.act_bits, 0);
        alignas(64) int16_t weights[kBlock];
        store_words(weights, m);
        __m512i dot0 = _mm512_setzero_si512(), dot1 = _mm512_setzero_si512();
        for (uint32_t p = 0; p < kWide; ++p) {
            const __m512i w = Avx512::broadcast(weights + 2 * p);
            dot0 = V::add_pairs(dot0, w, even[p]);
            dot1 = V::add_pairs(dot1, w, odd[p]);
        }
        const __m512 power = _mm512_set1_ps(power_of_two(m.exponent - (job.act_bits - 2)));
        const __m512 part0 =
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_permutex2var_epi32(dot0, first, dot1)), power);
        const __m512 part1 =
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_permutex2var_epi32(dot0, second, dot1)), power);
        float* acc = job.acc + size_t{r} * kBlock;
        _mm512_storeu_ps(acc, _mm512_add_ps(_mm512_loadu_ps(acc), part0));
        _mm512_storeu_ps(acc + kWide, _mm512_add_ps(_mm512_loadu_ps(acc + kWide), part1));
    }
}

template <class V>
constexpr Kernels avx512_kernels(const char* name) {
    return {name,        to_float_plain, quantize_act_512, quantize_wide_512, quantize_512,
            int4_512<V>, wide_512<V>,    scores_512<V>,    values_512<V>,     epilogue_vectors<V>,
            norm_plain,  softmax_plain,  rope_plain,       act_plain,         add_plain,
            mul_plain,   scale_plain,    argmax_plain,     topk_plain};
}

}  // namespace

}  // namespace dlavm::sim
