// Scalar rules of doc/numerics.md sections 1 and 7. Everything is static: files with different instruction
// sets include this header, and the linker must not give one file the code of another.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "dlavm_tables.h"

namespace dlavm::sim {

constexpr float kFloatMax = 3.402823466e+38f;
constexpr float kHalfMax = 65504.0f;
constexpr uint32_t kBlock = 32;   // elements that share an exponent
constexpr uint32_t kLanes = 128;  // virtual lanes of a reduction

static inline float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// The fp32 that stands in memory or in a command: an exponent of all ones reads as the largest finite value.
static inline float read_float(uint32_t bits) {
    const bool special = (bits & 0x7f800000u) == 0x7f800000u;
    return float_of(special ? (bits & 0x80000000u) | 0x7f7fffffu : bits);
}

static inline float saturate(float x) {
    x = x < -kFloatMax ? -kFloatMax : x;
    return x > kFloatMax ? kFloatMax : x;
}

static inline float add(float a, float b) { return saturate(a + b); }
static inline float sub(float a, float b) { return saturate(a - b); }
static inline float mul(float a, float b) { return saturate(a * b); }

// fp16 to fp32; an exponent of 31 reads as +-65504.
static inline float half_to_float(uint16_t half) {
    uint32_t magnitude = half & 0x7fffu;
    magnitude = magnitude > 0x7bffu ? 0x7bffu : magnitude;
    const float value = float_of(magnitude << 13) * 0x1p112f;
    return float_of(bits_of(value) | (half & 0x8000u) << 16);
}

// fp32 to fp16, to nearest even, saturated to +-65504.
static inline uint16_t float_to_half(float x) {
    const uint32_t sign = bits_of(x) >> 16 & 0x8000u;
    float magnitude = float_of(bits_of(x) & 0x7fffffffu);
    magnitude = magnitude > kHalfMax ? kHalfMax : magnitude;
    const uint32_t bits = bits_of(magnitude);
    const uint32_t normal = ((bits + 0xfffu + (bits >> 13 & 1u)) >> 13) - (112u << 10);
    const uint32_t subnormal =
        bits_of(magnitude + 0.5f) - 0x3f000000u;  // 0.5 has the unit of a subnormal fp16
    return static_cast<uint16_t>(sign | (magnitude < 0x1p-14f ? subnormal : normal));
}

// 2^e for -126 <= e <= 127.
static inline float power_of_two(int e) { return float_of(static_cast<uint32_t>(e + 127) << 23); }

// The exponent byte (E8M0) that goes with 8-bit mantissas of that power of two, and back: a byte that no fp16
// number can have reads as the nearest one that it can.
constexpr int kStoredBits = 8, kFirstExponent = 127 - 24, kLastExponent = 127 + 15;

static inline uint8_t stored_exponent(float scale) {
    return static_cast<uint8_t>((bits_of(scale) >> 23) + (kStoredBits - 2));
}

static inline float stored_scale(uint8_t exponent) {
    int e = exponent < kFirstExponent ? kFirstExponent : exponent;
    e = e > kLastExponent ? kLastExponent : e;
    return power_of_two(e - 127 - (kStoredBits - 2));
}

static inline int32_t interpolate(const int32_t* table, int32_t i, int32_t f, int shift) {
    return table[i] + (((table[i + 1] - table[i]) * f) >> shift);
}

// exp(x) for x <= 0.
static inline float table_exp(float x) {
    float t = x * float_of(tables::kLog2eBits);
    t = t < -40.0f ? -40.0f : t;
    // Adding 1.5 * 2^23 rounds to an integer, to nearest even: |t * 2^16| < 2^22.
    const float rounded = t * 65536.0f + 12582912.0f;
    const int32_t q = static_cast<int32_t>(bits_of(rounded) - 0x4b400000u);
    const int32_t m = interpolate(tables::kExp, q >> 8 & 255, q & 255, 8);
    return static_cast<float>(m) * power_of_two((q >> 16) - 22);
}

struct Normalised {
    uint32_t mantissa;  // 23 bits behind the leading one
    int exponent;
};

// A positive finite number as 1.m * 2^E, subnormals included.
static inline Normalised normalise(float x) {
    const uint32_t bits = bits_of(x);
    if (bits >> 23 != 0) return {bits & 0x7fffffu, static_cast<int>(bits >> 23) - 127};
    const uint32_t scaled = bits_of(x * 0x1p24f);
    return {scaled & 0x7fffffu, static_cast<int>(scaled >> 23) - 127 - 24};
}

static inline float table_reciprocal(float x) {
    if (!(x > 0.0f)) return kFloatMax;
    const Normalised v = normalise(x);
    const int32_t m = interpolate(tables::kRecip, static_cast<int32_t>(v.mantissa >> 15),
                                  static_cast<int32_t>(v.mantissa & 0x7fff), 15);
    return saturate(static_cast<float>(std::ldexp(static_cast<double>(m), -v.exponent - 23)));
}

static inline float table_rsqrt(float x) {
    if (!(x > 0.0f)) return kFloatMax;
    const Normalised v = normalise(x);
    const bool odd = (v.exponent & 1) != 0;
    const int32_t* table = odd ? tables::kRsqrt1 : tables::kRsqrt0;
    const int32_t m = interpolate(table, static_cast<int32_t>(v.mantissa >> 15),
                                  static_cast<int32_t>(v.mantissa & 0x7fff), 15);
    return static_cast<float>(m) * power_of_two(-((v.exponent - (odd ? 1 : 0)) / 2) - 23);
}

}  // namespace dlavm::sim
