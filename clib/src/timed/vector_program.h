// vector_pkg.sv: what the time of the vector engine depends on of its steps and row programs.
#pragma once

#include <cstdint>

namespace dlavm::timed::vector {

constexpr uint32_t kVirtual = 128;  // virtual lanes of a reduction
constexpr uint32_t kStrip = 16;     // chunks of a strip
// Cycles from the issue of a step to the first issue that may use its result: of a temporary or scalar, of an
// output.
constexpr uint32_t kLatency = 8, kOutLatency = 11;
// Stages of the lanes in which a word and a chunk leave.
constexpr uint32_t kWordStage = 7, kOutStage = 10;

struct Step {
    bool accumulates;  // ACC of this step's slot is an operand and the result
    bool reads_sent;   // the strip as it was last rounded and sent off
    enum To : uint8_t { kElsewhere, kOut, kWord } to;
    bool last;
};

const Step& microcode(uint32_t at);

enum class Kind : uint8_t { kPass, kTreeAdd, kTreeMax, kOnce, kLoop, kDone };
enum class Range : uint8_t { kRow, kHalf, kRot, kTail, kFront, kSeen, kBack };
enum class Store : uint8_t { kNothing, kElements, kBoth, kFirst, kSecond };

struct Phase {
    Kind kind;
    uint8_t program = 41;
    Range range = Range::kRow;
    uint8_t loads = 0;  // streams
    Store store = Store::kNothing;
    bool drain = false;
    uint8_t back = 0;
};

const Phase& phase(uint32_t at);

// First phases of the row programs.
enum Row : uint8_t {
    kRms = 0,
    kRmsBeta = 5,
    kLayer = 10,
    kLayerBeta = 18,
    kSoftmax = 26,
    kSoftmaxSlope = 35,
    kHalves = 45,
    kPairs = 48,
    kAct = 51,
    kAdd = 53,
    kMul = 55,
    kScale = 57,
    kArgmax = 59,
    kTopk = 66,
    kTopkShare = 79,
    kPermute = 90,
};

}  // namespace dlavm::timed::vector
