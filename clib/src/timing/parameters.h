// The fields of a timing by name.
#pragma once

#include <string>

#include "dlavm/memory_timing.h"

namespace dlavm::timing {

// Changes fields: `text` is "name=value name=value ..". Returns what is wrong, or "".
std::string change(dlavm_memory_timing& timing, const std::string& text);

}  // namespace dlavm::timing
