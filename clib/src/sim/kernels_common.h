// Plain loops of the vector engine. Each kernels_*.cpp includes this once and its compiler flags make the
// loops scalar, AVX2 or AVX-512 code; hence all is static, and nothing of the standard library is used that
// the linker could share.
#pragma once

#include "sim/kernels.h"

namespace dlavm::sim {

static void to_float_plain(const uint16_t* in, float* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = half_to_float(in[i]);
}

// Into the order of WideBlock, with the sum.
static inline void interleave(WideBlock& b) {
    b.sum = 0;
    for (uint32_t i = 0; i < kBlock; i += 4) {
        const int16_t second = b.mantissa[i + 1];
        b.mantissa[i + 1] = b.mantissa[i + 2];
        b.mantissa[i + 2] = second;
        for (uint32_t j = 0; j < 4; ++j) b.sum += b.mantissa[i + j];
    }
}

static inline CacheUnit unit_of(const CacheUnit& first, size_t number) {
    if (first.exponents == nullptr) return {first.rows + number * (2 * kBlock * kBlock), nullptr};
    return {first.rows + number * (kBlock * kBlock), first.exponents + number * kBlock};
}

static inline const uint16_t* half_rows(const CacheUnit& unit) {
    return reinterpret_cast<const uint16_t*>(unit.rows);
}

// The mantissas and scales that a unit of an MXINT8 cache holds.
static void stored_unit(const CacheUnit& unit, int16_t (*__restrict rows)[kBlock], float* __restrict scale) {
    const int8_t* mantissas = reinterpret_cast<const int8_t*>(unit.rows);
    for (uint32_t t = 0; t < kBlock; ++t) {
        for (uint32_t i = 0; i < kBlock; ++i) rows[t][i] = mantissas[t * kBlock + i];
        scale[t] = stored_scale(unit.exponents[t]);
    }
}

static inline float activation(const Segment* __restrict table, uint16_t half) {
    const int32_t i = half >> 5, f = half & 31;
    return add(table[i].base, mul(table[i].slope, static_cast<float>(f)));
}

static void epilogue_plain(const Epilogue& e, float* __restrict y, uint16_t* out, size_t n) {
    if (e.scale != nullptr) {
        const float factor = *e.scale;
        for (size_t i = 0; i < n; ++i) y[i] = mul(y[i], factor);
    }
    if (e.row_scale != nullptr) {
        const float factor = *e.row_scale;
        for (size_t i = 0; i < n; ++i) y[i] = mul(y[i], factor);
    }
    if (e.bias != nullptr) {
        for (size_t i = 0; i < n; ++i) y[i] = add(y[i], half_to_float(e.bias[i]));
    }
    if (e.act != nullptr) {
        for (size_t i = 0; i < n; ++i) y[i] = activation(e.act, float_to_half(y[i]));
    }
    if (e.aux != nullptr && e.aux_multiplies) {
        for (size_t i = 0; i < n; ++i) y[i] = mul(y[i], half_to_float(e.aux[i]));
    } else if (e.aux != nullptr) {
        for (size_t i = 0; i < n; ++i) y[i] = add(y[i], half_to_float(e.aux[i]));
    }
    for (size_t i = 0; i < n; ++i) out[i] = float_to_half(y[i]);
}

// Sum over the virtual lanes of section 4.
static float lane_sum(const float* x, size_t n) {
    float lane[kLanes] = {};
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (uint32_t l = 0; l < kLanes; ++l) lane[l] = add(lane[l], x[i + l]);
    }
    for (uint32_t l = 0; i + l < n; ++l) lane[l] = add(lane[l], x[i + l]);
    for (uint32_t s = kLanes / 2; s > 0; s /= 2) {
        for (uint32_t l = 0; l < s; ++l) lane[l] = add(lane[l], lane[l + s]);
    }
    return lane[0];
}

static void norm_plain(const NormJob& job, const uint16_t* in, uint16_t* out) {
    float* x = job.scratch;
    float* square = job.scratch + job.dim;
    for (uint32_t i = 0; i < job.dim; ++i) x[i] = half_to_float(in[i]);
    if (job.layer) {
        const float mean = mul(lane_sum(x, job.dim), job.inv_n);
        for (uint32_t i = 0; i < job.dim; ++i) x[i] = sub(x[i], mean);
    }
    for (uint32_t i = 0; i < job.dim; ++i) square[i] = mul(x[i], x[i]);
    const float r = table_rsqrt(add(mul(lane_sum(square, job.dim), job.inv_n), job.eps));
    for (uint32_t i = 0; i < job.dim; ++i) x[i] = mul(mul(x[i], r), half_to_float(job.gamma[i]));
    if (job.beta != nullptr) {
        for (uint32_t i = 0; i < job.dim; ++i) x[i] = add(x[i], half_to_float(job.beta[i]));
    }
    for (uint32_t i = 0; i < job.dim; ++i) out[i] = float_to_half(x[i]);
}

// A number that orders fp16 values as integers; both zeros are 0.
static inline int32_t order_of(uint16_t half) {
    int32_t magnitude = half & 0x7fff;
    magnitude = magnitude > 0x7bff ? 0x7bff : magnitude;
    return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

static int32_t largest_order(const uint16_t* in, size_t n) {
    int32_t largest = -0x7bff;
    for (size_t i = 0; i < n; ++i) {
        const int32_t order = order_of(in[i]);
        largest = order > largest ? order : largest;
    }
    return largest;
}

static float largest_half(const uint16_t* in, size_t n) {
    const int32_t largest = largest_order(in, n);
    const uint32_t half =
        largest < 0 ? 0x8000u | static_cast<uint32_t>(-largest) : static_cast<uint32_t>(largest);
    return half_to_float(static_cast<uint16_t>(half));
}

// Scores with slope * distance added; returns the largest.
static float slanted(const uint16_t* __restrict in, float* __restrict x, size_t n, float slope) {
    const int32_t last = static_cast<int32_t>(n) - 1;
    for (int32_t i = 0; i <= last; ++i) {
        x[i] = add(half_to_float(in[i]), mul(slope, static_cast<float>(i - last)));
    }
    float largest = x[0];
    for (size_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static float softmax_plain(const SoftmaxJob& job, const uint16_t* __restrict in, uint16_t* __restrict out) {
    const size_t n = job.n;
    float* __restrict x = job.scratch + job.lead;
    if (job.slope != nullptr) {
        const float top = slanted(in, x, n, *job.slope);
        for (size_t i = 0; i < n; ++i) x[i] = sub(x[i], top);
    } else {
        const float top = largest_half(in, n);
        for (size_t i = 0; i < n; ++i) x[i] = half_to_float(in[i]) - top;
    }
    for (size_t i = 0; i < n; ++i) x[i] = table_exp(x[i]);
    for (size_t i = 0; i < n; ++i) out[i] = float_to_half(x[i]);
    for (size_t i = 0; i < n; ++i) x[i] = half_to_float(out[i]);
    for (size_t i = 0; i < job.lead; ++i) job.scratch[i] = 0.0f;
    return table_reciprocal(lane_sum(job.scratch, job.lead + n));
}

// Pairs of elements `step` apart from pair to pair and `apart` from each other; constants to the compiler in
// one form.
static inline void rope_pairs(const RopeJob& job, const uint16_t* __restrict in, uint16_t* __restrict out,
                              uint32_t step, uint32_t apart) {
    const float* __restrict cosine = job.cosine;
    const float* __restrict sine = job.sine;
    const uint32_t pairs = job.rot / 2;
    for (uint32_t j = 0; j < pairs; ++j) {
        const float a = half_to_float(in[j * step]), b = half_to_float(in[j * step + apart]);
        out[j * step] = float_to_half(sub(mul(a, cosine[j]), mul(b, sine[j])));
        out[j * step + apart] = float_to_half(add(mul(b, cosine[j]), mul(a, sine[j])));
    }
}

static void rope_plain(const RopeJob& job, const uint16_t* in, uint16_t* out) {
    if (job.interleaved) {
        rope_pairs(job, in, out, 2, 1);
    } else {
        rope_pairs(job, in, out, 1, job.rot / 2);
    }
    for (uint32_t j = job.rot; j < job.dim; ++j) out[j] = in[j];
}

static void act_plain(const Segment* table, const uint16_t* __restrict in, uint16_t* __restrict out,
                      size_t n) {
    for (size_t i = 0; i < n; ++i) {
        const uint16_t half = float_to_half(half_to_float(in[i]));  // exponent 31 becomes +-65504
        out[i] = float_to_half(activation(table, half));
    }
}

static void add_plain(const uint16_t* a, const uint16_t* b, uint16_t* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = float_to_half(half_to_float(a[i]) + half_to_float(b[i]));
}

static void mul_plain(const uint16_t* a, const uint16_t* b, uint16_t* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = float_to_half(half_to_float(a[i]) * half_to_float(b[i]));
}

static void scale_plain(const uint16_t* a, float factor, uint16_t* out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = float_to_half(mul(half_to_float(a[i]), factor));
}

static uint32_t argmax_plain(const uint16_t* in, size_t n) {
    const int32_t largest = largest_order(in, n);
    size_t i = 0;
    while (order_of(in[i]) != largest) ++i;
    return static_cast<uint32_t>(i);
}

// The elements with the largest numbers, the lowest index first of equal ones: each is the first one behind
// its predecessor in that order.
static void choose_largest(const uint16_t* in, uint32_t n, uint32_t k, uint32_t* ids) {
    int32_t last = 0x8000;
    uint32_t place = 0;
    for (uint32_t rank = 0; rank < k; ++rank) {
        int32_t best = -0x8000;
        uint32_t best_at = 0;
        for (uint32_t i = 0; i < n; ++i) {
            const int32_t order = order_of(in[i]);
            const bool behind = order < last || (order == last && i > place);
            if (behind && order > best) {
                best = order;
                best_at = i;
            }
        }
        ids[rank] = best_at;
        last = best;
        place = best_at;
    }
}

static void topk_plain(const TopkJob& job, const uint16_t* in, uint32_t* ids, float* weights) {
    choose_largest(in, job.n, job.k, ids);
    const float top = half_to_float(in[ids[0]]);
    for (uint32_t i = 0; i < job.n; ++i) job.scratch[i] = table_exp(half_to_float(in[i]) - top);
    float sum = 0.0f;
    for (uint32_t j = 0; j < job.k; ++j) sum = add(sum, job.scratch[ids[j]]);
    const float recip = table_reciprocal(job.renormalize ? sum : lane_sum(job.scratch, job.n));
    for (uint32_t j = 0; j < job.k; ++j) weights[j] = mul(job.scratch[ids[j]], recip);
}

}  // namespace dlavm::sim
