// memory_fabric.sv: read_channels, write_channels, round_robin.
#pragma once

#include <utility>
#include <vector>

#include "timed/channels.h"
#include "timed/ports.h"

namespace dlavm::timed {

// Chooses among clients, beginning behind the one chosen last.
class RoundRobin {
  public:
    template <class Valid>
    int choose(uint32_t candidates, Valid valid) const {
        const uint32_t front = candidates & ((2u << last_) - 1);
        for (uint32_t left : {candidates & ~front, front})
            for (; left != 0; left &= left - 1)
                if (valid(static_cast<uint32_t>(__builtin_ctz(left)))) return __builtin_ctz(left);
        return -1;
    }
    void advance(uint32_t choice) { last_ = choice; }

  private:
    uint32_t last_ = 0;
};

// Counts cycles in which beats pass, reads or writes; of those to come, 64 at most, each once.
class BeatCycles {
  public:
    uint64_t count() const { return count_; }
    void clear() { count_ = 0; }
    bool at(uint64_t cycle) const { return cycle - base_ < 64 && (cycles_ >> (cycle - base_) & 1) != 0; }
    void add(uint64_t now, uint64_t from, uint32_t beats) {
        mark(now, ((uint64_t{1} << beats) - 1) << (from - now), beats);
    }
    void add(uint64_t now, const uint64_t* cycles, uint32_t beats) {
        uint64_t added = 0;
        for (uint32_t i = 0; i < beats; ++i) added |= uint64_t{1} << (cycles[i] - now);
        mark(now, added, beats);
    }

  private:
    void mark(uint64_t now, uint64_t added, uint32_t beats) {
        const uint64_t moved = now - base_;
        cycles_ = moved < 64 ? cycles_ >> moved : 0;
        base_ = now;
        count_ += beats;
        for (uint64_t both = added & cycles_; both != 0; both &= both - 1) --count_;
        cycles_ |= added;
    }

    uint64_t base_ = 0, cycles_ = 0, count_ = 0;
};

class Fabric {
  public:
    static constexpr uint32_t kReaders = 8, kWriters = 3;

    // Whose ports these are. The last one is the weights'.
    static constexpr Part kReader[kReaders] = {Part::kFront,  Part::kFront,  Part::kStore,  Part::kStore,
                                               Part::kMatrix, Part::kMatrix, Part::kVector, Part::kMatrix};
    static constexpr Part kWriter[kWriters] = {Part::kMatrix, Part::kVector, Part::kStore};

    Fabric(const Shape& shape, Memories& memories);
    Fabric(const Fabric&) = delete;
    Fabric& operator=(const Fabric&) = delete;
    void step_reads(Clock& clock);  // before the clients
    void step_writes(Clock& clock);
    void step_ports(Clock& clock);  // behind them
    template <Part kPart>
    void wake(Clock& clock) const {  // readers of a part
        wake<kPart>(clock, std::make_integer_sequence<uint32_t, kReaders>{});
    }

    bool quiet(uint64_t now) const;  // no channel owes an answer

    // Of a channel of a space from cycle `begin` on: profile_counters.sv.
    struct Traffic {
        uint64_t read_beats = 0, written_beats = 0, busy = 0,
                 asked = 0;  // asked: cycles, busy ones among them
    };
    void clear_traffic(uint64_t begin);
    Traffic traffic(uint32_t space, uint64_t end) const;  // of the cycles before `end`
    bool moves(uint64_t now) const;                       // a beat passed in this cycle, of any space
    // Sets of spaces, a bit each: whose reads are asked for something; whether one of them refreshes its
    // banks.
    uint32_t asked() const;
    bool refreshing(uint64_t now, uint32_t spaces) const;

    std::vector<ReadPort> readers;
    std::vector<WritePort> writers;

  private:
    template <Part kPart, uint32_t... kNumbers>
    void wake(Clock& clock, std::integer_sequence<uint32_t, kNumbers...>) const {
        ((kReader[kNumbers] == kPart ? readers[kNumbers].wake(clock) : void()), ...);
    }

    Busy cutting_, waiting_;  // of the ports
    Busy reading_, writing_;  // spaces with something on its way, those of what passes apart
    // What is counted of a space's first channel; the others see the same.
    struct Watch {
        Traffic before;  // beats when the run began
        BeatCycles busy;
        uint64_t asked = 0, asked_from = kNever;
        uint64_t reads_from = 0;  // the first cycle of reads that nothing is in front of
        uint64_t known = 0;       // behind the last beat and answer that are known beforehand
    };
    bool idle(size_t space) const { return reads_[space].front().idle() && writes_[space].front().idle(); }
    void ask_begins(size_t space, uint64_t now);
    void ask_ends(size_t space, uint64_t now);

    struct Order {
        uint32_t client, space, rows;
    };
    struct PutOrder {
        uint32_t client, space;
        uint64_t told;  // the cycle in which its answer is taken, or kNever: not known yet
    };
    void read_run(Clock& clock, size_t space);
    bool read_foreseen(Clock& clock);
    void order_leaves(Clock& clock);
    void read_rows(Clock& clock);
    bool orders_ready(uint64_t now);
    void issue_read(uint64_t now);
    bool read_passes(Clock& clock);
    void read_chunks(Clock& clock);
    void write_answers(Clock& clock);
    void told_answers(Clock& clock);
    bool passes(const Clock& clock, const std::vector<WriteChannel>& channels, uint64_t now) const;
    void issue_write(Clock& clock, std::vector<WriteChannel>& channels, uint64_t now, bool passes);
    uint64_t issue_from(uint64_t now) const;
    bool write_passes(Clock& clock);
    void write_chunks(Clock& clock);

    std::vector<std::vector<ReadChannel>> reads_;  // by space, channel
    std::vector<std::vector<WriteChannel>> writes_;
    std::vector<Watch> watches_;

    // read_channels
    RoundRobin read_choice_;
    bool issue_ = false;
    uint32_t client_ = 0;
    Chunk chunk_{};
    static constexpr uint32_t kOrders = 64;
    Fifo<Order, kOrders> order_;
    Pipeline<kOrders> foreseen_;  // last rows of orders that have left the queue before their time
    uint32_t taken_ = 0, row_client_ = 0;
    uint64_t row_due_ = kNever, last_row_ = 0;  // last: in whose cycle it is taken

    // write_channels
    RoundRobin write_choice_;
    bool put_busy_ = false, put_issue_ = false, put_passes_ = false;
    uint32_t put_client_ = 0, put_left_ = 0;
    Chunk put_chunk_{};
    static constexpr uint32_t kAnswers = 16;  // that are owed at most; more may be known to be asked for
    Fifo<PutOrder, 4 * kAnswers> put_order_;
    uint64_t put_until_ = 0;  // a chunk that is known to pass keeps the others waiting until then
    uint32_t untold_ = 0;     // of put_order_
    uint64_t last_told_ = 0;
    std::array<uint64_t, kWriters> done_at_{};  // of the last of a client's that is told
    uint32_t done_client_ = 0;
    uint64_t done_due_ = kNever;
};

}  // namespace dlavm::timed
