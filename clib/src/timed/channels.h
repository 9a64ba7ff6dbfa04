// axi_read_channel.sv, axi_write_channel.sv, and the memory behind them: answers come in order, a beat a cycle,
// `latency` cycles after the address (targets/rtl/sim/model.cpp).
#pragma once

#include "timed/clock.h"

namespace dlavm::timed {

class ReadChannel {
  public:
    ReadChannel(uint32_t pack, uint32_t latency) : pack_(pack), latency_(latency) {}

    bool chunk_ready(uint64_t now) const { return chunks_.ready(now); }
    void chunk(uint64_t now, uint64_t row, uint32_t rows) { chunks_.push(now, {row, rows}); }
    bool valid(uint64_t now) const { return parts_.at(now) != 0; }  // the part of a row
    void take(uint64_t now) { parts_.add(now, -1); }
    bool idle() const { return reads_.empty() && chunks_.empty(); }
    void step(Clock& clock);

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

    uint32_t pack_, latency_, part_ = 0;
    Fifo<Chunk, 4> chunks_;
    Fifo<Burst, 64> reads_;
    Count parts_;
};

class WriteChannel {
  public:
    WriteChannel(uint32_t pack, uint32_t latency) : pack_(pack), latency_(latency) {}

    bool chunk_ready(uint64_t now) const { return chunks_.ready(now); }
    void chunk(uint64_t now, uint32_t rows) { chunks_.push(now, rows); }
    bool row_ready(uint64_t now) const { return rows_.at(now) != kRows; }
    void row(uint64_t now) { rows_.add(now, 1); }
    bool done(uint64_t now) const { return responses_.at(now) != 0; }
    void take(uint64_t now) { responses_.add(now, -1); }
    bool idle() const { return rows_.next() == 0 && chunks_.empty() && answers_.empty(); }
    void step(Clock& clock);

  private:
    static constexpr int32_t kRows = 8, kResponses = 16;

    uint32_t pack_, latency_, part_ = 0;
    Fifo<uint32_t, 4> chunks_;
    Fifo<uint32_t, 64> writes_;  // beats of each burst that are still to come
    Fifo<uint64_t, 64> answers_;
    Count rows_, responses_;
};

}  // namespace dlavm::timed
