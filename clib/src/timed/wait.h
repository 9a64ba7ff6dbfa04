// What a part of the core waits for in a cycle, for profiles: read off the registers of its state machines,
// never kept in them, so that nothing is spent where nobody asks. doc/profiling.md says what each one means.
#pragma once

#include <cstdint>

namespace dlavm::timed {

enum class Wait : uint8_t {
    // a queue, with no command of its engine running
    kNothing,    // it is empty
    kSemaphore,  // WAIT
    kHandOver,   // its first entry is being taken
    // an engine with a command
    kWork,    // it works
    kStream,  // the lanes work, and the next weights have not come yet
    kDecode,
    kWeights,  // of memory
    kCache,    // keys or values, of memory
    kTurn,     // keys or values are there and are being brought into order; the lanes have none but the last
    kActivations,  // of memory
    kOperands,     // a bias, a scale or what is added to the result, of memory
    kSource,       // rows, ids or a table, of memory
    kEpilogue,     // results that are not rounded yet
    kWrite,        // memory does not take results
    kAcknowledge,  // memory has not confirmed them
    kPipeline,     // a pipeline of the engine, by its length
    // the front end
    kOff,
    kFetch,  // words of the program, of memory
    kControl,
    kFull,   // the queue of the command
    kFence,  // all engines to be idle
    kLoad,   // a word of memory
    kCount
};

// Whether beats can end it.
constexpr bool of_memory(Wait wait) {
    return (wait >= Wait::kWeights && wait <= Wait::kSource && wait != Wait::kTurn) || wait == Wait::kFetch ||
           wait == Wait::kLoad;
}

}  // namespace dlavm::timed
