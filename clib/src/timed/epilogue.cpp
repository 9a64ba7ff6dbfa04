#include "timed/epilogue.h"

#include <algorithm>

namespace dlavm::timed {

namespace {

constexpr uint64_t kBeatCycles = 9;  // of a beat: columns of a lane, and one in between

}  // namespace

// -- epilogue_fetch -----------------------------------------------------------------------------------------

void EpilogueFetch::start(const LinearJob& job) {
    job_ = &job;
    const bool any = job.c.use_row_scale || job.c.use_bias || job.uses_aux();
    state_ = any ? State::kScales : State::kIdle;
    batch_ = tile_ = row_ = 0;
    left_ = job.c.n;
    column_ = scales_ = 0;
}

uint32_t EpilogueFetch::tile_units() const {
    return static_cast<uint32_t>((std::min<uint64_t>(left_, shape_->tile()) + 7) / 8);
}

// False: what is wanted was not taken.
bool EpilogueFetch::ask(Clock& clock, bool wanted, uint64_t unit, uint32_t units) {
    if (wanted && !port_->ready(clock.now())) return false;
    if (wanted) port_->ask(clock, unit * kUnitBytes, units);
    clock.act();
    return true;
}

void EpilogueFetch::step_aux(Clock& clock) {
    const bool aux = job_->uses_aux();
    if (!ask(clock, aux, walker_.address(), tile_units())) return;
    walker_.next(job_->c.aux_so, job_->c.aux_si, job_->c.rows_i);
    if (aux && ++row_ != job_->rows) return;
    row_ = 0;
    left_ -= std::min<uint64_t>(left_, shape_->tile());
    column_ += shape_->tile() / 8;
    state_ = State::kBias;
    if (++tile_ != job_->tiles) return;
    tile_ = 0;
    left_ = job_->c.n;
    column_ = 0;
    scales_ += scales();
    batch_ += job_->heads_here(batch_);
    state_ = batch_ == job_->c.batch ? State::kIdle : State::kScales;
}

void EpilogueFetch::step(Clock& clock) {
    switch (state_) {
        case State::kIdle:
            break;
        case State::kScales:
            if (ask(clock, job_->c.use_row_scale, job_->c.row_scale + scales_ / 4,
                    static_cast<uint32_t>((scales_ % 4 + scales() + 3) / 4)))
                state_ = State::kBias;
            break;
        case State::kBias:
            walker_.start(job_->c.aux + column_);
            if (ask(clock, job_->c.use_bias, job_->c.bias + column_, tile_units())) state_ = State::kAux;
            break;
        case State::kAux:
            step_aux(clock);
            break;
    }
}

// -- epilogue -----------------------------------------------------------------------------------------------

void Epilogue::start(const LinearJob& job) {
    job_ = &job;
    state_ = State::kScales;
    batch_ = tile_ = row_ = piece_ = head_ = 0;
    head_unit_ = 0;
    left_ = job.c.n;
    base_ = job.c.dst;
    column_ = 0;
}

// Begins a beat in `cycle`, which is this one, one before it or, where nothing can keep it from it, the next.
void Epilogue::go(Clock& clock, uint64_t cycle) {
    if (job_->uses_aux() && cycle == clock.now()) port_->take(clock, clock.watched());
    room_.add(cycle, -1);
    const uint64_t columns = std::min<uint64_t>(left_piece_, 8 * shape_->units);
    const Place place{walker_.address() + head_unit_ + piece_ * shape_->units,
                      static_cast<uint32_t>((columns + 7) / 8)};
    state_ = State::kRun;
    run_until_ = cycle + kBeatCycles - 1;  // columns of a lane
    const uint64_t counted = run_until_ + latency::kEpilogue;
    const bool first = places_.empty() && unsent_.next() == 0;
    if (first && clock.short_ways() && out_->passes(place.unit * kUnitBytes, place.units)) {
        out_->pass(clock, counted + 1, place.unit * kUnitBytes, place.units);
        passed_.push(counted + 1 + WritePort::kPut);
    } else {
        places_.push(clock.now(), place);
        beats_.push(counted);
    }
}

// Whether the next beat begins in the next cycle whatever happens in this one; if so its operand is taken.
bool Epilogue::goes_on(const Clock& clock) {
    return clock.short_ways() && state_ == State::kRow && blocks_.next() > 0 && room_.next() > 0 &&
           (!job_->uses_aux() || port_->take_inside());
}

// Beats that follow the one that runs, of the same row tile: of blocks that are there, with operands that
// are.
uint32_t Epilogue::beats_known() const {
    const uint32_t columns = 8 * shape_->units, heads = job_->heads_here(batch_);
    const uint32_t pieces =
        divided_up(static_cast<uint32_t>(std::min<uint64_t>(left_, shape_->tile())), columns);
    const uint32_t of_blocks = 2 * static_cast<uint32_t>(std::max(blocks_.next(), 1)) - row_ % 2;
    const uint32_t rows = std::min(of_blocks, job_->rows - row_);
    return (rows * heads - head_) * pieces - piece_ - 1;
}

// Where beats follow each other and each of them passes the port, nobody sees when one ends, and those that
// are known are made up for later: before the first of them would be counted, and when something must be
// seen.
uint64_t Epilogue::next_look() const {
    const uint32_t known = std::min(beats_known(), kLate),
                   inside = job_->uses_aux() ? port_->inside() : known;
    if (inside >= known) return run_until_ + kBeatCycles * known;
    return run_until_ + kBeatCycles * inside + 1;
}

// Beats that ended and began before this cycle.
void Epilogue::catch_up(Clock& clock, MatrixArray& array) {
    const uint64_t now = clock.now();
    while (state_ == State::kRun && run_until_ < now) {
        uint64_t begin = run_until_ + 1;
        count_room(run_until_);
        piece_done(array, now, run_until_);
        if (begin == now) return;
        if (room_.next() == 0) {
            if (passed_.next() >= now - 1) return;
            begin = passed_.next() + 1;
            count_room(passed_.next());
        }
        if (job_->uses_aux()) port_->take_inside();
        go(clock, begin);
    }
}

void Epilogue::piece_done(MatrixArray& array, uint64_t now, uint64_t cycle) {
    const uint64_t columns = 8 * shape_->units;
    if (left_piece_ > columns && (piece_ + 1) * columns < shape_->tile()) {
        ++piece_;
        left_piece_ -= columns;
        state_ = State::kRow;
        return;
    }
    piece_ = 0;
    left_piece_ = left_;
    head_unit_ += job_->c.dst_b;
    state_ = State::kRow;
    if (++head_ != job_->heads_here(batch_)) return;
    head_ = 0;
    walker_.next(job_->c.dst_so, job_->c.dst_si, job_->c.rows_i);
    row_done(array, now, cycle);
}

void Epilogue::row_done(MatrixArray& array, uint64_t now, uint64_t cycle) {
    const bool row_last = row_ + 1 == job_->rows;
    if (row_ % 2 == 1 || row_last) {
        blocks_.add(cycle, -1);
        array.result_free(now, cycle);
    }
    ++row_;
    const uint64_t heads_units = head_unit_;
    head_unit_ = 0;
    if (!row_last) return;
    row_ = 0;
    left_ -= std::min<uint64_t>(left_, shape_->tile());
    column_ += shape_->tile() / 8;
    state_ = State::kBias;
    if (++tile_ != job_->tiles) return;
    tile_ = 0;
    left_ = job_->c.n;
    column_ = 0;
    base_ += heads_units;
    batch_ += job_->heads_here(batch_);
    state_ = batch_ == job_->c.batch ? State::kIdle : State::kScales;
}

// Takes a beat of an operand that is used; true: it was the last, or there is none.
bool Epilogue::operand_ends(Clock& clock, bool used) {
    if (used && !port_->valid(clock.now())) return false;
    const bool ends = !used || port_->last();
    if (used) port_->take(clock);
    clock.act();
    return ends;
}

void Epilogue::step_order(Clock& clock, MatrixArray& array) {
    const uint64_t now = clock.now();
    switch (state_) {
        case State::kIdle:
            break;
        case State::kScales:
            if (operand_ends(clock, job_->c.use_row_scale)) state_ = State::kBias;
            break;
        case State::kBias:
            walker_.start(base_ + column_);
            left_piece_ = left_;
            if (operand_ends(clock, job_->c.use_bias)) state_ = State::kRow;
            break;
        case State::kRow:
            if (blocks_.at(now) != 0 && room_.at(now) != 0 && (!job_->uses_aux() || port_->valid(now)))
                go(clock, now);
            else if (room_.at(now) == 0)
                clock.at(passed_.next() + 1);
            break;
        case State::kRun:
            if (now != run_until_) break;
            piece_done(array, now, now);
            if (goes_on(clock))
                go(clock, now + 1);
            else
                clock.act();
            break;
    }
}

void Epilogue::step_out(Clock& clock) {
    const uint64_t now = clock.now();
    if (unsent_.at(now) != 0 && out_->data_ready(now)) {
        out_->put(clock);
        if (room_.next() == 0 || unsent_.next() > 1) clock.act();
        unsent_.add(now, -1);
        room_.add(now, 1);
    }
    if (unasked_.at(now) != 0 && out_->ready(now)) {
        out_->ask(clock, places_.front().unit * kUnitBytes, places_.front().units);
        places_.pop(now);
        unasked_.add(now, -1);
        unsent_.add(now, 1);
    }
    if (beats_.due(now)) {
        beats_.pop();
        unasked_.add(now, 1);
        clock.act();
    }
    clock.at(beats_.next());
}

void Epilogue::step(Clock& clock, MatrixArray& array) {
    if (clock.now() < look_at_ && !array.full()) return clock.at(look_at_);
    catch_up(clock, array);
    count_room(clock.now());
    step_order(clock, array);
    step_out(clock);
    look_at_ = 0;
    if (state_ != State::kRun) return;
    const bool passes = places_.empty() && unsent_.next() == 0;
    if (passes && !array.full() && clock.short_ways()) look_at_ = next_look();
    clock.at(std::max(look_at_, run_until_));
}

}  // namespace dlavm::timed
