// A command as it was executed: the twin gets them one by one, in the order of the program's run.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dlavm_isa.h"

namespace dlavm::timed {

struct Command {
    uint64_t pc = 0;       // word offset in the program
    uint64_t next = 0;     // of the command that comes after it in this run
    uint32_t payload = 0;  // words
    uint8_t opcode = 0;
    bool skip = false;              // by its predicate
    bool jump = false;              // the next one is fetched anew
    bool fault = false;             // the run ends in front of it, or with it
    int engine = -1;                // -1: the front end's
    uint64_t load_address = 0;      // of SCALAR load: the unit's first byte
    uint32_t words[32] = {};        // of the payload, scalars in place
    std::vector<uint32_t> indices;  // GATHER's ids, PERMUTE's indices
    uint64_t number = 0;            // in the run
};

// The fields of a command; it was executed, so that they are in range.
template <class Fields>
Fields decoded(const Command& command) {
    Fields fields{};
    isa::Error error;
    Fields::decode(command.words, fields, error);
    return fields;
}

using CommandPtr = std::shared_ptr<const Command>;

class Source {
  public:
    virtual ~Source() = default;
    virtual CommandPtr next() = 0;
};

// When a command was put into its queue, taken by its engine, and reported done.
struct Span {
    uint64_t queued = 0, begin = 0, end = 0;
};

class Trace {
  public:
    virtual ~Trace() = default;
    virtual void command(const Command& command, const Span& span) = 0;
};

class Twin;

// Looks at the core behind every cycle that was stepped; in those up to the next one nothing changes.
class Observer {
  public:
    virtual ~Observer() = default;
    virtual void look(const Twin& twin) = 0;
};

}  // namespace dlavm::timed
