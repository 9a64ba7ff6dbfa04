#include "sim/kernels.h"

#include <cstring>

namespace dlavm::sim {

const Kernels* find_kernels(const char* name) {
    const bool any = std::strcmp(name, "auto") == 0;
    const auto chosen = [=](const Kernels& k, bool works) {
        return works && (any || std::strcmp(name, k.name) == 0);
    };
#if DLAVM_X86_SIMD
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    if (chosen(kAvx512VnniKernels, vnni)) return &kAvx512VnniKernels;
    if (chosen(kAvx512Kernels, avx512)) return &kAvx512Kernels;
    if (chosen(kAvx2Kernels, avx2)) return &kAvx2Kernels;
#endif
    return chosen(kPortableKernels, true) ? &kPortableKernels : nullptr;
}

}  // namespace dlavm::sim
