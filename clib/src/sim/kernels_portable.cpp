#include "sim/kernels_matrix.h"

namespace dlavm::sim {

const Kernels kPortableKernels = {
    "portable", to_float_plain, quantize_act_plain, quantize_wide_plain, quantize_plain,
    int4_plain, wide_plain,     scores_plain,       values_plain,        epilogue_plain,
    norm_plain, softmax_plain,  rope_plain,         act_plain,           add_plain,
    mul_plain,  scale_plain,    argmax_plain,       topk_plain,
};

}  // namespace dlavm::sim
