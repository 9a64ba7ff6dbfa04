// AVX2 and F16C: 8 rows, tokens or columns at a time.
#include <immintrin.h>

#include "sim/kernels_common.h"
#include "sim/kernels_epilogue.h"
#include "sim/kernels_int4.h"
#include "sim/kernels_wide.h"
#include "sim/vector_avx2.h"

namespace dlavm::sim {

namespace {

constexpr uint32_t kWide = 8, kParts = kBlock / kWide, kPairs = kBlock / 2;

struct Block256 {
    __m256i part[kParts];  // 32 mantissas
    int exponent;          // floor(log2) of the largest
};

inline __m256i broadcast_pair(const int16_t* p) {
    int32_t x;
    std::memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}

inline uint32_t largest_of(__m256i x) {
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

inline Block256 quantize256(const __m256* x, int bits, int zero) {
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i larger = _mm256_setzero_si256();
    for (uint32_t i = 0; i < kParts; ++i) {
        larger = _mm256_max_epu32(larger, _mm256_and_si256(_mm256_castps_si256(x[i]), mask));
    }
    const uint32_t largest = largest_of(larger);
    Block256 m;
    m.exponent = largest == 0 ? zero : static_cast<int>(largest >> 23) - 127;
    const __m256 factor = _mm256_set1_ps(power_of_two(bits - 2 - m.exponent));
    const int limit = (1 << (bits - 1)) - 1;
    for (uint32_t i = 0; i < kParts; ++i) {
        const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], factor));
        m.part[i] =
            _mm256_max_epi32(_mm256_set1_epi32(-limit), _mm256_min_epi32(_mm256_set1_epi32(limit), rounded));
    }
    return m;
}

inline void store_words(int16_t* out, const Block256& m) {
    for (uint32_t i = 0; i < kParts; i += 2) {
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(m.part[i], m.part[i + 1]), 0xd8);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * kWide), packed);
    }
}

inline Block256 quantize_halves(const uint16_t* in, int bits) {
    __m256 x[kParts];
    for (uint32_t i = 0; i < kParts; ++i) x[i] = Avx2::halves(in + i * kWide);
    return quantize256(x, bits, -24);
}

// Calls put(block number, mantissas) for the blocks of a row.
template <class Put>
inline void quantize_row(const uint16_t* in, size_t k, int bits, Put put) {
    size_t block = 0;
    for (; (block + 1) * kBlock <= k; ++block) put(block, quantize_halves(in + block * kBlock, bits));
    if (block * kBlock < k) {
        uint16_t tail[kBlock] = {};
        for (size_t i = block * kBlock; i < k; ++i) tail[i - block * kBlock] = in[i];
        put(block, quantize_halves(tail, bits));
    }
}

void quantize_act_256(const uint16_t* in, size_t k, int bits, ActBlock* out, size_t stride) {
    quantize_row(in, k, bits, [=](size_t block, const Block256& m) {
        alignas(32) int16_t words[kBlock];
        store_words(words, m);
        ActBlock& b = out[block * stride];
        int32_t sum = 0;
        for (uint32_t i = 0; i < kBlock; ++i) {
            b.high[i] = static_cast<int8_t>(words[i] >> 4);
            b.low[i] = static_cast<int8_t>(words[i] & 15);
            sum += words[i];
        }
        b.bias = -kInt4Zero * sum;
        b.scale = power_of_two(m.exponent - (bits - 2));
    });
}

void quantize_wide_256(const uint16_t* in, size_t k, int bits, WideBlock* out, size_t stride) {
    quantize_row(in, k, bits, [=](size_t block, const Block256& m) {
        WideBlock& b = out[block * stride];
        store_words(b.mantissa, m);
        interleave(b);
        b.scale = power_of_two(m.exponent - (bits - 2));
    });
}

void quantize_256(const uint16_t* in, size_t k, int bits, MantissaBlock* out) {
    quantize_row(in, k, bits, [=](size_t block, const Block256& m) {
        store_words(out[block].mantissa, m);
        out[block].scale = power_of_two(m.exponent - (bits - 2));
    });
}

// Rows of a cache unit as mantissas and scales; columns from `columns` on count as zero.
void load_unit(const CacheUnit& unit, uint32_t columns, int16_t (*rows)[kBlock], float* scale) {
    if (unit.exponents != nullptr) return stored_unit(unit, rows, scale);
    for (uint32_t t = 0; t < kBlock; ++t) {
        uint16_t row[kBlock] = {};
        std::memcpy(row, half_rows(unit) + t * kBlock, columns * sizeof(uint16_t));
        const Block256 m = quantize_halves(row, 12);
        store_words(rows[t], m);
        scale[t] = power_of_two(m.exponent - 10);
    }
}

inline void accumulate(float* acc, __m256i dot, __m256 power) {
    _mm256_storeu_ps(acc, _mm256_add_ps(_mm256_loadu_ps(acc), _mm256_mul_ps(_mm256_cvtepi32_ps(dot), power)));
}

// dot[i] of 8 columns each: 16 pairs of mantissas against pairs[p][i].
inline void dot_pairs(const int16_t* mantissa, const __m256i (*pairs)[kParts], __m256i* dot) {
    for (uint32_t i = 0; i < kParts; ++i) dot[i] = _mm256_setzero_si256();
    for (uint32_t p = 0; p < kPairs; ++p) {
        const __m256i x = broadcast_pair(mantissa + 2 * p);
        for (uint32_t i = 0; i < kParts; ++i)
            dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(x, pairs[p][i]));
    }
}

void int4_256(const TileJob& job) { int4_vectors<Avx2>(job); }

void wide_256(const TileJob& job) { wide_vectors<Avx2>(job); }

void scores_256(const ScoresJob& job) {
    const uint32_t blocks = (job.dim + kBlock - 1) / kBlock;
    alignas(32) int16_t rows[kBlock][kBlock];
    alignas(32) float scale[kBlock];
    __m256i pairs[kPairs][kParts], dot[kParts];
    for (uint32_t c = 0; c < blocks; ++c) {
        const uint32_t columns = job.dim - c * kBlock < kBlock ? job.dim - c * kBlock : kBlock;
        load_unit(unit_of(job.keys, c), columns, rows, scale);
        for (uint32_t p = 0; p < kPairs; ++p) {
            alignas(32) int16_t column[kBlock][2];
            for (uint32_t t = 0; t < kBlock; ++t) std::memcpy(column[t], rows[t] + 2 * p, sizeof column[t]);
            std::memcpy(pairs[p], column, sizeof column);
        }
        for (uint32_t r = 0; r < job.queries; ++r) {
            const MantissaBlock& q = job.query[static_cast<size_t>(r) * blocks + c];
            dot_pairs(q.mantissa, pairs, dot);
            for (uint32_t i = 0; i < kParts; ++i) {
                const __m256 power =
                    _mm256_mul_ps(_mm256_load_ps(scale + i * kWide), _mm256_set1_ps(q.scale));
                accumulate(job.acc + size_t{r} * kBlock + i * kWide, dot[i], power);
            }
        }
    }
}

void values_256(const ValuesJob& job) {
    alignas(32) int16_t rows[kBlock][kBlock];
    alignas(32) float scale[kBlock];
    __m256i pairs[kPairs][kParts], dot[kParts];
    load_unit(job.values, job.columns, rows, scale);
    for (uint32_t p = 0; p < kPairs; ++p) {
        for (uint32_t h = 0; h < 2; ++h) {
            const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows[2 * p] + 16 * h));
            const __m256i b = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows[2 * p + 1] + 16 * h));
            const __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
            pairs[p][2 * h] = _mm256_permute2x128_si256(low, high, 0x20);
            pairs[p][2 * h + 1] = _mm256_permute2x128_si256(low, high, 0x31);
        }
    }
    for (uint32_t r = 0; r < job.queries; ++r) {
        __m256 x[kParts];
        for (uint32_t i = 0; i < kParts; ++i) {
            const __m256 p = Avx2::halves(job.weights + size_t{r} * kBlock + i * kWide);
            x[i] = _mm256_mul_ps(p, _mm256_load_ps(scale + i * kWide));
        }
        const Block256 m = quantize256(x, job.act_bits, 0);
        alignas(32) int16_t weights[kBlock];
        store_words(weights, m);
        dot_pairs(weights, pairs, dot);
        const __m256 power = _mm256_set1_ps(power_of_two(m.exponent - (job.act_bits - 2)));
        for (uint32_t i = 0; i < kParts; ++i)
            accumulate(job.acc + size_t{r} * kBlock + i * kWide, dot[i], power);
    }
}

}  // namespace

const Kernels kAvx2Kernels = {
    "avx2",     to_float_plain, quantize_act_256, quantize_wide_256, quantize_256,
    int4_256,   wide_256,       scores_256,       values_256,        epilogue_vectors<Avx2>,
    norm_plain, softmax_plain,  rope_plain,       act_plain,         add_plain,
    mul_plain,  scale_plain,    argmax_plain,     topk_plain,
};

}  // namespace dlavm::sim
