// Packed weights other than int4: codes become 16-bit integers, of which pairs are multiplied. Written once
// over the vectors V of an instruction set (vector_avx2.h, vector_avx512.h), V::kRows rows at a time.
#pragma once

#include "sim/kernels_stream.h"

namespace dlavm::sim {

namespace {

using formats::Codes;

// 32 codes of each row as bytes: quad[q] has k = 4q .. 4q + 3 in the bytes of a row's word.
// `unit` is where the first row of these begins, `slice` the bytes from four k of a row to the next four.
template <class V, Codes kCodes>
inline void load_quads(const uint8_t* unit, size_t slice, typename V::I* quad) {
    if constexpr (kCodes == Codes::kE2m1) {
        static constexpr int8_t kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
        const typename V::I values = V::table(kValues), nibble = V::all8(15);
        for (uint32_t p = 0; p < 4; ++p) {
            const typename V::I w = V::load(unit + p * slice);
            quad[2 * p] = V::look_up(values, V::both(w, nibble));
            quad[2 * p + 1] = V::look_up(values, V::both(V::template right16<4>(w), nibble));
        }
    } else {
        for (uint32_t q = 0; q < 8; ++q) quad[q] = V::load(unit + q * slice);
    }
}

// E2M3 codes: four low bits, of which a half of the magnitudes are the values, and the two high bits.
template <class V>
inline typename V::I e2m3_values(typename V::I low, typename V::I high) {
    static constexpr int8_t kLarge[16] = {16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 52, 56, 60};
    static constexpr int8_t kIsLarge[16] = {0, -1, 0, -1}, kIsNegative[16] = {0, 0, -1, -1};
    const typename V::I large = V::look_up(V::table(kIsLarge), high);
    const typename V::I sign = V::look_up(V::table(kIsNegative), high);
    const typename V::I difference = V::both(V::differ(V::look_up(V::table(kLarge), low), low), large);
    return V::sub8(V::differ(V::differ(low, difference), sign), sign);
}

// The same of E2M3, whose 16 k lie in three slices: the high bits of four quads, then two of nibbles.
template <class V>
inline void load_e2m3(const uint8_t* unit, size_t slice, typename V::I* quad) {
    const typename V::I nibble = V::all8(15), two = V::all8(3);
    for (uint32_t half = 0; half < 2; ++half, unit += 3 * slice, quad += 4) {
        const typename V::I high = V::load(unit), a = V::load(unit + slice), b = V::load(unit + 2 * slice);
        quad[0] = e2m3_values<V>(V::both(a, nibble), V::both(high, two));
        quad[1] = e2m3_values<V>(V::both(V::template right16<4>(a), nibble),
                                 V::both(V::template right16<2>(high), two));
        quad[2] = e2m3_values<V>(V::both(b, nibble), V::both(V::template right16<4>(high), two));
        quad[3] = e2m3_values<V>(V::both(V::template right16<4>(b), nibble),
                                 V::both(V::template right16<6>(high), two));
    }
}

// E4M3 codes as 256 * high + low, one of which is zero: signed mantissas of four bits times powers of two.
template <class V>
inline void split_e4m3(typename V::I code, typename V::I* high, typename V::I* low) {
    static constexpr int8_t kLow[16] = {1, 1, 2, 4, 8, 16, 32, 64, -128};  // 2^(e - 1) as an unsigned byte
    static constexpr int8_t kHigh[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64};
    static constexpr int8_t kOne[16] = {0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8};
    static constexpr int8_t kIsNegative[16] = {0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1};
    const typename V::I nibble = V::all8(15);
    // The code of a NaN becomes that of the largest value.
    const typename V::I magnitude = V::least8(V::both(code, V::all8(0x7f)), V::all8(0x7e));
    const typename V::I exponent = V::both(V::template right16<3>(magnitude), nibble);
    const typename V::I sign =
        V::look_up(V::table(kIsNegative), V::both(V::template right16<4>(code), nibble));
    const typename V::I unsigned_mantissa =
        V::either(V::both(magnitude, V::all8(7)), V::look_up(V::table(kOne), exponent));
    const typename V::I mantissa = V::sub8(V::differ(unsigned_mantissa, sign), sign);
    const typename V::I by_low = V::look_up(V::table(kLow), exponent),
                        by_high = V::look_up(V::table(kHigh), exponent);
    const typename V::I even = V::even_signed(mantissa), odd = V::odd_signed(mantissa);
    low[0] = V::mul16(even, V::even(by_low));
    low[1] = V::mul16(odd, V::odd(by_low));
    high[0] = V::mul16(even, V::even(by_high));
    high[1] = V::mul16(odd, V::odd(by_high));
}

// A unit as 16-bit integers in the order of WideBlock; of E4M3 the low and the high parts.
template <class V, Codes kCodes>
struct WideUnit {
    static constexpr bool kParts = kCodes == Codes::kE4m3;
    typename V::I low[kBlock / 2], high[kParts ? kBlock / 2 : 1];

    WideUnit(const uint8_t* unit, size_t slice) {
        typename V::I quad[8];
        if constexpr (kCodes == Codes::kE2m3) {
            load_e2m3<V>(unit, slice, quad);
        } else {
            load_quads<V, kCodes>(unit, slice, quad);
        }
        for (uint32_t q = 0; q < 8; ++q) {
            if constexpr (kParts) {
                split_e4m3<V>(quad[q], high + 2 * q, low + 2 * q);
            } else if constexpr (kCodes == Codes::kInt8) {
                low[2 * q] = V::even(quad[q]);
                low[2 * q + 1] = V::odd(quad[q]);
            } else {
                low[2 * q] = V::even_signed(quad[q]);
                low[2 * q + 1] = V::odd_signed(quad[q]);
            }
        }
    }

    static typename V::I dot(const typename V::I* pair, const WideBlock& a) {
        typename V::I sum[2] = {V::all32(0), V::all32(0)};
        for (uint32_t i = 0; i < kBlock / 2; i += 2) {
            sum[0] = V::add_pairs(sum[0], pair[i], V::broadcast(a.mantissa + 2 * i));
            sum[1] = V::add_pairs(sum[1], pair[i + 1], V::broadcast(a.mantissa + 2 * i + 2));
        }
        return V::add32(sum[0], sum[1]);
    }

    typename V::F product(const WideBlock& a, typename V::I zero) const {
        if constexpr (kParts) return V::to_float(dot(high, a), dot(low, a));
        if constexpr (kCodes == Codes::kInt8) {
            return V::to_float(V::sub32(dot(low, a), V::mul32(zero, V::all32(a.sum))));
        }
        return V::to_float(dot(low, a));
    }
};

// The rows of one group, V::kRows from first_row of a channel on.
template <class V, Codes kCodes>
inline void wide_rows(const TileJob& job, uint32_t channel, uint32_t first_row) {
    const formats::Format& format = *job.format;
    const Spans spans = spans_of(format);
    const size_t slice = size_t{4} * job.rows, columns = size_t{job.channels} * job.rows;
    const typename V::F unit_value = V::all(power_of_two(format.unit_exponent));
    Walk walk(spans, job.rows, job.stream + channel * job.pitch);
    typename V::F scale = V::all(0.0f);
    typename V::I zero = V::all32(128);
    for (uint32_t kb = 0; kb < job.k_blocks; ++kb) {
        walk.next(kb);
        if (walk.group_begins) {
            const uint16_t* const scales = walk.scales + first_row;
            // Exact: scales are far from the ends of fp32.
            scale = V::mul(format.e8m0 ? V::powers(V::bytes(scales, walk.second)) : V::halves(scales),
                           unit_value);
            if (spans.zero_blocks != 0) zero = V::bytes(walk.zeros + first_row, walk.second);
        }
        const WideUnit<V, kCodes> unit(walk.unit + size_t{4} * first_row, slice);
        const WideBlock* acts = job.wide + static_cast<size_t>(kb) * job.tokens;
        float* acc = job.acc + size_t{channel} * job.rows + first_row;
        for (uint32_t t = 0; t < job.tokens; ++t, acc += columns) {
            const typename V::F scaled = V::mul(unit.product(acts[t], zero), scale);
            V::store(acc, V::add_exact_product(V::load_floats(acc), scaled, V::all(acts[t].scale)));
        }
    }
}

template <class V, Codes kCodes>
inline void wide_tile(const TileJob& job) {
    for (uint32_t channel = 0; channel < job.channels; ++channel) {
        for (uint32_t row = 0; row < job.rows; row += V::kRows) wide_rows<V, kCodes>(job, channel, row);
    }
}

template <class V>
inline void wide_vectors(const TileJob& job) {
    switch (job.format->codes) {
        case Codes::kInt8:
            return wide_tile<V, Codes::kInt8>(job);
        case Codes::kE2m1:
            return wide_tile<V, Codes::kE2m1>(job);
        case Codes::kE2m3:
            return wide_tile<V, Codes::kE2m3>(job);
        case Codes::kE4m3:
            return wide_tile<V, Codes::kE4m3>(job);
        case Codes::kInt4:
            break;  // has kernels of its own
    }
}

}  // namespace

}  // namespace dlavm::sim
