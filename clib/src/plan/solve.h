// Planning as a whole: the parts of a problem, greedy orders, then the exact search within its limits.
#pragma once

#include "dlavm/plan.h"

namespace dlavm::plan {

// As dlavm_plan() of plan.h. Throws abi::Misuse and what the standard library throws without memory or
// threads.
dlavm_plan_result solve(const dlavm_plan_problem& problem, const dlavm_plan_options& options,
                        uint64_t* offsets);

}  // namespace dlavm::plan
