// The vectors of AVX-512, 16 rows wide, as kernels_wide.h wants them.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "sim/kernels_stream.h"

namespace dlavm::sim {

namespace {

struct Avx512 {
    using I = __m512i;
    using F = __m512;
    static constexpr uint32_t kRows = 16;
    static constexpr uint32_t kGroups = 2, kTokens = 3,
                              kLoneGroups = 4;  // what registers hold (kernels_int4.h)

    static I load(const void* p) { return _mm512_loadu_si512(p); }
    static I broadcast(const void* four_bytes) {
        int32_t x;
        std::memcpy(&x, four_bytes, sizeof x);
        return _mm512_set1_epi32(x);
    }
    static I table(const int8_t* sixteen) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
    }
    static I all32(int32_t x) { return _mm512_set1_epi32(x); }
    static I all8(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }

    static I both(I a, I b) { return _mm512_and_si512(a, b); }
    static I either(I a, I b) { return _mm512_or_si512(a, b); }
    static I differ(I a, I b) { return _mm512_xor_si512(a, b); }
    static I least8(I a, I b) { return _mm512_min_epu8(a, b); }
    static I sub8(I a, I b) { return _mm512_sub_epi8(a, b); }
    static I look_up(I table, I index) { return _mm512_shuffle_epi8(table, index); }
    template <int kBits>
    static I right16(I x) {
        return _mm512_srli_epi16(x, kBits);
    }
    // The even and the odd bytes as 16-bit integers.
    static I even_signed(I x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }
    static I odd_signed(I x) { return _mm512_srai_epi16(x, 8); }
    static I even(I x) { return _mm512_and_si512(x, _mm512_set1_epi16(255)); }
    static I odd(I x) { return _mm512_srli_epi16(x, 8); }

    static I mul16(I a, I b) { return _mm512_mullo_epi16(a, b); }
    static I mul32(I a, I b) { return _mm512_mullo_epi32(a, b); }
    static I add32(I a, I b) { return _mm512_add_epi32(a, b); }
    static I sub32(I a, I b) { return _mm512_sub_epi32(a, b); }
    // sum + the products of each pair of 16-bit integers.
    static I add_pairs(I sum, I a, I b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }

    // Unsigned times signed bytes, four a row as two sums of 16 bits, as in vector_avx2.h.
    static I begin_quads(I) { return _mm512_setzero_si512(); }
    static I add_quads(I sum, I codes, I x) { return _mm512_add_epi16(sum, _mm512_maddubs_epi16(codes, x)); }
    static I end_quads(I high, I low, I bias) {
        const I sums = _mm512_add_epi32(_mm512_madd_epi16(high, _mm512_set1_epi16(16)),
                                        _mm512_madd_epi16(low, _mm512_set1_epi16(1)));
        return _mm512_add_epi32(sums, bias);
    }

    // 16 fp16; an exponent of 31 reads as +-65504.
    static F halves(const uint16_t* p) {
        const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        const __m256i magnitude =
            _mm256_min_epu16(_mm256_and_si256(h, _mm256_set1_epi16(0x7fff)), _mm256_set1_epi16(0x7bff));
        const __m256i sign = _mm256_and_si256(h, _mm256_set1_epi16(static_cast<short>(0x8000)));
        return _mm512_cvtph_ps(_mm256_or_si256(magnitude, sign));
    }
    // One of the two bytes of each row.
    static I bytes(const uint16_t* p, bool second) {
        const I pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return _mm512_and_si512(second ? _mm512_srli_epi32(pairs, 8) : pairs, _mm512_set1_epi32(255));
    }
    // Powers of two of E8M0 bytes.
    static F powers(I byte) {
        const I least = _mm512_set1_epi32(kLeastScale), largest = _mm512_set1_epi32(kLargestScale);
        return _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_min_epi32(_mm512_max_epi32(byte, least), largest), 23));
    }

    static F all(float x) { return _mm512_set1_ps(x); }
    static F load_floats(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    // Of an exact product: fused or not, sum + a * b is rounded once.
    static F add_exact_product(F sum, F a, F b) { return _mm512_fmadd_ps(a, b, sum); }
    static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
    // 256 * high + low, rounded once.
    static F to_float(I high, I low) {
        const __m256 first = joined(_mm512_castsi512_si256(high), _mm512_castsi512_si256(low));
        const __m256 second = joined(_mm512_extracti32x8_epi32(high, 1), _mm512_extracti32x8_epi32(low, 1));
        return _mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
    }

    // Sixteen fp16 of numbers, to nearest even, saturated.
    static void store_halves(uint16_t* p, F x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_halves(x));
    }
    // The same, each in a word.
    static I half_words(F x) { return _mm512_cvtepu16_epi32(to_halves(x)); }
    static F saturated(F x) { return clamped(x, kFloatMax); }
    template <int kBits>
    static I right32(I x) {
        return _mm512_srli_epi32(x, kBits);
    }
    static F gathered(const float* table, I index) { return _mm512_i32gather_ps(index, table, 4); }

  private:
    static F clamped(F x, float limit) {
        return _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-limit)), _mm512_set1_ps(limit));
    }
    static __m256i to_halves(F x) {
        return _mm512_cvtps_ph(clamped(x, kHalfMax), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static __m256 joined(__m256i high, __m256i low) {
        const __m512d scaled = _mm512_mul_pd(_mm512_cvtepi32_pd(high), _mm512_set1_pd(256.0));
        return _mm512_cvtpd_ps(_mm512_add_pd(scaled, _mm512_cvtepi32_pd(low)));
    }
};

#ifdef __AVX512VNNI__
struct Avx512Vnni : Avx512 {
    static I add_pairs(I sum, I a, I b) { return _mm512_dpwssd_epi32(sum, a, b); }
    // Sums of 32 bits: one begins with what is to be added to it.
    static I begin_quads(I bias) { return bias; }
    static I add_quads(I sum, I codes, I x) { return _mm512_dpbusd_epi32(sum, codes, x); }
    static I end_quads(I high, I low, I) { return _mm512_add_epi32(_mm512_slli_epi32(high, 4), low); }
};
#endif

}  // namespace

}  // namespace dlavm::sim
