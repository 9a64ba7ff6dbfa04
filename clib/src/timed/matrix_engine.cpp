#include "timed/matrix_engine.h"

#include <algorithm>

namespace dlavm::timed {

namespace {

constexpr uint32_t kQuietCycles = 3;  // before the one in which a command is found done
constexpr uint32_t kSteadyRows = 8;   // with which it is worth while to look for a steady stream

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
    last_seen_.clear();
    pace_ = {};
    last_took_ = period_ = 0;
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

bool MatrixEngine::quiet(uint64_t now) {
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
    const int32_t pushed = step_units(clock), room = units_.room_next();
    if (pushed != 0) feed_.push(now, pushed);
    const bool loaded = load_.step(clock) != 0;
    if (loaded) feed_.set_done(now);
    operands_.step(clock);
    array_.each_result(now, [&](uint64_t cycle) { epilogue_.result(clock, cycle); });
    epilogue_.step(clock, array_);
    step_pairs(clock, pushed != 0 || loaded || array_.freed(now));
    if (units_.room_next() != room && (job_.cache() || !unpack_.goes_on(clock))) clock.act();
    const int32_t more = job_.cache() ? 0 : unpack_.completes(clock, last_took_);
    if (more == 0) return;
    feed_.push(now, more);
    pass_pairs(clock);
}

// Feed and array, and what comes out of them. `given`: they have more of what they may wait for.
void MatrixEngine::step_pairs(Clock& clock, bool given) {
    const uint64_t now = clock.now();
    if (pace_.begin(now, clock.all())) {
        feed_.step(pace_, load_);
        array_.step(pace_, feed_);
        if (job_.rows >= kSteadyRows && array_.took(now) && !clock.all()) jump_pairs(clock);
        if (load_.freed(now)) clock.act();  // whatever feed and array jumped over
    } else if (given && now <= last_took_ && period_ != 0 && clock.short_ways()) {
        pass_pairs(clock);
    }
    if (given && now > last_took_) pace_.poke(now);
    clock.at(pace_.next());
    array_.step_ends(clock, units_);
    array_.each_result(now + 1, [&](uint64_t cycle) { epilogue_.result(clock, cycle); });
    if (!clock.short_ways() || epilogue_.wants_result()) clock.at(array_.next_result());
}

// When a block was taken: feed and array go on as since the last one if they were in the same state then,
// have waited for nobody since, and the pairs that come are alike: others only give them more of what they
// have.
void MatrixEngine::jump_pairs(const Clock& clock) {
    const uint64_t now = clock.now();
    seen_.clear();
    feed_.append(seen_, now);
    array_.append(seen_, now);
    const uint64_t period = now - last_took_;
    const bool steady = std::max(feed_.held(), array_.held()) <= last_took_ && seen_ == last_seen_;
    std::swap(seen_, last_seen_);
    last_took_ = now;
    period_ = steady ? period : 0;
    // In front of an observer only where the array works all the time, and nobody waits for results: waits()
    // says so.
    if (steady && (!clock.watched() || period == array_.pair_cycles())) pass_pairs(clock);
}

// Feed and array stand as they do behind the block taken at last_took_, which may be to come, and go on as
// before it: past as many pairs as there are units and room for results.
void MatrixEngine::pass_pairs(const Clock& clock) {
    const uint64_t now = clock.now();
    const uint32_t most = feed_.like_pairs();
    uint32_t pairs = 0, room = clock.watched() ? 0 : array_.results_room();
    while (pairs != most) {
        const uint32_t left = feed_.unit_left(pairs + 1);
        uint32_t count = std::min(left, most - pairs);
        if (feed_.has_result(pairs + 1)) {
            count = std::min(count, room);
            room -= count;
            for (uint32_t i = 1; i <= count; ++i) array_.result_at(now, last_took_ + (pairs + i) * period_);
        }
        pairs += count;
        if (count != left) break;
        array_.release_at(last_took_ + pairs * period_);
    }
    if (pairs == 0) return;
    feed_.jump(now, pairs * period_, pairs);
    array_.jump(pairs * period_);
    last_took_ += pairs * period_;
    pace_.sleep(last_took_ + 1);
}

}  // namespace dlavm::timed
