#include "abi/misuse.h"

#include <cstdarg>
#include <cstdio>
#include <system_error>

namespace dlavm::abi {

std::string format(const char* pattern, ...) {
    char text[512];
    va_list args;
    va_start(args, pattern);
    std::vsnprintf(text, sizeof text, pattern, args);
    va_end(args);
    return text;
}

// Not strerror, which need not be safe in several threads.
std::string system_text(int error) { return std::generic_category().message(error); }

}  // namespace dlavm::abi
