// How many registers there are on the ways through the matrix engine: fp_pkg.sv, and what the modules say of
// themselves.
#pragma once

#include <cstdint>

namespace dlavm::timed::latency {

// fp_pkg
constexpr uint64_t kAdd = 4, kMul = 5, kInt = 3, kLane = 4, kHalf = 2, kActivation = 1 + kMul + kAdd;

constexpr uint64_t kQuantizer = 7;            // quantizer.sv
constexpr uint64_t kActivationQuantizer = 9;  // activation_quantizer.sv

// matrix_control.sv: from a row's issue to its sum.
constexpr uint64_t kTerm = 2 + kInt + kMul, kSum = kTerm + kAdd;
// From the last step of a block (matrix_steps) to the release of its unit; from that of a half to the issue
// of its first row.
constexpr uint64_t kRelease = 1 + kLane, kFirstRow = 2 + kLane;

// activation_feed.sv: from the second issue of a pair to the cycle in which its operand enters the queue.
constexpr uint64_t kOperand = 1 + kActivationQuantizer;

// epilogue_results.sv: from a step to its sum. epilogue.sv: from a row's last line to the cycle in which its
// beat is counted.
constexpr uint64_t kResult = 2, kEpilogue = kResult + 3 * kMul + 2 * kAdd + 2 * kHalf + kActivation + 1;

// kv_unpack.sv: from a token's last beat to its mantissas; from the fourth token's to the last entry that
// leaves.
constexpr uint64_t kToken = 1 + kQuantizer, kStoredToken = 1, kTurn = 9;

}  // namespace dlavm::timed::latency
