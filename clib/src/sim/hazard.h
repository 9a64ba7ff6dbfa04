// Ordering of the decoupled engines (doc/numerics.md section 9): vector clocks, and the bytes that engines
// still own.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "sim/access.h"

namespace dlavm::sim {

constexpr unsigned kEngines = 4;

class Hazards {
  public:
    explicit Hazards(uint32_t semaphores) : queues_(semaphores) {}

    void reset();
    void signal(isa::Engine engine, uint32_t semaphore);
    bool wait(isa::Engine engine, uint32_t semaphore);  // false: no earlier SIGNAL serves it
    void fence();                                       // every engine knows everything

    // One command of `engine` with these accesses, those of the load engine first in a command of the matrix
    // engine. Throws Fault hazard; then nothing is recorded.
    void command(isa::Engine engine, const std::vector<Access>& accesses);

  private:
    using Clock = std::array<uint64_t, kEngines>;

    struct Owned {
        uint64_t end;
        uint64_t time;  // of the owner's own clock
        const char* field;
    };
    using Map = std::map<uint64_t, Owned>;  // by first byte; intervals do not overlap

    struct Snapshots {
        Clock clock;
        uint64_t count;
    };

    void check(const Access& access) const;
    void check_map(const Access& access, unsigned owner, bool written) const;
    void record(const Access& access);
    void prune();
    std::vector<Access> merged(const std::vector<Access>& accesses) const;

    std::array<Clock, kEngines> clocks_{};
    std::array<std::array<Map, 2>, kEngines> owned_;  // [engine][0: read, 1: written]
    std::vector<std::deque<Snapshots>> queues_;
    uint64_t commands_ = 0;
};

}  // namespace dlavm::sim
