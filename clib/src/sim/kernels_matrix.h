// Plain loops of the matrix engine and its quantiser, for processors without their own.
#pragma once

#include "sim/kernels_common.h"
#include "sim/kernels_stream.h"

namespace dlavm::sim {

// floor(log2 |x|) of the largest of 32 numbers that are fp16 or products of such with powers of two; `zero`
// without any.
static int block_exponent(const float* x, int zero) {
    uint32_t largest = 0;
    for (uint32_t i = 0; i < kBlock; ++i) {
        const uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest == 0 ? zero : static_cast<int>(largest >> 23) - 127;
}

static void block_mantissas(const float* x, int exponent, int bits, int32_t* m) {
    const float factor = power_of_two(bits - 2 - exponent);
    const int32_t limit = (1 << (bits - 1)) - 1;
    for (uint32_t i = 0; i < kBlock; ++i) {
        // |x * factor| < 2^11: adding 1.5 * 2^23 rounds to nearest even.
        const float rounded = x[i] * factor + 12582912.0f;
        int32_t value = static_cast<int32_t>(bits_of(rounded) - 0x4b400000u);
        value = value > limit ? limit : value;
        m[i] = value < -limit ? -limit : value;
    }
}

// Block number `block` of a row of k numbers, padded with zeros.
static void load_block(const uint16_t* in, size_t k, size_t block, float* x) {
    const size_t begin = block * kBlock;
    if (begin + kBlock <= k) {
        for (uint32_t i = 0; i < kBlock; ++i) x[i] = half_to_float(in[begin + i]);
        return;
    }
    for (uint32_t i = 0; i < kBlock; ++i) x[i] = begin + i < k ? half_to_float(in[begin + i]) : 0.0f;
}

static void quantize_act_plain(const uint16_t* in, size_t k, int bits, ActBlock* out, size_t stride) {
    float x[kBlock];
    int32_t m[kBlock];
    for (size_t block = 0; block * kBlock < k; ++block) {
        load_block(in, k, block, x);
        const int exponent = block_exponent(x, -24);
        block_mantissas(x, exponent, bits, m);
        ActBlock& b = out[block * stride];
        int32_t sum = 0;
        for (uint32_t i = 0; i < kBlock; ++i) {
            b.high[i] = static_cast<int8_t>(m[i] >> 4);
            b.low[i] = static_cast<int8_t>(m[i] & 15);
            sum += m[i];
        }
        b.bias = -kInt4Zero * sum;
        b.scale = power_of_two(exponent - (bits - 2));
    }
}

static void quantize_wide_plain(const uint16_t* in, size_t k, int bits, WideBlock* out, size_t stride) {
    float x[kBlock];
    int32_t m[kBlock];
    for (size_t block = 0; block * kBlock < k; ++block) {
        load_block(in, k, block, x);
        const int exponent = block_exponent(x, -24);
        block_mantissas(x, exponent, bits, m);
        WideBlock& b = out[block * stride];
        for (uint32_t i = 0; i < kBlock; ++i) b.mantissa[i] = static_cast<int16_t>(m[i]);
        interleave(b);
        b.scale = power_of_two(exponent - (bits - 2));
    }
}

static void quantize_block(const float* x, int bits, int zero, MantissaBlock& out) {
    int32_t m[kBlock];
    const int exponent = block_exponent(x, zero);
    block_mantissas(x, exponent, bits, m);
    for (uint32_t i = 0; i < kBlock; ++i) out.mantissa[i] = static_cast<int16_t>(m[i]);
    out.scale = power_of_two(exponent - (bits - 2));
}

static void quantize_plain(const uint16_t* in, size_t k, int bits, MantissaBlock* out) {
    float x[kBlock];
    for (size_t block = 0; block * kBlock < k; ++block) {
        load_block(in, k, block, x);
        quantize_block(x, bits, -24, out[block]);
    }
}

// Of the two bytes of a row in a metadata beat.
static inline uint32_t metadata_byte(const uint16_t* pairs, uint32_t row, bool second) {
    return second ? pairs[row] >> 8 : pairs[row] & 255;
}

static void int4_channel(const TileJob& job, uint32_t channel) {
    const uint32_t rows = job.rows;
    Walk walk(spans_of(*job.format), rows, job.stream + channel * job.pitch);
    for (uint32_t kb = 0; kb < job.k_blocks; ++kb) {
        walk.next(kb);
        for (uint32_t t = 0; t < job.tokens; ++t) {
            const ActBlock& a = job.acts[static_cast<size_t>(kb) * job.tokens + t];
            float* acc = job.acc + (static_cast<size_t>(t) * job.channels + channel) * rows;
            for (uint32_t j = 0; j < rows; ++j) {
                int32_t high = 0, low = 0;
                for (uint32_t p = 0; p < 4; ++p) {
                    const uint8_t* w = walk.unit + (p * rows + j) * 4;
                    for (uint32_t i = 0; i < 4; ++i) {
                        const int32_t w0 = w[i] & 15, w1 = w[i] >> 4;
                        high += w0 * a.high[8 * p + i] + w1 * a.high[8 * p + 4 + i];
                        low += w0 * a.low[8 * p + i] + w1 * a.low[8 * p + 4 + i];
                    }
                }
                const int32_t zero = walk.zeros == nullptr
                                         ? kInt4Zero
                                         : static_cast<int32_t>(metadata_byte(walk.zeros, j, walk.second));
                const float dot = static_cast<float>(16 * high + low + zero * (a.bias / kInt4Zero));
                acc[j] += dot * half_to_float(walk.scales[j]) * a.scale;
            }
        }
    }
}

static void int4_plain(const TileJob& job) {
    for (uint32_t channel = 0; channel < job.channels; ++channel) int4_channel(job, channel);
}

// The code of element k of a row in a unit.
static inline uint32_t code_at(uint32_t bits, const uint8_t* unit, uint32_t rows, uint32_t row, uint32_t k) {
    const auto byte = [=](uint32_t slice) { return uint32_t{unit[(slice * rows + row) * 4 + k % 4]}; };
    if (bits == 8) return byte(k / 4);
    if (bits == 4) return byte(k / 8) >> (k & 4) & 15;
    const uint32_t first = 3 * (k / 16), quad = k / 4 % 4;  // three slices hold 16 k of 6 bits
    return (byte(first + 1 + quad / 2) >> (k & 4) & 15) | (byte(first) >> 2 * quad & 3) << 4;
}

static inline const int32_t* values_of(formats::Codes codes) {
    switch (codes) {
        case formats::Codes::kInt4:
            return formats::kInt4Values;
        case formats::Codes::kInt8:
            return formats::kInt8Values;
        case formats::Codes::kE2m1:
            return formats::kE2m1Values;
        case formats::Codes::kE2m3:
            return formats::kE2m3Values;
        case formats::Codes::kE4m3:
            return formats::kE4m3Values;
    }
    return nullptr;
}

static inline float group_scale(const formats::Format& format, const Walk& walk, uint32_t row) {
    if (!format.e8m0) return half_to_float(walk.scales[row]);
    uint32_t byte = metadata_byte(walk.scales, row, walk.second);
    byte = byte < kLeastScale ? kLeastScale : byte;
    return float_of((byte > kLargestScale ? kLargestScale : byte) << 23);
}

static void wide_channel(const TileJob& job, uint32_t channel) {
    const formats::Format& format = *job.format;
    const int32_t* const values = values_of(format.codes);
    const float unit_value = power_of_two(format.unit_exponent);
    Walk walk(spans_of(format), job.rows, job.stream + channel * job.pitch);
    for (uint32_t kb = 0; kb < job.k_blocks; ++kb) {
        walk.next(kb);
        for (uint32_t j = 0; j < job.rows; ++j) {
            int32_t w[kBlock];
            for (uint32_t k = 0; k < kBlock; ++k)
                w[k] = values[code_at(format.bits, walk.unit, job.rows, j, k)];
            // Values are those of half of the range as zero point.
            const int32_t moved =
                walk.zeros == nullptr
                    ? 0
                    : values[0] + static_cast<int32_t>(metadata_byte(walk.zeros, j, walk.second));
            const float scale = group_scale(format, walk, j);
            for (uint32_t t = 0; t < job.tokens; ++t) {
                const WideBlock& a = job.wide[static_cast<size_t>(kb) * job.tokens + t];
                int64_t dot = -int64_t{moved} * a.sum;
                for (uint32_t k = 0; k < kBlock; ++k) {
                    const uint32_t place = (k & ~3u) | (k & 1) << 1 | (k >> 1 & 1);  // 0, 2, 1, 3
                    dot += int64_t{w[k]} * a.mantissa[place];
                }
                job.acc[(static_cast<size_t>(t) * job.channels + channel) * job.rows + j] +=
                    static_cast<float>(dot) * scale * (a.scale * unit_value);
            }
        }
    }
}

static void wide_plain(const TileJob& job) {
    for (uint32_t channel = 0; channel < job.channels; ++channel) wide_channel(job, channel);
}

// Rows of a cache unit as mantissas and scales; columns from `columns` on count as zero.
static void load_unit(const CacheUnit& unit, uint32_t columns, int16_t (*rows)[kBlock], float* scale) {
    if (unit.exponents != nullptr) return stored_unit(unit, rows, scale);
    MantissaBlock block;
    float x[kBlock];
    for (uint32_t t = 0; t < kBlock; ++t) {
        load_block(half_rows(unit) + t * kBlock, columns, 0, x);
        quantize_block(x, 12, -24, block);
        std::memcpy(rows[t], block.mantissa, sizeof block.mantissa);
        scale[t] = block.scale;
    }
}

static void scores_plain(const ScoresJob& job) {
    const uint32_t blocks = (job.dim + kBlock - 1) / kBlock;
    int16_t keys[kBlock][kBlock];
    float scale[kBlock];
    for (uint32_t c = 0; c < blocks; ++c) {
        const uint32_t columns = job.dim - c * kBlock < kBlock ? job.dim - c * kBlock : kBlock;
        load_unit(unit_of(job.keys, c), columns, keys, scale);
        for (uint32_t r = 0; r < job.queries; ++r) {
            const MantissaBlock& q = job.query[static_cast<size_t>(r) * blocks + c];
            for (uint32_t t = 0; t < kBlock; ++t) {
                int32_t dot = 0;
                for (uint32_t i = 0; i < kBlock; ++i) dot += q.mantissa[i] * keys[t][i];
                job.acc[r * kBlock + t] += static_cast<float>(dot) * (q.scale * scale[t]);
            }
        }
    }
}

static void values_plain(const ValuesJob& job) {
    MantissaBlock p;
    int16_t v[kBlock][kBlock];
    float x[kBlock], scale[kBlock];
    load_unit(job.values, job.columns, v, scale);
    for (uint32_t r = 0; r < job.queries; ++r) {
        for (uint32_t t = 0; t < kBlock; ++t) x[t] = half_to_float(job.weights[r * kBlock + t]) * scale[t];
        quantize_block(x, job.act_bits, 0, p);
        int32_t dot[kBlock] = {};
        for (uint32_t t = 0; t < kBlock; ++t) {
            for (uint32_t j = 0; j < kBlock; ++j) dot[j] += p.mantissa[t] * v[t][j];
        }
        for (uint32_t j = 0; j < kBlock; ++j) job.acc[r * kBlock + j] += static_cast<float>(dot[j]) * p.scale;
    }
}

}  // namespace dlavm::sim
