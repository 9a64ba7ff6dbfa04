// The vectors of AVX2 and F16C, 8 rows wide, as kernels_wide.h wants them.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "sim/kernels_stream.h"

namespace dlavm::sim {

namespace {

struct Avx2 {
    using I = __m256i;
    using F = __m256;
    static constexpr uint32_t kRows = 8;
    static constexpr uint32_t kGroups = 1, kTokens = 2,
                              kLoneGroups = 2;  // what registers hold (kernels_int4.h)

    static I load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static I broadcast(const void* four_bytes) {
        int32_t x;
        std::memcpy(&x, four_bytes, sizeof x);
        return _mm256_set1_epi32(x);
    }
    static I table(const int8_t* sixteen) {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
    }
    static I all32(int32_t x) { return _mm256_set1_epi32(x); }
    static I all8(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }

    static I both(I a, I b) { return _mm256_and_si256(a, b); }
    static I either(I a, I b) { return _mm256_or_si256(a, b); }
    static I differ(I a, I b) { return _mm256_xor_si256(a, b); }
    static I least8(I a, I b) { return _mm256_min_epu8(a, b); }
    static I sub8(I a, I b) { return _mm256_sub_epi8(a, b); }
    static I look_up(I table, I index) { return _mm256_shuffle_epi8(table, index); }
    template <int kBits>
    static I right16(I x) {
        return _mm256_srli_epi16(x, kBits);
    }
    // The even and the odd bytes as 16-bit integers.
    static I even_signed(I x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
    static I odd_signed(I x) { return _mm256_srai_epi16(x, 8); }
    static I even(I x) { return _mm256_and_si256(x, _mm256_set1_epi16(255)); }
    static I odd(I x) { return _mm256_srli_epi16(x, 8); }

    static I mul16(I a, I b) { return _mm256_mullo_epi16(a, b); }
    static I mul32(I a, I b) { return _mm256_mullo_epi32(a, b); }
    static I add32(I a, I b) { return _mm256_add_epi32(a, b); }
    static I sub32(I a, I b) { return _mm256_sub_epi32(a, b); }
    // sum + the products of each pair of 16-bit integers.
    static I add_pairs(I sum, I a, I b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

    // Unsigned times signed bytes, four a row as two sums of 16 bits. They cannot overflow: 8 quads of two
    // products up to 15 * 128.
    static I begin_quads(I) { return _mm256_setzero_si256(); }
    static I add_quads(I sum, I codes, I x) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x)); }
    static I end_quads(I high, I low, I bias) {
        const I sums = _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(16)),
                                        _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
        return _mm256_add_epi32(sums, bias);
    }

    // 8 fp16; an exponent of 31 reads as +-65504.
    static F halves(const uint16_t* p) {
        const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i magnitude =
            _mm_min_epu16(_mm_and_si128(h, _mm_set1_epi16(0x7fff)), _mm_set1_epi16(0x7bff));
        const __m128i sign = _mm_and_si128(h, _mm_set1_epi16(static_cast<short>(0x8000)));
        return _mm256_cvtph_ps(_mm_or_si128(magnitude, sign));
    }
    // One of the two bytes of each row.
    static I bytes(const uint16_t* p, bool second) {
        const I pairs = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return _mm256_and_si256(second ? _mm256_srli_epi32(pairs, 8) : pairs, _mm256_set1_epi32(255));
    }
    // Powers of two of E8M0 bytes.
    static F powers(I byte) {
        const I least = _mm256_set1_epi32(kLeastScale), largest = _mm256_set1_epi32(kLargestScale);
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_min_epi32(_mm256_max_epi32(byte, least), largest), 23));
    }

    static F all(float x) { return _mm256_set1_ps(x); }
    static F load_floats(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F add_exact_product(F sum, F a, F b) { return add(sum, mul(a, b)); }
    static F to_float(I x) { return _mm256_cvtepi32_ps(x); }
    // 256 * high + low, rounded once.
    static F to_float(I high, I low) {
        const __m128 first = joined(_mm256_castsi256_si128(high), _mm256_castsi256_si128(low));
        const __m128 second = joined(_mm256_extracti128_si256(high, 1), _mm256_extracti128_si256(low, 1));
        return _mm256_set_m128(second, first);
    }

    // Eight fp16 of numbers, to nearest even, saturated.
    static void store_halves(uint16_t* p, F x) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_halves(x));
    }
    // The same, each in a word.
    static I half_words(F x) { return _mm256_cvtepu16_epi32(to_halves(x)); }
    static F saturated(F x) { return clamped(x, kFloatMax); }
    template <int kBits>
    static I right32(I x) {
        return _mm256_srli_epi32(x, kBits);
    }
    static F gathered(const float* table, I index) { return _mm256_i32gather_ps(table, index, 4); }

  private:
    static F clamped(F x, float limit) {
        return _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-limit)), _mm256_set1_ps(limit));
    }
    static __m128i to_halves(F x) {
        return _mm256_cvtps_ph(clamped(x, kHalfMax), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static __m128 joined(__m128i high, __m128i low) {
        const __m256d scaled = _mm256_mul_pd(_mm256_cvtepi32_pd(high), _mm256_set1_pd(256.0));
        return _mm256_cvtpd_ps(_mm256_add_pd(scaled, _mm256_cvtepi32_pd(low)));
    }
};

}  // namespace

}  // namespace dlavm::sim
