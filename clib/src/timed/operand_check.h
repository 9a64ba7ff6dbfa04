// operand_check.sv: how long it looks at a command.
#pragma once

#include "timed/command.h"

namespace dlavm::timed {

struct Checked {
    uint64_t cycles;  // from the first in which it is at work to the one in which the results are there
    bool nothing;     // the command has nothing to do
};

Checked check(const Command& command);

}  // namespace dlavm::timed
