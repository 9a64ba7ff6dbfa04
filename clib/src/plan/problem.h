// The planning problem in the form that the solvers work on.
#pragma once

#include <cstdint>
#include <vector>

#include "dlavm/plan.h"

namespace dlavm::plan {

// Buffers that are connected by living at the same time, in order of their first section.
//
// Time is cut into sections, one for each set of live buffers that is no part of another such set: two
// buffers collide exactly if they share a section. Space is counted in `unit` bytes, the common divisor of
// all sizes rounded up to the alignment: a plan in which every buffer rests on another one or on address 0
// has no other offsets.
struct Problem {
    int sections = 0;
    int64_t unit = 1;
    std::vector<uint32_t> input;   // place in the caller's arrays
    std::vector<int> first, last;  // sections first <= s < last
    std::vector<int64_t> size;     // units
    std::vector<int64_t> padding;  // bytes of `size` that the buffer does not need when nothing lies above it
    std::vector<int64_t> load;     // of each section: units that are live
    int64_t lower_bound = 0;       // bytes

    int count() const { return static_cast<int>(input.size()); }
    bool collide(int a, int b) const { return first[a] < last[b] && first[b] < last[a]; }
    // Bytes that a plan needs.
    int64_t peak(const std::vector<int64_t>& offsets) const;
    // The smallest number of bytes above `bytes` that can be the peak of a plan.
    int64_t next_peak(int64_t bytes) const;
    // One above the last unit that each buffer may use within so many bytes.
    std::vector<int64_t> ends(int64_t bytes) const;
};

// The independent parts of a problem; buffers of size 0 are in none. Throws abi::Misuse.
std::vector<Problem> parts(const dlavm_plan_problem& problem);

}  // namespace dlavm::plan
