// axi_read_channel.sv, axi_write_channel.sv with the memory behind them (targets/rtl/sim/model.cpp): answers
// come in order, a beat a cycle.
#pragma once

#include "timed/clock.h"
#include "timed/memory.h"
#include "timed/shape.h"

namespace dlavm::timed {

struct ChannelShape {
    uint32_t pack;  // beats of a row
    uint32_t port_bytes;
    uint32_t beats(uint32_t rows) const { return rows * pack; }
    uint64_t address(uint64_t row) const { return row * pack * port_bytes; }
};

class ReadChannel {
  public:
    ReadChannel(const ChannelShape& shape, ChannelMemory& memory) : shape_(shape), memory_(&memory) {}

    bool chunk_ready(uint64_t now) const { return chunks_.ready(now); }
    void chunk(uint64_t now, uint64_t row, uint32_t rows) { chunks_.push(now, {row, rows}); }
    // The same where nothing is in front of it, for memory in a cycle to come.
    bool passes(uint64_t now) { return chunks_.empty() && !reads_.full() && room(now); }
    void pass(Clock& clock, uint64_t cycle, uint64_t row, uint32_t rows);
    bool valid(uint64_t now) const { return parts_.at(now) != 0; }  // the part of a row
    bool waits() const { return parts_.next() != 0; }               // in the next cycle
    void take(uint64_t now) { parts_.add(now, -1); }
    bool idle() const { return reads_.empty() && chunks_.empty(); }  // asks for nothing and is owed nothing
    // Beats from this cycle on, one in each, that may be taken together: of a row, not its last, so that
    // nobody sees them.
    uint32_t run(uint64_t now);
    void take_run(uint64_t now, uint32_t beats);
    // Of the next rows, `rows` at most, those whose beats memory knows already, the next beats of the first
    // burst: the cycle of each beat, as many as it returns, and none more than kAhead ahead.
    static constexpr uint64_t kAhead = 60;
    uint32_t foreseen(uint64_t now, uint32_t rows, uint64_t* cycles);
    void take_foreseen(uint64_t now, const uint64_t* cycles, uint32_t beats);
    uint32_t pack() const { return shape_.pack; }
    void step(Clock& clock);

    uint64_t beats() const { return beats_; }
    uint64_t last_beat() const { return last_beat_; }
    static constexpr int32_t kParts = 8;  // that wait for the other channels
    bool refreshing(uint64_t now) const { return memory_->board && memory_->board->refreshing(now); }

  private:
    struct Chunk {
        uint64_t row;
        uint32_t rows;
    };
    struct Burst {
        uint64_t due;
        uint32_t beats;
    };
    bool room(uint64_t now);
    bool beat_ready(Clock& clock);
    void ask(uint64_t now, const Chunk& chunk);
    void take_beat(uint64_t now);

    ChannelShape shape_;
    ChannelMemory* memory_;
    uint32_t part_ = 0;
    Fifo<Chunk, 4> chunks_;
    static constexpr uint32_t kBursts = 64;
    Fifo<Burst, kBursts> reads_;
    Count parts_;
    uint64_t beats_ = 0, last_beat_ = kNever;
    uint64_t run_until_ = 0;      // the first cycle behind the beats that were taken together
    Pipeline<kBursts> foreseen_;  // last beats of bursts that memory still counts until then
};

class WriteChannel {
  public:
    WriteChannel(const ChannelShape& shape, ChannelMemory& memory) : shape_(shape), memory_(&memory) {}

    bool chunk_ready(uint64_t now) const { return chunks_.ready(now); }
    void chunk(uint64_t now, uint64_t row, uint32_t rows) { chunks_.push(now, {row, rows}); }
    // A chunk that nothing is in front of goes straight through, without a step for its address and each
    // beat: they are taken in the cycles in which they would be, the first beat in kPass. As many rows as
    // may wait for the beats of those before.
    static constexpr uint64_t kPass = 2;
    bool passes(uint64_t now, uint32_t rows) const {
        return chunks_.empty() && rows_.next() == 0 && writes_.empty() && follows(now, rows) &&
               (!memory_->board || memory_->board->write_room(now));
    }
    // The first cycle from `now` on in which there is room for a row behind those that pass.
    uint64_t row_from(uint64_t now) const {
        return passing_rows(now) < kRows ? now : passing_until_ - (kRows - 1) * shape_.pack + 1;
    }
    // Returns the cycle of the answer. `told`: somebody else knows it, and does not wait for done().
    uint64_t pass(Clock& clock, uint64_t now, uint64_t row, uint32_t rows, bool told);
    uint32_t beats_of(uint32_t rows) const { return shape_.beats(rows); }
    bool row_ready(uint64_t now) const { return rows_.at(now) + passing_rows(now) != kRows; }
    bool passing(uint64_t now) const { return now <= passing_until_; }
    uint64_t passing_until() const { return passing_until_; }
    void row(uint64_t now) { rows_.add(now, 1); }
    bool done(uint64_t now) const { return responses_.at(now) != 0; }
    void take(uint64_t now) { responses_.add(now, -1); }
    bool idle() const { return rows_.next() == 0 && chunks_.empty() && answers_.empty() && writes_.empty(); }
    void step(Clock& clock);

    uint64_t beats() const { return beats_; }
    uint64_t last_beat() const { return last_beat_; }

  private:
    struct Chunk {
        uint64_t row;
        uint32_t rows;
    };
    static constexpr int32_t kRows = 8, kResponses = 16;
    static constexpr uint32_t kMostBeats = 32;  // of a chunk that passes
    static constexpr uint64_t kMostAhead = 48;  // of its last beat
    // Whether the beats of so many rows may follow those that pass: one row waits for room, more do not.
    bool follows(uint64_t now, uint32_t rows) const {
        const bool behind = now + kPass <= passing_until_;
        if (rows == 1 && behind) return passing_until_ + shape_.pack < now + kMostAhead;
        const int32_t waiting = behind ? passing_rows(now) : 0;
        return ((shape_.pack == 1 && !behind) || static_cast<int32_t>(rows) + waiting <= kRows) &&
               beats_of(rows + static_cast<uint32_t>(waiting)) <= kMostBeats;
    }
    // Rows that passed and wait for their beats.
    int32_t passing_rows(uint64_t now) const {
        if (!passing(now)) return 0;
        const uint64_t rows = 1 + divided(passing_until_ - now, shape_.pack);
        return static_cast<int32_t>(rows < passed_rows_ ? rows : passed_rows_);
    }

    void answer(Clock& clock);
    void address(Clock& clock, bool room);
    void data(Clock& clock);

    ChannelShape shape_;
    ChannelMemory* memory_;
    uint32_t part_ = 0;
    Fifo<Chunk, 4> chunks_;
    Fifo<uint32_t, 64> writes_;  // beats of each burst that are still to come
    Fifo<uint64_t, 64> answers_;
    Count rows_, responses_;
    uint64_t beats_ = 0, last_beat_ = kNever;
    uint64_t passing_until_ = 0;  // the last beat of what passed
    uint32_t passed_rows_ = 0;
};

}  // namespace dlavm::timed
