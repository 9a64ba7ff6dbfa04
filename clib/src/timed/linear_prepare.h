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

    bool ready(uint64_t now) const { return state_ == State::kReady && ready_from_ <= now; }
    LinearJob begin(uint64_t now);
    bool fetched() const { return state_ != State::kBegun || fetch_.idle(); }
    void step(Clock& clock) {
        if (state_ != State::kEmpty) step_busy(clock);
    }

  private:
    enum class State { kEmpty, kCheck, kReady, kBegun };
    void step_busy(Clock& clock);

    const Shape* shape_;
    WeightPort* port_;
    LinearJob job_;
    WeightFetch fetch_;
    State state_ = State::kEmpty;
    bool asked_ = false;  // the fetch was started
    uint64_t check_until_ = 0, ready_from_ = 0, left_ = kNever;
};

}  // namespace dlavm::timed
