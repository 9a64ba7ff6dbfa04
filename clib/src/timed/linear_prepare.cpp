#include "timed/linear_prepare.h"

namespace dlavm::timed {

namespace {

constexpr uint64_t kCheckCycles = 3;  // linear_decode

}  // namespace

void LinearPrepare::show(Clock& clock, const Command& command) {
    job_ = linear_job(command, *shape_);
    state_ = State::kCheck;
    check_until_ = clock.now() + kCheckCycles;
    clock.poke(Part::kMatrix);
}

void LinearPrepare::load(Clock& clock) {
    if (loaded_ != kNever || !jobs_.valid(clock.now())) return;
    loaded_ = clock.now();
    clock.act();
    clock.poke(Part::kQueues);
}

LinearJob LinearPrepare::begin(Clock& clock) {
    const LinearJob job = jobs_.front();
    jobs_.pop(clock.now());
    loaded_ = kNever;
    port_->begin();
    clock.poke(Part::kMatrix);
    return job;
}

void LinearPrepare::step_busy(Clock& clock) {
    const uint64_t now = clock.now();
    if (state_ == State::kCheck) {
        if (check_until_ != now) return clock.at(check_until_);
        state_ = State::kReady;
        clock.act();
    } else if (state_ == State::kReady) {
        if (!jobs_.ready(now)) return;
        jobs_.push(now, job_);
        fetch_.start(job_);
        port_->next();
        state_ = State::kFetch;
        clock.act();
    } else if (fetch_.idle()) {
        state_ = State::kEmpty;
        left_ = now;
        clock.act();
        clock.poke_now(Part::kQueues);
    } else {
        fetch_.step(clock);
    }
}

}  // namespace dlavm::timed
