#include "timed/matrix_engine.h"

#include <algorithm>

namespace dlavm::timed {

namespace {

constexpr uint32_t kQuietCycles = 3;  // before the one in which a command is found done

}  // namespace

MatrixEngine::MatrixEngine(const Shape& shape, ReadPort& weights, ReadPort& activations, ReadPort& operands,
                           WritePort& out)
    : shape_(&shape),
      weights_(weights),
      prepare_(shape, weights_),
      unpack_(shape, weights_, units_),
      kv_(shape, weights_, units_),
      blocks_(shape, weights_, units_),
      load_(activations),
      feed_(shape),
      array_(shape),
      operands_(shape, operands),
      epilogue_(shape, operands, out) {}

void MatrixEngine::begin(Clock& clock, const Command& /*command*/) {
    job_ = prepare_.begin(clock);
    running_ = true;
    quiet_ = 0;
    units_.start(job_.short_slots, shape_->row_units >= 8);
    if (!job_.cache())
        unpack_.start(job_);
    else if (in_blocks())
        blocks_.start(job_);
    else
        kv_.start(job_);
    load_.start(job_);
    feed_.start(job_);
    array_.start(job_);
    if (job_.c.acc_out) return;
    operands_.start(job_);
    epilogue_.start(job_);
}

bool MatrixEngine::quiet(uint64_t now) const {
    return load_.idle() && feed_.idle(now) && array_.idle(now) && operands_.idle() && epilogue_.idle(now);
}

int32_t MatrixEngine::step_units(Clock& clock) {
    if (!job_.cache()) return unpack_.step(clock);
    return in_blocks() ? blocks_.step(clock) : kv_.step(clock);
}

void MatrixEngine::step_run(Clock& clock, bool fetched) {
    const uint64_t now = clock.now();
    if (fetched && quiet(now)) {
        clock.act();
        if (quiet_ == kQuietCycles) {
            running_ = false;
            done_ = now + 1;
            clock.poke(Part::kQueues);
            return;
        }
        ++quiet_;
    } else {
        quiet_ = 0;
    }
    const int32_t pushed = step_units(clock);
    if (pushed != 0) feed_.push(now, pushed);
    if (load_.step(clock) != 0) feed_.set_done(now);
    operands_.step(clock);
    epilogue_.step(clock, array_);
    if (clock.acted()) other_ = now;
    other_timer_ = clock.timer();
    feed_.step(clock, load_);
    if (array_.step(clock, feed_, units_)) {
        epilogue_.result(now);
        other_ = now;
    }
}

void MatrixEngine::jump_pairs(Clock& clock) {
    const uint64_t now = clock.now();
    seen_.clear();
    feed_.append(seen_, now);
    array_.append(seen_, now);
    const uint64_t period = now - last_took_;
    const bool steady = std::max(other_, clock.disturbed()) < last_took_ && seen_ == last_seen_;
    std::swap(seen_, last_seen_);
    last_took_ = now;
    const uint64_t next = std::min(clock.next_of_others(), other_timer_);
    if (!steady || next <= now + period) return;
    const uint64_t pairs = std::min<uint64_t>(feed_.like_pairs(), (next - now - 1) / period);
    feed_.jump(pairs * period, static_cast<uint32_t>(pairs));
    array_.jump(pairs * period);
    clock.jump(pairs * period);
    last_took_ = clock.now();
}

}  // namespace dlavm::timed
