// The two ways a call can fail: the core stopped (an error of the instruction set), or the caller misused the
// interface.
#pragma once

#include <stdexcept>
#include <string>

#include "abi/misuse.h"
#include "dlavm_isa.h"

namespace dlavm::sim {

// Thrown by a command; the front end puts the command's name and word offset before the text.
struct Fault {
    isa::Error code;
    std::string text;
};

using abi::format;
using abi::Misuse;
using abi::system_text;

}  // namespace dlavm::sim
