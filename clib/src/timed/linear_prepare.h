// linear_prepare.sv
#pragma once

#include "timed/weights.h"

namespace dlavm::timed {

class LinearPrepare {
  public:
    LinearPrepare(const Shape& shape, WeightPort& port) : shape_(&shape), port_(&port), fetch_(shape, port) {}

    // The queue: whether a command may be shown, whether that which was is not looked at any more.
    bool empty(uint64_t now) const { return state_ == State::kEmpty && left_ != now; }
    bool left(uint64_t now) const { return left_ == now; }
    void show(Clock& clock, const Command& command);

    // The oldest that waits is with the engine a cycle after it could be.
    void load(Clock& clock);
    bool ready(uint64_t now) const { return loaded_ < now; }
    LinearJob begin(Clock& clock);
    bool fetched() const { return state_ != State::kFetch || !port_->same() || fetch_.idle(); }
    void step(Clock& clock) {
        if (state_ != State::kEmpty) step_busy(clock);
    }

  private:
    enum class State { kEmpty, kCheck, kReady, kFetch };
    void step_busy(Clock& clock);

    const Shape* shape_;
    WeightPort* port_;
    LinearJob job_;
    WeightFetch fetch_;
    Fifo<LinearJob, 4> jobs_;
    State state_ = State::kEmpty;
    uint64_t check_until_ = 0, left_ = kNever, loaded_ = kNever;
};

}  // namespace dlavm::timed
