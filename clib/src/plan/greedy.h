// A good plan in little time: buffers placed one after the other, in a few orders.
#pragma once

#include <vector>

#include "plan/problem.h"
#include "plan/stop.h"

namespace dlavm::plan {

struct Placed {
    std::vector<int64_t> offsets;  // units
    int64_t peak = 0;              // bytes
};

// The best of some orders, improved in rounds. A peak of `enough` bytes is not improved any more; one plan is
// made whatever `stop` says.
Placed greedy(const Problem& problem, int64_t enough, const Stop& stop);

}  // namespace dlavm::plan
