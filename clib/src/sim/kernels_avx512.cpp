#include "sim/kernels_avx512.h"

namespace dlavm::sim {

const Kernels kAvx512Kernels = avx512_kernels<Avx512>("avx512");

}  // namespace dlavm::sim
