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

// Accesses are kept as they are, rows at regular distances, while they are few. Those that pile up are cut
// into intervals, and a later one takes the place of what it covers: then the books are bounded by memory,
// not time.
class Hazards {
  public:
    // How much is kept and tried before intervals are made; the verdicts do not depend on it.
    struct Effort {
        uint64_t kept = 512;          // accesses
        uint64_t steps = 4096;        // of the comparisons of a command,
        uint64_t steps_per_row = 32;  // and as many more a row: about what intervals would cost
    };

    explicit Hazards(uint32_t semaphores) : Hazards(semaphores, Effort{}) {}
    Hazards(uint32_t semaphores, Effort effort) : effort_(effort), queues_(semaphores) {}

    void reset();
    void signal(isa::Engine engine, uint32_t semaphore);
    bool wait(isa::Engine engine, uint32_t semaphore);  // false: no earlier SIGNAL serves it
    void fence();                                       // every engine knows everything
    void drain();                                       // and so does the front end

    // The front end reads bytes [begin, end). Throws Fault hazard where an engine wrote any of them since the
    // last drain.
    void front_end_read(uint64_t begin, uint64_t end) const;

    // One command of `engine` with these accesses. Throws Fault hazard; then nothing is recorded.
    void command(isa::Engine engine, const std::vector<Access>& accesses);

  private:
    using Clock = std::array<uint64_t, kEngines>;

    struct Kept {
        Strided bytes;
        uint64_t time;  // of the owner's own clock
        const char* field;
    };

    struct Owned {
        uint64_t end;
        uint64_t time;
        const char* field;
    };
    using Map = std::map<uint64_t, Owned>;  // by first byte; intervals do not overlap

    // What one engine has read, or written. Times rise along `kept`, and those of `cut` are not after them.
    struct Book {
        std::vector<Kept> kept;
        Map cut;
        uint64_t cut_time = 0;  // the newest in `cut`
    };

    struct Interval {
        isa::Engine engine;
        bool write;
        uint64_t begin, end;
        const char* field;
    };

    struct Snapshots {
        Clock clock;
        uint64_t count;
    };

    void forget();
    void note_written(uint64_t begin, uint64_t end);
    bool suspicious(const std::vector<Access>& accesses) const;
    static bool meets(const Access& access, const Book& book, uint64_t known, uint64_t& budget);
    void check_intervals(const std::vector<Access>& accesses);
    void check(const Interval& access) const;
    void check_map(const Interval& access, unsigned owner, bool written) const;
    void tidy();
    void prune();
    void drop_repeated();
    void cut();
    static void cut(Book& book);
    static void insert(Map& map, const Interval& access, uint64_t time);
    static std::vector<Interval> merged(std::vector<Interval> intervals);

    const Effort effort_;
    std::array<Clock, kEngines> clocks_{};
    std::array<std::array<Book, 2>, kEngines> books_;  // [engine][0: read, 1: written]
    uint64_t kept_ = 0;                                // accesses in all books
    std::vector<std::deque<Snapshots>> queues_;
    uint64_t commands_ = 0;
    std::map<uint64_t, uint64_t> written_;  // since the last drain: first byte to end, apart from each other
};

}  // namespace dlavm::sim
