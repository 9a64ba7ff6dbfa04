// Plain loops of the matrix engine; see kernels_common.h.
#pragma once

#include "sim/kernels_common.h"

namespace dlavm::sim {

static void int4_plain(const Int4Job& job) {
    const uint32_t rows = job.rows;
    const uint8_t* stream = job.stream;
    const uint16_t* scales = nullptr;
    for (uint32_t kb = 0; kb < job.k_blocks; ++kb) {
        if (kb % (kGroup / kBlock) == 0) {
            scales = reinterpret_cast<const uint16_t*>(stream);
            stream += 2 * rows;
        }
        for (uint32_t t = 0; t < job.tokens; ++t) {
            const ActBlock& a = job.acts[static_cast<size_t>(kb) * job.tokens + t];
            float* acc = job.acc + static_cast<size_t>(t) * rows;
            for (uint32_t j = 0; j < rows; ++j) {
                int32_t high = 0, low = 0;
                for (uint32_t p = 0; p < 4; ++p) {
                    const uint8_t* w = stream + (p * rows + j) * 4;
                    for (uint32_t i = 0; i < 4; ++i) {
                        const int32_t w0 = w[i] & 15, w1 = w[i] >> 4;
                        high += w0 * a.high[8 * p + i] + w1 * a.high[8 * p + 4 + i];
                        low += w0 * a.low[8 * p + i] + w1 * a.low[8 * p + 4 + i];
                    }
                }
                const float dot = static_cast<float>(16 * high + low - a.eight_sums);
                acc[j] += dot * half_to_float(scales[j]) * a.scale;
            }
        }
        stream += 16 * rows;
    }
}

static void scores_plain(const ScoresJob& job) {
    const uint32_t blocks = (job.dim + kBlock - 1) / kBlock;
    MantissaBlock keys[kBlock];
    float x[kBlock];
    for (uint32_t c = 0; c < blocks; ++c) {
        const uint32_t columns = job.dim - c * kBlock < kBlock ? job.dim - c * kBlock : kBlock;
        for (uint32_t t = 0; t < kBlock; ++t) {
            load_block(job.keys + (c * kBlock + t) * kBlock, columns, 0, x);
            quantize_block(x, 12, -24, keys[t]);
        }
        for (uint32_t r = 0; r < job.queries; ++r) {
            const MantissaBlock& q = job.query[static_cast<size_t>(r) * blocks + c];
            for (uint32_t t = 0; t < kBlock; ++t) {
                int32_t dot = 0;
                for (uint32_t i = 0; i < kBlock; ++i) dot += q.mantissa[i] * keys[t].mantissa[i];
                job.acc[r * kBlock + t] += static_cast<float>(dot) * (q.scale * keys[t].scale);
            }
        }
    }
}

static void values_plain(const ValuesJob& job) {
    MantissaBlock v[kBlock], p;
    float x[kBlock];
    for (uint32_t t = 0; t < kBlock; ++t) {
        load_block(job.values + t * kBlock, job.columns, 0, x);
        quantize_block(x, 12, -24, v[t]);
    }
    for (uint32_t r = 0; r < job.queries; ++r) {
        for (uint32_t t = 0; t < kBlock; ++t) x[t] = half_to_float(job.weights[r * kBlock + t]) * v[t].scale;
        quantize_block(x, job.act_bits, 0, p);
        int32_t dot[kBlock] = {};
        for (uint32_t t = 0; t < kBlock; ++t) {
            for (uint32_t j = 0; j < kBlock; ++j) dot[j] += p.mantissa[t] * v[t].mantissa[j];
        }
        for (uint32_t j = 0; j < kBlock; ++j) job.acc[r * kBlock + j] += static_cast<float>(dot[j]) * p.scale;
    }
}

}  // namespace dlavm::sim
