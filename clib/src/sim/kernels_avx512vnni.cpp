#include "sim/kernels_avx512.h"

namespace dlavm::sim {

const Kernels kAvx512VnniKernels = avx512_kernels<Avx512Vnni>("avx512vnni");

}  // namespace dlavm::sim
