// memory_fabric.sv: read_port, write_port, and where what they ask for stands. Rows and addresses, no bytes.
#pragma once

#include <algorithm>

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

// Those of many that have something to do, a bit each, so that nobody has to look at the others.
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
    void ask(Clock& clock, uint64_t address, uint32_t units, bool again = true);
    bool valid(uint64_t now) const {
        if (!told_.valid(now)) return false;
        const uint32_t offset = told_.front().offset;
        if (offset == 0) return rows(now) > 0;
        return held_from_ <= now && (left() <= units_ - offset || rows(now) > 0);
    }
    bool last() const { return left() <= units_; }
    // Whether there may be a beat in the next cycle. If not, the client is stepped when one is known to come.
    bool goes_on(uint64_t now) const { return begun_ || rows_.next() + arrivals_.seen(now + 1) > 0; }
    // `again`: the client is stepped in the next cycle.
    void take(Clock& clock, bool again = true);
    // Takes `count` beats of a row each in as many cycles from `from` on, this one or the next, and not the
    // last one of the request. False: they are not there, or not known to come in time.
    bool take_rows(Clock& clock, uint64_t from, uint32_t count);
    // Words that can be taken from the next cycle on, whenever the client likes, of which none is the last of
    // its row or of the request: nobody else sees it. Takes one; false: there is none.
    uint32_t inside() const;
    bool take_inside();
    // Takes the words that are left of the row from this cycle on, one in each, but for the last one of the
    // request. How many; 0: nobody knows.
    uint32_t take_words(Clock& clock);
    // A client that waits for a row is stepped when one that is known to come is there.
    void wake(Clock& clock) const { clock.at(row_from()); }

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
    // Whether there is room to tell of so many rows before they come.
    bool tells(uint32_t rows) const { return arrivals_.room() >= static_cast<int32_t>(rows); }
    // The same in `count` cycles from `from` on, behind all that was told.
    void rows_come(Clock& clock, uint64_t from, uint32_t count);
    // read_channels is stepped when a chunk may go because of what is known to come.
    void wake_reads(Clock& clock) const {
        if (busy_ && (credits_.left != 0 || !arrivals_.empty())) clock.at(Part::kReads, chunk_from());
    }

    // The end of the cycle: after the client and read_channels.
    void step(Clock& clock) {
        const uint64_t now = clock.now();
        if (granted_ == now || (!busy_ && requests_.valid(now))) cut(clock);
        // A request that starts inside a row waits for the next row with the end of this one held.
        if (!holds_next()) return;
        clock.port_at(number_, row_from());
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
    // The request that is first starts inside a row, and the end of that is not held yet.
    bool holds_next() const { return !told_.empty() && told_.front().offset != 0 && held_from_ == kNever; }
    // Where no row is there: the cycle from which on the first one that is known to come is.
    uint64_t row_from() const { return rows_.next() > 0 ? kNever : arrivals_.shows(1 - rows_.next()); }
    void settle(uint64_t now) {
        credits_.settle(now, credit_);
        arrivals_.settle(now, rows_, under_way_);
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
    void begin_row();
    void pass_words(uint32_t count);
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
    // the request that is cut into chunks
    bool busy_ = false;
    uint32_t space_ = 0;
    uint64_t row_ = 0;
    uint32_t rows_left_ = 0, count_ = 0;  // count: of the next chunk
    uint64_t granted_ = kNever;           // in which cycle
    Count credit_, rows_, under_way_;
    Ramp credits_;    // what is known to come of credit_,
    Ramps arrivals_;  // of rows_, and to leave under_way_
    // beats
    bool started_ = false, begun_ = false;
    uint32_t left_ = 0, word_ = 0, rest_ = 0;  // word of the row; units from that word on
    uint64_t held_from_ = kNever, taken_ = kNever;
};

class WritePort {
  public:
    // `waiting`: ports with a chunk for write_channels.
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
    // Whether there is room for the rows that may come in so many cycles without one that leaves.
    bool room_for(uint64_t cycles) const { return rows_.next() + static_cast<int64_t>(cycles) <= kRows; }
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

}  // namespace dlavm::timed
