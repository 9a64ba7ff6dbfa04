// memory_fabric.sv: read_port, write_port, read_channels, write_channels, round_robin. Rows and addresses, no
// bytes.
#pragma once

#include <algorithm>
#include <vector>

#include "timed/channels.h"
#include "timed/clock.h"
#include "timed/shape.h"

namespace dlavm::timed {

// address_map.sv: where the units of a request stand.
struct Place {
    uint32_t space;
    uint64_t row;
    uint32_t offset, rows;  // units in front of the first in its row; rows that are touched
};

Place place_of(const Shape& shape, uint64_t address, uint32_t units);

struct Chunk {
    uint32_t space;
    uint64_t row;
    uint32_t rows;
};

// A bit for each of what something stands in front of, so that nobody has to look at the others.
class Busy {
  public:
    void set(uint32_t number, bool busy) {
        const uint32_t bit = 1u << number;
        set_ = busy ? set_ | bit : set_ & ~bit;
    }
    uint32_t all() const { return set_; }
    template <class Action>
    void each(Action action) const {
        for (uint32_t left = set_; left != 0; left &= left - 1)
            action(static_cast<uint32_t>(__builtin_ctz(left)));
    }

  private:
    uint32_t set_ = 0;
};

class ReadPort {
  public:
    // `cutting`: ports whose request is cut into chunks. `number`: of the port. `units`: of the client's
    // beats. `rows`: of the buffer; `under_way`: at most; `requests`: that are not answered.
    ReadPort(const Shape& shape, Busy& cutting, uint32_t number, Part client, uint32_t units, uint32_t rows,
             uint32_t under_way, uint32_t requests)
        : shape_(&shape),
          cutting_(&cutting),
          number_(number),
          client_(client),
          units_(units),
          most_under_way_(static_cast<int32_t>(under_way)),
          told_(requests),
          credit_(static_cast<int32_t>(rows)) {}

    // The client. A beat is looked at (valid, last) before it is taken, once a cycle.
    bool ready(uint64_t now) const { return requests_.ready(now); }
    void ask(Clock& clock, uint64_t address, uint32_t units);
    bool valid(uint64_t now) const {
        if (!told_.valid(now)) return false;
        const uint32_t offset = told_.front().offset;
        if (offset == 0) return rows(now) > 0;
        return held_from_ <= now && (left() <= units_ - offset || rows(now) > 0);
    }
    bool last() const { return left() <= units_; }
    // `again`: the client is stepped in the next cycle.
    void take(Clock& clock, bool again = true);
    // Takes `count` beats of a row each in as many cycles from `from` on, this one or the next, and not the
    // last one of the request. False: they are not there, or not known to come in time.
    bool take_rows(Clock& clock, uint64_t from, uint32_t count);
    // Takes a word in the next cycle which is neither the last of its row nor of the request. False: it is
    // not there, or not such a one.
    bool take_inside();
    // Takes the words that are left of the row from this cycle on, one in each, but for the last one of the
    // request. How many; 0: nobody knows.
    uint32_t take_words(Clock& clock);
    // A client that waits for a row is stepped when one that is known to come is there.
    void wake(Clock& clock) const {
        if (arrivals_.left != 0 && rows_.next() <= 0) clock.at(arrivals_.shows(1 - rows_.next()));
    }

    // read_channels
    bool chunk_valid(uint64_t now) const {
        if (!busy_) return false;
        const auto count = static_cast<int32_t>(count_);
        return credit_.at(now) + credits_.seen(now) >= count &&
               under_way_.at(now) - arrivals_.seen(now) + count <= most_under_way_;
    }
    Chunk grant(Clock& clock);
    void row(Clock& clock) {
        const bool offset = !told_.empty() && told_.front().offset != 0;
        settle(clock.now());
        if (rows_.next() <= 0 || offset) clock.poke(client_);  // else it can go on already
        if (offset) clock.poke_port(number_);
        rows_.add(clock.now(), 1);
        under_way_.add(clock.now(), -1);
        poke_reads(clock);
    }
    // The same in `count` cycles from `from` on, of whole rows. False: not together with what is to come.
    bool rows_come(Clock& clock, uint64_t from, uint32_t count);
    // read_channels is stepped when a chunk may go because of what is known to come.
    void wake_reads(Clock& clock) const {
        if (busy_ && credits_.left + arrivals_.left != 0) clock.at(Part::kReads, chunk_from());
    }

    // The end of the cycle: after the client and read_channels.
    void step(Clock& clock) {
        const uint64_t now = clock.now();
        if (granted_ == now || (!busy_ && requests_.valid(now))) cut(clock);
        // A request that starts inside a row waits for the next row with the end of this one held.
        if (told_.empty() || told_.front().offset == 0 || held_from_ != kNever) return;
        if (taken_ == now || !told_.valid(now) || rows(now) <= 0) return;
        take_word(clock);
        held_from_ = now + 1;
        clock.poke(client_);
    }

  private:
    struct Request {
        uint64_t address;
        uint32_t units;
    };
    struct Told {
        uint32_t word, offset, units;  // word of the row, unit of the word
    };
    int32_t rows(uint64_t now) const { return rows_.at(now) + arrivals_.seen(now); }
    void settle(uint64_t now) {
        credits_.settle(now, credit_);
        Ramp same = arrivals_;
        same.settle(now, under_way_, -1);
        arrivals_.settle(now, rows_);
    }
    // The first cycle in which the next chunk may go, as far as is known.
    uint64_t chunk_from() const {
        const auto count = static_cast<int32_t>(count_);
        const int32_t credits = count - credit_.next(), rows = under_way_.next() + count - most_under_way_;
        return std::max(credits > 0 ? credits_.shows(credits) : 0, rows > 0 ? arrivals_.shows(rows) : 0);
    }
    void poke_reads(Clock& clock) const {  // where a chunk may go now
        if (!busy_) return;
        const uint64_t from = chunk_from();
        if (from <= clock.now() + 1)
            clock.poke(Part::kReads);
        else if (from != kNever)
            clock.at(Part::kReads, from);
    }
    void set_count();
    uint32_t left() const { return started_ ? left_ : told_.front().units; }
    void take_word(Clock& clock);
    void cut(Clock& clock);

    const Shape* shape_;
    Busy* cutting_;
    uint32_t number_;
    Part client_;
    uint32_t units_;
    int32_t most_under_way_;  // rows that were asked for and have not come
    Fifo<Request, 4> requests_;
    DeepFifo<Told> told_;  // requests that were cut and not answered
    uint32_t inside_ = 0;  // of them, those that begin inside a word
    // the request that is cut into chunks
    bool busy_ = false;
    uint32_t space_ = 0;
    uint64_t row_ = 0;
    uint32_t rows_left_ = 0, count_ = 0;  // count: of the next chunk
    uint64_t granted_ = kNever;           // in which cycle
    Count credit_, rows_, under_way_;
    Ramp credits_, arrivals_;  // what is known to come of credit_; of rows_, and to leave under_way_
    // beats
    bool started_ = false, begun_ = false;
    uint32_t left_ = 0, word_ = 0, rest_ = 0;  // word of the row; units from that word on
    uint64_t held_from_ = kNever, taken_ = kNever;
};

class WritePort {
  public:
    // `waiting`: ports of writes, from the first one on, with a chunk for write_channels.
    WritePort(const Shape& shape, Busy& waiting, uint32_t number, Part client)
        : shape_(&shape), waiting_(&waiting), number_(number), client_(client) {}

    // The client: a request, then as many beats as it has. put() leaves it to the client whether it is
    // stepped in the next cycle.
    bool ready(uint64_t now) const { return requests_.ready(now); }
    void ask(Clock& clock, uint64_t address, uint32_t units);
    bool data_ready(uint64_t now) const { return busy_ && left_ != 0 && room(now); }
    void put(Clock& clock);
    // A request of a beat that comes to a port at rest passes it: asked for in `cycle`, which may be to come,
    // its beat is put kPut cycles later, and its chunk is there in the next. Nothing else is asked for until
    // then.
    static constexpr uint64_t kPut = 2;
    bool passes(uint64_t address, uint32_t units) const;
    void pass(Clock& clock, uint64_t cycle, uint64_t address, uint32_t units);
    bool idle(uint64_t now) const { return !requests_.valid(now) && !busy_ && outstanding_.at(now) == 0; }

    // write_channels
    bool chunk_valid(uint64_t now) const { return !chunks_.empty() && chunks_.front().from <= now; }
    uint64_t next_chunk() const { return chunks_.empty() ? kNever : chunks_.front().from; }
    Chunk grant(Clock& clock);
    bool full() const { return rows_.next() >= kRows; }
    void take_row(Clock& clock, uint64_t cycle) {
        if (full()) poke_room(clock);
        rows_.add(cycle, -1);
    }
    void done(Clock& clock, uint64_t cycle) {
        outstanding_.add(cycle, -1);
        if (outstanding_.next() == 0) clock.poke(client_);
    }

    // The end of the cycle: after the client and write_channels.
    void step(Clock& clock) {
        if (busy_ || !requests_.empty()) step_busy(clock);
    }

  private:
    struct Request {
        uint64_t address;
        uint32_t units;
    };
    static constexpr int32_t kRows = 2 * kChunkRows;
    bool room(uint64_t now) const { return rows_.at(now) != kRows && chunks_.ready(now); }
    void poke_room(Clock& clock) const {  // for whom there was none
        clock.poke_port(number_);
        clock.poke(client_);
    }
    void made(uint64_t now, const Chunk& chunk);
    void step_busy(Clock& clock);
    void make(Clock& clock);

    const Shape* shape_;
    Busy* waiting_;
    uint32_t number_;
    Part client_;
    struct Made {
        Chunk chunk;
        uint64_t from;  // the first cycle in which it is seen
    };

    Fifo<Request, 4> requests_;
    static constexpr uint32_t kChunks = 8;
    Fifo<Made, kChunks> chunks_;
    bool busy_ = false;
    uint32_t space_ = 0;
    uint64_t row_ = 0;
    uint32_t left_ = 0, word_ = 0, words_left_ = 0, rows_of_chunk_ = 0;
    uint64_t put_ = kNever;
    Count rows_, outstanding_;
};

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

class Fabric {
  public:
    static constexpr uint32_t kReaders = 8, kWriters = 3;

    // Whose ports these are. The last one is the weights'.
    static constexpr Part kReader[kReaders] = {Part::kFront,  Part::kFront,  Part::kStore,  Part::kStore,
                                               Part::kMatrix, Part::kMatrix, Part::kVector, Part::kMatrix};
    static constexpr Part kWriter[kWriters] = {Part::kMatrix, Part::kVector, Part::kStore};

    Fabric(const Shape& shape, Memories& memories);
    void step_reads(Clock& clock);  // before the clients
    void step_writes(Clock& clock);
    void step_ports(Clock& clock);  // behind them

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
    Busy cutting_, waiting_;  // of the ports
    Busy reading_, writing_;  // spaces with something on its way, those of what passes apart
    // What is counted of a space's first channel; the others see the same.
    struct Watch {
        Traffic before;  // beats when the run began
        // Of the writes that pass, the cycles of beats from the one on in which the last chunk began to pass.
        uint64_t passing = 0, passing_from = 0;
        // Cycles of the `count` from `now` on in which one passes.
        uint32_t passes(uint64_t now, uint32_t count) const {
            uint32_t cycles = 0;
            for (uint64_t cycle = now; cycle < now + count && cycle < passing_from + 64; ++cycle)
                cycles += passes(cycle) ? 1 : 0;
            return cycles;
        }
        bool passes(uint64_t now) const {
            return now - passing_from < 64 && (passing >> (now - passing_from) & 1) != 0;
        }
        uint64_t busy = 0, last_busy = kNever, asked = 0, asked_from = kNever;
        uint64_t run_from = kNever;  // reads have a beat in each cycle from there to last_busy
        bool runs(uint64_t now) const { return run_from <= now && now <= last_busy && last_busy != kNever; }
        uint64_t reads_from = 0;  // the first cycle of reads that nothing is in front of
        uint64_t answered = 0;    // behind the answer to the last write that is known beforehand
    };
    bool idle(size_t space) const { return reads_[space].front().idle() && writes_[space].front().idle(); }
    void count_beat(size_t space, uint64_t now);
    void count_passing(size_t space, uint64_t now, uint32_t beats);
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
    bool rows_run(Clock& clock, uint32_t& beats);
    void read_rows(Clock& clock);
    void issue_read(uint64_t now);
    bool read_passes(Clock& clock);
    void read_chunks(Clock& clock);
    void write_answers(Clock& clock);
    void told_answers(Clock& clock);
    bool passes(const Clock& clock, const std::vector<WriteChannel>& channels, uint64_t now) const;
    void issue_write(Clock& clock, std::vector<WriteChannel>& channels, uint64_t now, bool passes);
    void write_chunks(Clock& clock);

    std::vector<std::vector<ReadChannel>> reads_;  // by space, channel
    std::vector<std::vector<WriteChannel>> writes_;
    std::vector<Watch> watches_;

    // read_channels
    RoundRobin read_choice_;
    bool issue_ = false;
    uint32_t client_ = 0;
    Chunk chunk_{};
    Fifo<Order, 64> order_;
    uint32_t taken_ = 0, row_client_ = 0;
    uint64_t row_due_ = kNever;

    // write_channels
    RoundRobin write_choice_;
    bool put_busy_ = false, put_issue_ = false, put_passes_ = false;
    uint32_t put_client_ = 0, put_left_ = 0;
    Chunk put_chunk_{};
    Fifo<PutOrder, 16> put_order_;
    uint32_t untold_ = 0;  // of put_order_
    uint64_t last_told_ = 0;
    std::array<uint64_t, kWriters> done_at_{};  // of the last of a client's that is told
    uint32_t done_client_ = 0;
    uint64_t done_due_ = kNever;
};

}  // namespace dlavm::timed
