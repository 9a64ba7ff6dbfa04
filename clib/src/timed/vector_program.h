// vector_pkg.sv and dlavm_vector_pkg.sv: what the time of the vector engine depends on of its steps and row
// programs.
#pragma once

#include "dlavm_vector.h"

namespace dlavm::timed::vector {

using namespace dlavm::vector;

constexpr uint32_t kVirtual = 128;  // virtual lanes of a reduction
constexpr uint32_t kStrip = 16;     // chunks of a strip
constexpr uint32_t kGroup = 8;      // rows of a group at most
// Cycles from the issue of a step to the first issue that may use its result: of a temporary or scalar, of an
// output.
constexpr uint32_t kLatency = 8, kOutLatency = 11;
constexpr uint32_t kSumLatency = 4;  // to the next addition to the same accumulator
// Stages of the lanes in which a word and a chunk leave.
constexpr uint32_t kWordStage = 7, kOutStage = 10;

}  // namespace dlavm::timed::vector
