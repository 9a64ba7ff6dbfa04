// The two ways a call can fail: the core stopped (an error of the instruction set), or the caller misused the
// interface.
#pragma once

#include <stdexcept>
#include <string>

#include "dlavm/device.h"
#include "dlavm_isa.h"

namespace dlavm::sim {

// Thrown by a command; the front end puts the command's name and word offset before the text.
struct Fault {
    isa::Error code;
    std::string text;
};

struct Misuse {
    dlavm_status status;
    std::string text;
};

// printf into a string.
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace dlavm::sim
