// A call that is wrong in itself, as the C interface reports it; any engine throws it.
#pragma once

#include <string>

#include "dlavm/device.h"

namespace dlavm::abi {

struct Misuse {
    dlavm_status status;
    std::string text;
};

// printf into a string.
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

// The message of an errno.
std::string system_text(int error);

}  // namespace dlavm::abi
