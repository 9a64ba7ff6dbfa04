#include "sim/kernels.h"

#include <cstring>

namespace dlavm::sim {

const Kernels* find_kernels(const char* name) {
#if DLAVM_X86_SIMD
    const bool any = std::strcmp(name, "auto") == 0;
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
    if (avx512 && (any || std::strcmp(name, "avx512") == 0)) return &kAvx512Kernels;
    if (avx2 && (any || std::strcmp(name, "avx2") == 0)) return &kAvx2Kernels;
    if (any) return &kPortableKernels;
#else
    if (std::strcmp(name, "auto") == 0) return &kPortableKernels;
#endif
    return std::strcmp(name, "portable") == 0 ? &kPortableKernels : nullptr;
}

}  // namespace dlavm::sim
