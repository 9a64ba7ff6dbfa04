// epilogue.sv, epilogue_fetch.sv.
#pragma once

#include "timed/activations.h"

namespace dlavm::timed {

// epilogue_fetch.sv
class EpilogueFetch {
  public:
    EpilogueFetch(const Shape& shape, ReadPort& port) : shape_(&shape), port_(&port) {}
    void start(const LinearJob& job);
    bool idle() const { return state_ == State::kIdle; }
    void step(Clock& clock);

  private:
    enum class State { kIdle, kScales, kBias, kAux };
    bool ask(Clock& clock, bool wanted, uint64_t unit, uint32_t units);
    uint32_t tile_units() const;
    uint32_t scales() const { return job_->rows * job_->heads_here(batch_); }
    void step_aux(Clock& clock);

    const Shape* shape_;
    ReadPort* port_;
    const LinearJob* job_ = nullptr;
    State state_ = State::kIdle;
    uint32_t batch_ = 0, tile_ = 0, row_ = 0;
    uint64_t left_ = 0, column_ = 0, scales_ = 0;
    RowWalker walker_;
};

// epilogue.sv
class Epilogue {
  public:
    Epilogue(const Shape& shape, ReadPort& operands, WritePort& out)
        : shape_(&shape), port_(&operands), out_(&out) {}
    void start(const LinearJob& job);
    bool idle(uint64_t now) {
        count_room(now);
        return state_ == State::kIdle && room_.at(now) == kBeats && out_->idle(now);
    }
    bool wants_result() const { return blocks_.next() <= 0; }
    void result(Clock& clock, uint64_t cycle) {  // of this one or of one before it
        if (wants_result() || clock.watched()) clock.act();
        blocks_.add(cycle, 1);
    }
    void step(Clock& clock, MatrixArray& array);
    Wait waits(uint64_t now) const;

  private:
    enum class State { kIdle, kScales, kBias, kRow, kRun };
    static constexpr int32_t kBeats = 8;  // of rows under way or waiting for memory
    struct Place {
        uint64_t unit = 0;
        uint32_t units = 0;
    };
    static constexpr uint32_t kLate = 5;  // beats that begin before anybody looks at them, at most
    bool operand_ends(Clock& clock, bool used);
    void step_order(Clock& clock, MatrixArray& array);
    void go(Clock& clock, uint64_t cycle);
    bool goes_on(const Clock& clock);
    void count_room(uint64_t now) {
        for (; passed_.next() <= now; passed_.pop()) room_.add(passed_.next(), 1);
    }
    void catch_up(Clock& clock, MatrixArray& array);
    uint32_t beats_known() const;
    uint64_t next_look() const;
    void piece_done(MatrixArray& array, uint64_t now, uint64_t cycle);
    void row_done(MatrixArray& array, uint64_t now, uint64_t cycle);
    void step_out(Clock& clock);

    const Shape* shape_;
    ReadPort* port_;
    WritePort* out_;
    const LinearJob* job_ = nullptr;
    State state_ = State::kIdle;
    uint32_t batch_ = 0, tile_ = 0, row_ = 0;
    uint32_t piece_ = 0, head_ = 0;  // beat of the head's row; head of the unit
    uint64_t head_unit_ = 0;         // of dst, from the unit's first head to this one
    uint64_t left_ = 0, left_piece_ = 0, base_ = 0, column_ = 0, run_until_ = 0;
    uint64_t look_at_ = 0;  // nobody needs to look before it
    RowWalker walker_;
    Count blocks_, room_{kBeats}, unasked_, unsent_;
    Fifo<Place, kBeats> places_;
    Pipeline<16> beats_;
    Pipeline<16> passed_;  // beats that pass the port, by the cycles in which they are put
};

}  // namespace dlavm::timed
