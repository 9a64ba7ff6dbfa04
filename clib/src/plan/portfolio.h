// Several strategies take turns at the same question, two at a time.
#pragma once

#include <vector>

#include "plan/problem.h"
#include "plan/search.h"

namespace dlavm::plan {

struct Answer {
    Search::Outcome outcome = Search::kStopped;
    std::vector<int64_t> offsets;  // units, where one was found
    uint64_t nodes = 0;
};

// Is there a plan within `bytes`? Looks at no more than about `nodes` states. Unless `stop` ends it, the
// answer is the same in every run and for any number of threads: it is that of the first turn, in a fixed
// order, that has one.
Answer ask(const Problem& problem, int64_t bytes, uint64_t nodes, const Stop& stop, unsigned threads);

}  // namespace dlavm::plan
