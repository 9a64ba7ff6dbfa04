// axi_read_channel.sv, axi_write_channel.sv with the memory behind them (targets/rtl/sim/model.cpp): answers
// come in order, a beat a cycle.
#pragma once

#include "timed/clock.h"
#include "timed/memory.h"

namespace dlavm::timed {

struct ChannelShape {
    uint32_t pack;  // beats of a row
    uint32_t port_bytes;
};

class ReadChannel {
  public:
    ReadChannel(const ChannelShape& shape, ChannelMemory& memory) : shape_(shape), memory_(&memory) {}

    bool chunk_ready(uint64_t now) const { return chunks_.ready(now); }
    void chunk(uint64_t now, uint64_t row, uint32_t rows) { chunks_.push(now, {row, rows}); }
    bool valid(uint64_t now) const { return parts_.at(now) != 0; }  // the part of a row
    void take(uint64_t now) { parts_.add(now, -1); }
    bool idle() const { return reads_.empty() && chunks_.empty(); }  // asks for nothing and is owed nothing
    void step(Clock& clock);

    uint64_t beats() const { return beats_; }
    uint64_t last_beat() const { return last_beat_; }
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
    static constexpr int32_t kParts = 8;  // that wait for the other channels

    bool beat_ready(Clock& clock);
    void take_beat(uint64_t now);

    ChannelShape shape_;
    ChannelMemory* memory_;
    uint32_t part_ = 0;
    Fifo<Chunk, 4> chunks_;
    Fifo<Burst, 64> reads_;
    Count parts_;
    uint64_t beats_ = 0, last_beat_ = kNever;
};

class WriteChannel {
  public:
    WriteChannel(const ChannelShape& shape, ChannelMemory& memory) : shape_(shape), memory_(&memory) {}

    bool chunk_ready(uint64_t now) const { return chunks_.ready(now); }
    void chunk(uint64_t now, uint64_t row, uint32_t rows) { chunks_.push(now, {row, rows}); }
    // A chunk that nothing is in front of goes straight through, without a step for its address and each
    // beat: they are taken in the cycles in which they would be, the first beat in kPass.
    static constexpr uint64_t kPass = 2;
    bool passes(uint64_t now) const {
        return shape_.pack == 1 && chunks_.empty() && rows_.next() == 0 && writes_.empty() &&
               (!memory_->board || memory_->board->write_room(now));
    }
    void pass(Clock& clock, uint64_t row, uint32_t rows);
    bool row_ready(uint64_t now) const { return rows_.at(now) != kRows; }
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
};

}  // namespace dlavm::timed
