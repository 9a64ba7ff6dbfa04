#include "timed/linear_prepare.h"

namespace dlavm::timed {

namespace {

constexpr uint64_t kCheckCycles = 3;  // linear_decode

}  // namespace

void LinearPrepare::show(Clock& clock, const Command& command) {
    job_ = linear_job(command, *shape_);
    state_ = State::kCheck;
    asked_ = false;
    check_until_ = clock.now() + kCheckCycles;
    clock.poke(Part::kMatrix);
}

LinearJob LinearPrepare::begin(uint64_t now) {
    state_ = State::kBegun;
    port_->begin(now);
    return job_;
}

void LinearPrepare::step_busy(Clock& clock) {
    const uint64_t now = clock.now();
    if (state_ == State::kCheck) {
        if (check_until_ != now) return clock.at(check_until_);
        state_ = State::kReady;
        ready_from_ = now + 1;
        clock.act();
        clock.poke(Part::kQueues);
    } else if (!asked_) {
        asked_ = true;
        fetch_.start(job_);
        clock.act();
    } else if (state_ == State::kBegun && fetch_.idle()) {
        state_ = State::kEmpty;
        left_ = now;
        port_->fetched();
        clock.poke_now(Part::kQueues);
    } else {
        fetch_.step(clock);
    }
}

}  // namespace dlavm::timed
