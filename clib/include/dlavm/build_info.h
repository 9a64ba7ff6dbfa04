// How this library was built, for `dlavm doctor` and bug reports.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

// One line of text with static lifetime: compiler, optimisation, sanitizers.
const char* dlavm_build_info(void);

#ifdef __cplusplus
}
#endif
