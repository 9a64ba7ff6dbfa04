// The timing model behind dlavm/memory_timing.h.
//
// Bursts of AXI are cut into accesses, one column command each. Reads and writes stand in a queue each. The
// scheduler chooses an access when the one `window` places before it has its column command: of the direction
// that it is in, until that has nothing left or has had `batch` accesses while the other waits. A chosen
// access opens its row as soon as the bank allows; column commands keep the order of the choice. A write can
// be chosen once all its data is there, and is answered then; a read waits for writes that were there before
// it and overlap it.
//
// All numbers of an access follow when it is chosen, and depend only on what had arrived by then. So it does
// not matter how often anybody asks, and accesses are chosen only when an answer hangs on it: many at a time.
//
// Short ways, which give the same: of RAM whole bursts are chosen together, or what is left of two that take
// turns; accesses to rows that stay open follow one another in steps of a length that is known. A channel
// that records commands takes none; tests hold the two against each other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "dlavm/memory_timing.h"
#include "timing/beats.h"
#include "timing/ring.h"

namespace dlavm::timing {

// Null where the timing is sound.
const char* problem(const dlavm_memory_timing& timing);

// Where an access goes. `row`: its number, with what tells its page from others of the bank.
struct Target {
    uint32_t group, bank;
    uint64_t row;
};

// Division by a number that stays: nearly all of them are powers of two.
class Divisor {
  public:
    explicit Divisor(uint64_t value) : value_(value) {
        if ((value & (value - 1)) == 0)
            for (shift_ = 0; uint64_t{1} << shift_ != value;) ++shift_;
    }
    uint64_t value() const { return value_; }
    uint64_t quotient(uint64_t of) const { return shift_ >= 0 ? of >> shift_ : of / value_; }
    uint64_t up(uint64_t of) const { return quotient(of + value_ - 1); }
    // The lowest digit of a number in this base, which is taken off.
    uint32_t digit(uint64_t& of) const {
        if (shift_ >= 0) {
            const auto bits = static_cast<uint32_t>(of & (value_ - 1));
            of >>= shift_;
            return bits;
        }
        const uint64_t rest = of / value_;
        const auto lowest = static_cast<uint32_t>(of - rest * value_);
        of = rest;
        return lowest;
    }

  private:
    uint64_t value_;
    int shift_ = -1;
};

class Channel {
  public:
    explicit Channel(const dlavm_memory_timing& timing);  // a sound one

    // `taken`: bursts whose beats were taken before their cycles, and which the port still holds.
    bool read_room(uint64_t cycle, uint32_t taken = 0) {
        named_ = cycle;
        return lengths_.size() + taken < timing_.reads;
    }
    // A write that is chosen goes on counting until it has left.
    bool write_room(uint64_t cycle) {
        named_ = cycle;
        return held_ < timing_.writes || room_made(cycle);
    }
    void read(uint64_t cycle, uint64_t address, uint32_t beats);
    void write(uint64_t cycle, uint64_t address, uint32_t beats);
    void write_beat(uint64_t cycle);
    // write() in a cycle and write_beat() in each of those behind it, where no other data is still to come.
    void write_burst(uint64_t cycle, uint64_t address, uint32_t beats);

    bool beat_ready(uint64_t cycle) {
        named_ = cycle;
        if (ready_.empty()) advance(arrival_of(cycle));
        return !ready_.empty() && ready_.front() <= cycle;
    }
    // How many beats there are from that one on, as far as is known, for somebody who takes one a cycle, and
    // at most so many.
    uint32_t beats_from(uint64_t cycle, uint32_t most) {
        named_ = cycle;
        if (ready_.size() < most) advance(arrival_of(cycle));
        return ready_.from(cycle, most);
    }
    // In which cycles from `from` on, and before `until`, somebody takes the next beats that are known in
    // `cycle`; returns how many, at most so many.
    uint32_t beats_known(uint64_t cycle, uint64_t from, uint64_t until, uint32_t most, uint64_t* cycles) {
        named_ = cycle;
        if (ready_.size() < most) advance(arrival_of(cycle));
        return ready_.taken(from, until, most, cycles);
    }
    bool response_ready(uint64_t cycle) const { return !responses_.empty() && responses_.front() <= cycle; }
    void take_beat() { take_beats(1); }
    void take_beats(uint32_t beats) {
        ready_.take(beats);
        uint32_t& left = lengths_.front();
        if (beats < left)
            left -= beats;
        else
            end_reads(beats);
    }
    void take_response() { responses_.pop_front(); }

    // Exact; they look ahead in a copy. The bounds are not later, whatever is asked for in between.
    uint64_t next_beat() const;
    uint64_t next_response() const { return responses_.empty() ? DLAVM_MEMORY_NEVER : responses_.front(); }
    uint64_t next_write_room() const;
    uint64_t beat_bound() const;
    uint64_t write_room_bound() const;
    // Whether what is answered in `cycle`, or is not, is that of a refresh of all banks.
    bool refreshing(uint64_t cycle);

    void record() {
        recording_ = true;
        ram_ = false;
    }
    // What was decided by the last cycle that anybody named.
    const std::vector<dlavm_memory_command>& recorded() {
        advance(arrival_of(named_));
        return recorded_;
    }

  private:
    struct Burst {
        int64_t arrival;
        uint64_t address, access, last;  // numbers of its next and last access
        uint32_t beats, shown;           // shown: of a read, whose cycle is known
    };
    struct Incoming {  // a write whose data is on its way
        uint64_t address;
        uint32_t beats, left;
    };
    struct Bank {
        uint64_t row = kClosed;                             // that is open
        int64_t activate = kLongAgo, precharge = kLongAgo;  // from when on they may be
        int64_t read = kLongAgo, write = kLongAgo;
        int64_t used = kLongAgo;  // the last column command
    };
    struct Group {
        int64_t activated = kLongAgo, column = kLongAgo, written = kLongAgo;
    };
    struct Run {  // accesses one behind the other, of one direction, in rows that have stayed open
        uint64_t length = 0, next = 0, row_end = 0;
        bool write = false;
    };
    static constexpr int64_t kLongAgo = -(int64_t{1} << 48);
    static constexpr uint64_t kClosed = UINT64_MAX;

    int64_t clock_of(uint64_t cycle) const;
    uint64_t cycle_of(int64_t clock) const;
    int64_t arrival_of(uint64_t cycle) const { return clock_of(cycle) + timing_.request; }
    void push(Ring<Burst>& queue, int64_t arrival, uint64_t address, uint32_t beats) const;

    // Chooses everything whose time comes before `limit`; what arrives from then on changes nothing of it.
    void advance(int64_t limit) {
        if (limit > quiet_) choose_all(limit);
    }
    void choose_all(int64_t limit);
    bool choose(int64_t limit);
    void choose_of_ram(int64_t limit);
    int64_t take_turns(int64_t at, bool write, int64_t limit);
    bool room_made(uint64_t cycle);
    void end_reads(uint32_t beats);
    void arrive(uint64_t cycle, uint64_t address, uint32_t beats);
    bool choose_write(int64_t when) const;
    bool waits_for_write(const Burst& read) const;
    Target target(uint64_t access) const;
    void serve(int64_t when, Burst& first, bool write, int64_t limit);
    void issue(int64_t when, Burst& first, bool write);
    void issue_run(int64_t when, Burst& first, bool write, int64_t limit);
    void enter(int64_t at) {
        window_[place_] = at;
        if (++place_ == window_.size()) place_ = 0;
    }
    void open_row(int64_t when, uint32_t bank, Group& group, uint64_t row);
    int64_t column(int64_t when, const Bank& bank, const Group& group, bool write) const;
    void use(int64_t at, Bank& bank, Group& group, bool write);
    // The beats that are complete with the read's next access, of a column command.
    void show(Burst& read, int64_t at) {
        const uint64_t bytes = (read.access + 1) * timing_.burst_bytes - read.address;
        if (bytes >= (uint64_t{read.shown} + 1) * timing_.beat_bytes) show_to(read, bytes, at);
    }
    void show_to(Burst& read, uint64_t bytes, int64_t at);
    void refresh(int64_t when);
    void refresh_all(int64_t due);
    bool refresh_one(int64_t when);
    void begin_round();
    int64_t close(int64_t when, uint32_t bank);
    void log(int64_t clock, uint32_t kind, uint32_t bank, uint64_t row);
    Channel silent() const;

    dlavm_memory_timing timing_;
    // RAM whose accesses are chosen many at a time. Not where commands are recorded.
    bool ram_;
    Divisor clocks_, cycles_, beat_, burst_, interleaved_, columns_, banks_of_group_, outer_groups_, row_;
    int64_t quiet_ = kLongAgo;  // nothing can be chosen before, unless more is asked for
    Ring<Burst> reads_, writes_;
    Ring<Incoming> incoming_;
    Ring<uint32_t> lengths_;  // beats that are left of reads, the taken ones apart
    Beats ready_;
    Ring<uint64_t> responses_, leaving_;  // leaving: when the room of a chosen write is free
    size_t held_ = 0;                     // writes that count: incoming, waiting and leaving

    std::vector<Bank> banks_;
    std::vector<Group> groups_;
    std::array<int64_t, 4> activates_;
    int64_t activated_ = kLongAgo, column_ = kLongAgo, read_end_ = kLongAgo, write_end_ = kLongAgo;
    std::vector<int64_t> window_;  // column commands of the last accesses
    Run run_;
    int64_t run_clocks_;  // from one column command of a run to the next; 0: it depends
    size_t place_ = 0, oldest_activate_ = 0;
    int64_t chosen_ = kLongAgo;
    bool writing_ = false;
    uint64_t served_ = 0;

    int64_t next_refresh_;
    int64_t refresh_from_ = kLongAgo, refresh_until_ = kLongAgo;  // the last one of all banks
    uint64_t owed_ = 0;                                           // refreshes of a bank
    std::vector<uint32_t> due_;    // banks whose turn in this round is still to come, by their numbers
    int64_t due_used_ = kLongAgo;  // each of these has been used then or later

    uint64_t named_ = 0;
    bool recording_ = false;
    std::vector<dlavm_memory_command> recorded_;
};

}  // namespace dlavm::timing
