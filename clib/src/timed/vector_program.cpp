#include "timed/vector_program.h"

namespace dlavm::timed::vector {

namespace {

// By name, as in the RTL.
constexpr Step kTemporary{false, false, Step::kElsewhere, false},
    kTemporaryEnd{false, false, Step::kElsewhere, true};
constexpr Step kSumEnd{true, false, Step::kElsewhere, true}, kSumSentEnd{true, true, Step::kElsewhere, true};
constexpr Step kOut{false, false, Step::kOut, false}, kOutEnd{false, false, Step::kOut, true};
constexpr Step kWord{false, false, Step::kWord, false}, kWordEnd{false, false, Step::kWord, true};

constexpr Step kSteps[] = {
    kTemporary,    kSumEnd,                                             // P_SQUARES
    kSumEnd,                                                            // P_SUM
    kTemporary,    kTemporary,    kSumEnd,                              // P_DEVIATIONS
    kTemporaryEnd,                                                      // P_MEAN
    kTemporary,    kTemporary,    kTemporaryEnd,                        // P_RSQRT
    kTemporary,    kOutEnd,                                             // P_RMS
    kTemporary,    kTemporary,    kOutEnd,                              // P_RMS_BETA
    kTemporary,    kTemporary,    kOutEnd,                              // P_LAYER
    kTemporary,    kTemporary,    kTemporary,    kOutEnd,               // P_LAYER_BETA
    kSumEnd,                                                            // P_MAX
    kTemporary,    kTemporary,    kTemporary,    kTemporary,  kSumEnd,  // P_MAX_SLOPE
    kTemporaryEnd,                                                      // P_KEEP
    kTemporary,    kTemporary,    kOut,          kSumSentEnd,           // P_EXP
    kTemporary,    kTemporary,    kTemporary,    kTemporary,  kTemporary, kTemporary,
    kOut,          kSumSentEnd,                                                           // P_EXP_SLOPE
    kOutEnd,                                                                              // P_ZERO
    kWordEnd,                                                                             // P_RECIP
    kTemporaryEnd,                                                                        // P_SLOPE
    kTemporary,    kTemporary,    kOut,          kTemporary,  kTemporary, kOutEnd,        // P_HALVES
    kTemporary,    kTemporary,    kOutEnd,                                                // P_PAIRS
    kOutEnd,                                                                              // P_COPY
    kTemporary,    kOutEnd,                                                               // P_ACT
    kOutEnd,                                                                              // P_ADD
    kOutEnd,                                                                              // P_MUL
    kOutEnd,                                                                              // P_SCALE
    kTemporaryEnd,                                                                        // P_FIND
    kWordEnd,                                                                             // P_INDEX
    kTemporaryEnd,                                                                        // P_INIT
    kTemporary,    kSumEnd,                                                               // P_SELECT
    kTemporary,    kTemporaryEnd,                                                         // P_KEEP_FIRST
    kWord,         kTemporary,    kTemporary,    kTemporary,  kTemporary, kTemporaryEnd,  // P_RANK
    kTemporary,    kTemporary,    kTemporary,    kSumEnd,                                 // P_POWERS
    kTemporaryEnd,                                                                        // P_SHARE
    kTemporaryEnd,                                                                        // P_TOTAL
    kWordEnd,                                                                             // P_WEIGHT
};

constexpr Phase kPhases[] = {
    // R_RMS
    {Kind::kPass, 0, Range::kRow, 1, Store::kNothing},
    {Kind::kTreeAdd},
    {Kind::kOnce, 7},
    {Kind::kPass, 10, Range::kRow, 3, Store::kElements, true},
    {Kind::kDone},
    // R_RMS_BETA
    {Kind::kPass, 0, Range::kRow, 1, Store::kNothing},
    {Kind::kTreeAdd},
    {Kind::kOnce, 7},
    {Kind::kPass, 12, Range::kRow, 7, Store::kElements, true},
    {Kind::kDone},
    // R_LAYER
    {Kind::kPass, 2, Range::kRow, 1, Store::kNothing},
    {Kind::kTreeAdd},
    {Kind::kOnce, 6},
    {Kind::kPass, 3, Range::kRow, 1, Store::kNothing, true},
    {Kind::kTreeAdd},
    {Kind::kOnce, 7},
    {Kind::kPass, 15, Range::kRow, 3, Store::kElements, true},
    {Kind::kDone},
    // R_LAYER_BETA
    {Kind::kPass, 2, Range::kRow, 1, Store::kNothing},
    {Kind::kTreeAdd},
    {Kind::kOnce, 6},
    {Kind::kPass, 3, Range::kRow, 1, Store::kNothing, true},
    {Kind::kTreeAdd},
    {Kind::kOnce, 7},
    {Kind::kPass, 18, Range::kRow, 7, Store::kElements, true},
    {Kind::kDone},
    // R_SOFTMAX
    {Kind::kPass, 22, Range::kSeen, 1, Store::kNothing},
    {Kind::kTreeMax},
    {Kind::kOnce, 28},
    {Kind::kPass, 41, Range::kFront, 0, Store::kElements},
    {Kind::kPass, 29, Range::kSeen, 1, Store::kElements, true},
    {Kind::kPass, 41, Range::kBack, 0, Store::kElements},
    {Kind::kTreeAdd},
    {Kind::kOnce, 42, Range::kRow, 0, Store::kFirst},
    {Kind::kDone},
    // R_SOFTMAX_SLOPE
    {Kind::kOnce, 43, Range::kRow, 8, Store::kNothing},
    {Kind::kPass, 23, Range::kSeen, 1, Store::kNothing, true},
    {Kind::kTreeMax},
    {Kind::kOnce, 28},
    {Kind::kPass, 41, Range::kFront, 0, Store::kElements},
    {Kind::kPass, 33, Range::kSeen, 1, Store::kElements, true},
    {Kind::kPass, 41, Range::kBack, 0, Store::kElements},
    {Kind::kTreeAdd},
    {Kind::kOnce, 42, Range::kRow, 0, Store::kFirst},
    {Kind::kDone},
    // R_HALVES
    {Kind::kPass, 44, Range::kHalf, 15, Store::kBoth},
    {Kind::kPass, 53, Range::kTail, 1, Store::kElements},
    {Kind::kDone},
    // R_PAIRS
    {Kind::kPass, 50, Range::kRot, 13, Store::kElements},
    {Kind::kPass, 53, Range::kTail, 1, Store::kElements},
    {Kind::kDone},
    // R_ACT
    {Kind::kPass, 54, Range::kRow, 1, Store::kElements},
    {Kind::kDone},
    // R_ADD
    {Kind::kPass, 56, Range::kRow, 3, Store::kElements},
    {Kind::kDone},
    // R_MUL
    {Kind::kPass, 57, Range::kRow, 3, Store::kElements},
    {Kind::kDone},
    // R_SCALE
    {Kind::kPass, 58, Range::kRow, 1, Store::kElements},
    {Kind::kDone},
    // R_ARGMAX
    {Kind::kOnce, 61},
    {Kind::kPass, 22, Range::kRow, 1, Store::kNothing},
    {Kind::kTreeMax},
    {Kind::kOnce, 28},
    {Kind::kPass, 59, Range::kRow, 1, Store::kNothing, true},
    {Kind::kOnce, 60, Range::kRow, 0, Store::kFirst},
    {Kind::kDone},
    // R_TOPK
    {Kind::kOnce, 61},
    {Kind::kPass, 62, Range::kRow, 1, Store::kNothing, true},
    {Kind::kTreeMax},
    {Kind::kOnce, 64},
    {Kind::kPass, 59, Range::kRow, 1, Store::kNothing, true},
    {Kind::kOnce, 66, Range::kRow, 0, Store::kFirst},
    {Kind::kLoop, 41, Range::kRow, 0, Store::kNothing, false, 5},
    {Kind::kPass, 72, Range::kRow, 1, Store::kNothing, true},
    {Kind::kTreeAdd},
    {Kind::kOnce, 77},
    {Kind::kOnce, 78, Range::kRow, 0, Store::kSecond},
    {Kind::kLoop, 41, Range::kRow, 0, Store::kNothing, false, 1},
    {Kind::kDone},
    // R_TOPK_SHARE
    {Kind::kOnce, 61},
    {Kind::kPass, 62, Range::kRow, 1, Store::kNothing, true},
    {Kind::kTreeMax},
    {Kind::kOnce, 64},
    {Kind::kPass, 59, Range::kRow, 1, Store::kNothing, true},
    {Kind::kOnce, 66, Range::kRow, 0, Store::kFirst},
    {Kind::kLoop, 41, Range::kRow, 0, Store::kNothing, false, 5},
    {Kind::kOnce, 76},
    {Kind::kOnce, 78, Range::kRow, 0, Store::kSecond},
    {Kind::kLoop, 41, Range::kRow, 0, Store::kNothing, false, 1},
    {Kind::kDone},
    // R_PERMUTE
    {Kind::kPass, 41, Range::kRow, 0, Store::kElements},
    {Kind::kDone},
};

}  // namespace

const Step& microcode(uint32_t at) { return kSteps[at]; }
const Phase& phase(uint32_t at) { return kPhases[at]; }

}  // namespace dlavm::timed::vector
