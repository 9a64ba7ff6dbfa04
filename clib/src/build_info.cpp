#include "dlavm/build_info.h"

#ifdef NDEBUG
#define DLAVM_ASSERTS "asserts off"
#else
#define DLAVM_ASSERTS "asserts on"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define DLAVM_SANITIZERS ", address sanitizer"
#else
#define DLAVM_SANITIZERS ""
#endif

#if DLAVM_X86_SIMD
#define DLAVM_SIMD "x86 SIMD"
#else
#define DLAVM_SIMD "portable"
#endif

const char* dlavm_build_info(void) {
    return "compiler " __VERSION__ ", " DLAVM_SIMD ", " DLAVM_ASSERTS DLAVM_SANITIZERS;
}
