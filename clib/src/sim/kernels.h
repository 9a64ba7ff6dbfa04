// The inner loops, once for each instruction set of the host. Every set gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dlavm_formats.h"
#include "sim/number.h"

namespace dlavm::sim {

constexpr int32_t kInt4Zero = 8;  // the code of the weight 0

// 32 activations for int4 weights: mantissa = 16 * high + low, value = mantissa * scale.
struct ActBlock {
    int8_t high[kBlock];
    int8_t low[kBlock];
    int32_t bias;  // -8 * sum of the mantissas: a stored weight is w + 8
    float scale;
};

// 32 mantissas with their power of two.
struct MantissaBlock {
    int16_t mantissa[kBlock];
    float scale;
    uint32_t padding[3];
};

// 32 mantissas for all other packed weights. Of four neighbours k the order is 0, 2, 1, 3: where the codes of
// four k fill the bytes of a word, the even ones and the odd ones widen to pairs of 16 bits without crossing
// lanes.
struct WideBlock {
    int16_t mantissa[kBlock];
    int32_t sum;
    float scale;
};

// One row of the activation table: act(x16) = base + slope * fraction.
struct Segment {
    float base, slope;
};
constexpr size_t kSegments = 2048;

// What some neighbouring channels have of one weight tile, for all token rows.
struct TileJob {
    const formats::Format* format;
    const uint8_t* stream;  // of the first channel
    size_t pitch;           // from the stream of a channel to that of the next
    uint32_t channels;
    uint32_t rows;      // of the tile in one channel: port bytes / 2
    uint32_t k_blocks;  // of 32
    uint32_t tokens;
    const ActBlock* acts;   // [k_blocks][tokens], of int4
    const WideBlock* wide;  // the same of the others
    float* acc;             // [tokens][channels * rows]
};

// 32 tokens of 32 columns of a cache, [32 tokens][32] fp16 or, where there are exponents of the tokens, int8.
struct CacheUnit {
    const uint8_t* rows;
    const uint8_t* exponents;
};

// Scores of one block of 32 tokens.
struct ScoresJob {
    CacheUnit keys;  // the first of [dim_blocks]
    uint32_t dim;
    uint32_t queries;
    const MantissaBlock* query;  // [queries][dim_blocks]
    float* acc;                  // [queries][32]
};

// One block of 32 tokens added to 32 columns of every row.
struct ValuesJob {
    CacheUnit values;
    uint32_t columns;  // of the 32; the rest count as zero
    uint32_t queries;
    const uint16_t* weights;  // [queries][32] fp16: P
    int act_bits;
    float* acc;  // [queries][32]
};

// Epilogue of some columns of one row; a null pointer leaves its step out.
struct Epilogue {
    const float* scale;
    const float* row_scale;
    const uint16_t* bias;
    const Segment* act;
    const uint16_t* aux;
    bool aux_multiplies;
};

struct NormJob {
    bool layer;
    uint32_t dim;
    const uint16_t* gamma;
    const uint16_t* beta;  // null: none
    float eps, inv_n;
    float* scratch;  // 2 * dim
};

struct SoftmaxJob {
    size_t n;            // scores, all of them visible
    size_t lead;         // elements of the sum in front of them
    const float* slope;  // null: none; the last score is at distance 0
    float* scratch;      // lead + n
};

struct TopkJob {
    bool renormalize;
    uint32_t n, k;
    float* scratch;  // n
};

struct RopeJob {
    bool interleaved;
    uint32_t dim, rot;
    const float* cosine;  // rot / 2
    const float* sine;
};

struct Kernels {
    const char* name;
    void (*to_float)(const uint16_t* in, float* out, size_t n);
    // Row of k numbers into blocks `stride` apart; the rest of the last block is zero.
    void (*quantize_act)(const uint16_t* in, size_t k, int bits, ActBlock* out, size_t stride);
    void (*quantize_wide)(const uint16_t* in, size_t k, int bits, WideBlock* out, size_t stride);
    void (*quantize)(const uint16_t* in, size_t k, int bits, MantissaBlock* out);
    void (*int4)(const TileJob& job);
    void (*wide)(const TileJob& job);
    void (*scores)(const ScoresJob& job);
    void (*values)(const ValuesJob& job);
    void (*epilogue)(const Epilogue& e, float* acc, uint16_t* out, size_t n);  // overwrites acc
    void (*norm)(const NormJob& job, const uint16_t* in, uint16_t* out);
    // P of the scores; returns the reciprocal of their sum.
    float (*softmax)(const SoftmaxJob& job, const uint16_t* in, uint16_t* out);
    void (*rope)(const RopeJob& job, const uint16_t* in, uint16_t* out);
    void (*act)(const Segment* table, const uint16_t* in, uint16_t* out, size_t n);
    void (*add)(const uint16_t* a, const uint16_t* b, uint16_t* out, size_t n);
    void (*mul)(const uint16_t* a, const uint16_t* b, uint16_t* out, size_t n);
    void (*scale)(const uint16_t* a, float factor, uint16_t* out, size_t n);
    uint32_t (*argmax)(const uint16_t* in, size_t n);
    void (*topk)(const TopkJob& job, const uint16_t* in, uint32_t* ids, float* weights);
};

extern const Kernels kPortableKernels;
#if DLAVM_X86_SIMD
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512VnniKernels;
#endif

// The kernels of that name, the fastest that this processor has for "auto"; null where it has none.
const Kernels* find_kernels(const char* name);

}  // namespace dlavm::sim
