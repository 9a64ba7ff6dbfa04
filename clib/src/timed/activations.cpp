#include "timed/activations.h"

#include <algorithm>

namespace dlavm::timed {

// -- activation_load ----------------------------------------------------------------------------------------

void ActivationLoad::start(const LinearJob& job) {
    job_ = &job;
    active_ = begin_ = true;
    batch_ = set_ = row_ = rows_in_ = 0;
    sets_ = job.pieces ? job.k_blocks : 1;
    k_left_ = job.c.k;
    base_ = batch_base_ = job.c.src;
    used_.set(0);
}

void ActivationLoad::ask(Clock& clock) {
    const uint64_t now = clock.now();
    if (begin_) {
        begin_ = false;
        walker_.start(base_);
        clock.act();
        return;
    }
    if ((row_ == 0 && used_.at(now) >= static_cast<int32_t>(job_->places)) || !port_->ready(now)) return;
    const int64_t limit = job_->pieces ? std::min<int64_t>(k_left_, 32) : k_left_;
    port_->ask(clock, walker_.address() * kUnitBytes, static_cast<uint32_t>((limit + 7) / 8));
    if (row_ == 0) used_.add(now, 1);
    walker_.next(job_->c.src_so, job_->c.src_si, job_->c.rows_i);
    if (++row_ != job_->rows) return;
    row_ = 0;
    begin_ = true;
    base_ += 4;
    k_left_ -= 32;
    if (++set_ != sets_) return;
    set_ = 0;
    batch_base_ += job_->c.src_b;
    base_ = batch_base_;
    k_left_ = job_->c.k;
    active_ = ++batch_ != job_->c.batch;
}

int32_t ActivationLoad::step(Clock& clock) {
    const uint64_t now = clock.now();
    if (active_) ask(clock);
    if (now < taken_until_) {
        clock.at(taken_until_);
        return 0;
    }
    if (!port_->valid(now)) return 0;
    if (const uint32_t words = clock.short_ways() ? port_->take_words(clock) : 0) {
        taken_until_ = now + words;
        clock.at(taken_until_);
        return 0;
    }
    const bool last = port_->last();
    port_->take(clock);
    if (!last || ++rows_in_ != job_->rows) return 0;
    rows_in_ = 0;
    return 1;
}

// -- activation_feed ----------------------------------------------------------------------------------------

void ActivationFeed::start(const LinearJob& job) {
    job_ = &job;
    active_ = true;
    second_ = false;
    batch_ = outer_ = inner_ = row_ = part_ = head_ = 0;
    parts_left_ = job.n_blocks;
    outer_count_ = job.values ? job.k_blocks : job.tiles;
    const uint32_t parts = shape_->parts(), value_tiles = parts > 1 ? job.n_blocks * parts : job.tiles;
    inner_count_ = job.values ? value_tiles : job.k_blocks;
    units_.set(0);
    sets_.set(0);
    ready_.set(0);
    free_.set(kDepth);
}

void ActivationFeed::pair_done(uint64_t now, ActivationLoad& load) {
    const bool inner_last = inner_ + 1 == inner_count_, outer_last = outer_ + 1 == outer_count_;
    const bool last = job_->values ? outer_last : inner_last;
    const bool unit_done = row_ + 2 >= job_->rows;
    const bool result = last && !job_->c.acc_out && (!job_->values || inner_ < job_->tiles);
    tags_.push(now, {result, unit_done, lonely()});
    operands_.push(now + latency::kOperand);
    row_ += 2;
    if (!unit_done) return;
    row_ = 0;
    units_.add(now, -1);
    const uint32_t heads = job_->heads_here(batch_);
    if (inner_last && (job_->pieces || outer_last)) {
        sets_.add(now, -static_cast<int32_t>(heads));
        load.free(now, heads);
    }
    inner_ = inner_last ? 0 : inner_ + 1;
    parts_left_ = inner_last ? job_->n_blocks : parts_left_ - shape_->sets();
    if (!inner_last) return;
    outer_ = outer_last ? 0 : outer_ + 1;
    if (!outer_last) return;
    batch_ += heads;
    active_ = batch_ != job_->c.batch;
}

void ActivationFeed::step(Pace& pace, ActivationLoad& load) {
    const uint64_t now = pace.now();
    if (operands_.due(now)) {
        operands_.pop();
        ready_.add(now, 1);
        pace.act();
    }
    pace.at(operands_.next());
    if (!active_) return;
    const uint32_t heads = job_->heads_here(batch_);
    if (!second_ && part_ == 0 && head_ == 0) {
        if (units_.at(now) <= 0 || sets_.at(now) < static_cast<int32_t>(heads)) {
            held_ = now;
            return;
        }
        if (free_.at(now) <= 0) return;
        free_.add(now, -1);
    }
    pace.act();
    const bool head_done = !job_->values || part_ + 1 == shape_->sets() || part_ + 1 == parts_left_;
    part_ = head_done ? 0 : part_ + 1;
    if (!head_done || ++head_ != heads) return;
    head_ = 0;
    second_ = !second_ && !lonely();
    if (!second_) pair_done(now, load);
}

void ActivationFeed::append(std::vector<uint64_t>& out, uint64_t now) const {
    const auto word = [&](int64_t value) { out.push_back(static_cast<uint64_t>(value)); };
    word(second_);
    word(part_);
    word(head_);
    word(free_.next());
    word(ready_.next());
    operands_.append(out, now);
}

bool ActivationFeed::has_result(uint32_t number) const {
    if (job_->c.acc_out) return false;
    const uint32_t behind = inner_ + place(number) / unit_pairs();  // the unit behind the pair's
    if (!job_->values || inner_count_ == 1)
        return ((job_->values ? outer_ : 0) + behind) % (job_->values ? outer_count_ : inner_count_) == 0;
    return outer_ + 1 == outer_count_ && inner_ < job_->tiles;
}

// Units follow each other without a gap where the next one is there and all pairs have two tokens, up to the
// last one of the batch; those of values where they have as many blocks. A pair is under way when the jump
// ends.
uint32_t ActivationFeed::like_pairs() const {
    if (!active_ || sets_.next() < static_cast<int32_t>(job_->heads_here(batch_))) return 0;
    const bool pairs_only = job_->rows % 2 == 0, across = pairs_only && (!job_->values || inner_count_ == 1);
    for (uint32_t i = 0; i < tags_.size(); ++i)
        if (tags_.at(i).single || (tags_.at(i).release && !across)) return 0;
    uint32_t units = 1;
    if (across) {
        const uint32_t left = job_->pieces ? 1 : (outer_count_ - outer_) * inner_count_ - inner_;
        units = std::min({left, static_cast<uint32_t>(units_.next()), kUnits});
    }
    const uint32_t pairs = units * unit_pairs(), done = row_ / 2 + (pairs_only ? 1 : 2);
    return pairs > done ? pairs - done : 0;
}

void ActivationFeed::jump(uint64_t now, uint64_t cycles, uint32_t pairs) {
    operands_.shift(cycles);
    for (uint32_t i = 0; i < tags_.size(); ++i) {
        const uint32_t number = pairs + 1 + i;
        tags_.at(i).release = unit_left(number) == 1;
        tags_.at(i).result = has_result(number);
    }
    const uint32_t passed = row_ / 2 + pairs, units = passed / unit_pairs();
    row_ = 2 * (passed - units * unit_pairs());
    units_.add(now, -static_cast<int32_t>(units));
    outer_ += (inner_ + units) / inner_count_;
    inner_ = (inner_ + units) % inner_count_;
}

// -- matrix_steps, matrix_control ---------------------------------------------------------------------------

void MatrixArray::start(const LinearJob& job) {
    const bool plain = job.element == Element::kInt8 || job.element == Element::kCache;
    turns_ = job.narrow ? 1 : shape_->share;
    turns_of_single_ = plain ? 1 : turns_;
    entries_ = (job.narrow ? 4 : 8) * shape_->halves;
    running_ = false;
    room_.set(static_cast<int32_t>(shape_->result_blocks));
    under_way_.set(0);
}

void MatrixArray::append(std::vector<uint64_t>& out, uint64_t now) const {
    out.push_back(static_cast<uint64_t>(under_way_.next()));
    retires_.append(out, now);
}

void MatrixArray::take(uint64_t now, ActivationFeed& feed) {
    const ActivationFeed::Tag tag = feed.tag();
    feed.take(now);
    took_ = now;
    running_ = false;
    under_way_.add(now, 1);
    const uint64_t last_row = this->last_row(now, turns(tag));
    retires_.push(last_row);
    if (tag.release) release_at(now);
    if (tag.result) {
        room_.add(now, -1);
        results_.push(last_row);
    }
}

void MatrixArray::step(Pace& pace, ActivationFeed& feed) {
    const uint64_t now = pace.now();
    if (running_ && take_at_ == now) {
        take(now, feed);
        pace.act();
    } else if (running_) {
        pace.at(take_at_);
    } else if (feed.valid(now)) {
        if (!feed.tag().result || room_.at(now) != 0) {
            running_ = true;
            take_at_ = now + entries_ * turns(feed.tag()) - 1;
            pace.at(take_at_);
        } else {
            held_ = now;
        }
    }
    if (retires_.due(now)) {
        retires_.pop();
        under_way_.add(now, -1);
        pace.act();
    }
    pace.at(retires_.next());
}

void MatrixArray::step_ends(Clock& clock, UnitBuffer& units) {
    const uint64_t now = clock.now();
    if (releases_.due(now)) {
        releases_.pop();
        units.release(now);
    }
    clock.at(releases_.next());
}

}  // namespace dlavm::timed
