#include "timed/weights.h"

#include <algorithm>

namespace dlavm::timed {

namespace {

constexpr uint32_t kByteUnit = 64, kExponentUnits = 2;  // kv_pkg, in units of 16 bytes

}  // namespace

// -- weight_fetch -------------------------------------------------------------------------------------------

void WeightFetch::start(const LinearJob& job) {
    job_ = &job;
    active_ = true;
    exponents_ = false;
    batch_ = tile_ = block_ = part_ = 0;
    keys_ = job.keys && !job.ordered;
    tiles_ = job.values ? job.k_blocks : job.ordered ? job.n_blocks : job.tiles;
    parts_ = keys_ ? shape_->parts() : 1;
    sets_ = keys_ ? shape_->sets() : 1;
    run_ = 0;
    set_ = head_ = 0;
    span_ = 0;
    left_ = job.n_blocks;
    base_ = tile_base_ = block_base_ = unit_ = job.c.wgt;
}

uint32_t WeightFetch::units() const {
    if (keys_) return (job_->bytes ? kByteUnit : kBlockUnits) / parts_;
    if (job_->cache()) return job_->bytes ? kByteUnit : job_->dim_blocks() * kBlockUnits;
    return job_->tile_units;
}

uint32_t WeightFetch::run() const {
    return job_->ordered && job_->values ? std::min(kTogether, tiles_ - tile_) : 1;
}

void WeightFetch::tile_done(uint64_t part_units) {
    const uint32_t run = this->run();
    head_ = run_ = 0;
    const uint64_t next_batch = base_ + span_ + job_->c.wgt_b;
    span_ = 0;
    const bool part_last = part_ + 1 == parts_;
    if (part_last) tile_base_ += uint64_t{job_->c.wgt_tile} * sets_ * run;
    left_ -= sets_;
    block_base_ = tile_base_;
    part_ = part_last ? 0 : part_ + 1;
    unit_ = tile_base_ + part_ * part_units;
    tile_ += run;
    if (tile_ != tiles_) return;
    tile_ = part_ = 0;
    tile_base_ = block_base_ = unit_ = base_ = next_batch;
    left_ = job_->n_blocks;
    batch_ += job_->heads_here(batch_);
    active_ = batch_ != job_->c.batch;
}

void WeightFetch::step(Clock& clock) {
    if (!active_ || !port_->ready(clock.now())) return;
    const uint32_t block_units = job_->bytes ? kByteUnit : kBlockUnits;
    if (job_->bytes && !exponents_) {
        exponents_ = true;
        const uint64_t unit = block_base_ + job_->dim_blocks() * block_units + block_ * kExponentUnits;
        port_->ask(clock, unit * kUnitBytes, kExponentUnits);
        return;
    }
    exponents_ = false;
    const uint32_t count = units();
    port_->ask(clock, unit_ * kUnitBytes, count);
    if (++set_ != sets_ && set_ != left_) {
        block_base_ += job_->c.wgt_tile;
        unit_ += job_->c.wgt_tile;
        return;
    }
    set_ = 0;
    unit_ = tile_base_ + span_ + (unit_ - block_base_) + block_units;
    block_base_ = tile_base_ + span_;
    ++block_;
    if ((keys_ || job_->bytes) && block_ != job_->dim_blocks()) return;
    block_ = 0;
    if (++run_ != run()) {
        block_base_ = unit_ = tile_base_ + span_ + uint64_t{run_} * job_->c.wgt_tile;
        return;
    }
    run_ = 0;
    if (++head_ == job_->heads_here(batch_)) return tile_done(keys_ ? count : 0);
    span_ += job_->c.wgt_b;
    block_base_ = unit_ = tile_base_ + span_;
}

// -- weight_unpack ------------------------------------------------------------------------------------------

void WeightUnpack::start(const LinearJob& job) {
    job_ = &job;
    half_ = false;
    block_ = entry_ = third_ = 0;
    ends_ = kNever;
    told_ = false;
    begin_tile();
}

void WeightUnpack::begin_tile() {
    left_ = job_->k_blocks - 1;
    want_zero_ = job_->zero;
    want_scale_ = true;
    odd_ = held_ = false;
}

// An entry of codes. Of 6-bit codes every third slice has high bits, which are no entries.
bool WeightUnpack::unit_ends() {
    const bool high = job_->element == Element::kE2m3 && third_ == 0;
    const bool wide = job_->element == Element::kInt8 || job_->element == Element::kE4m3;
    const bool ends = !high && entry_ + 1 == (wide ? 8 : 4) * halves_;
    if (halves_ == 1 || half_) third_ = third_ == 2 ? 0 : third_ + 1;
    half_ = !half_;
    if (!high) entry_ = ends ? 0 : entry_ + 1;
    if (ends) third_ = 0;
    return ends;
}

// What a beat does to the registers; true: a unit ends.
bool WeightUnpack::beat() {
    // Beat rows of this beat, with one that was held; those in front of the codes.
    const uint32_t count = 2 / halves_, there = count + held_, ahead = want_zero_ + want_scale_;
    held_ = count == 2 && (there + ahead) % 2 == 1;
    want_scale_ = want_scale_ && want_zero_ && there == 1;
    want_zero_ = false;
    if (ahead + count > there || !unit_ends()) return false;
    const bool group_last = ++block_ == job_->group_blocks;
    if (left_ == 0) {
        block_ = 0;
        begin_tile();
        return true;
    }
    --left_;
    if (!group_last) return true;
    block_ = 0;
    want_zero_ = job_->zero && odd_;
    want_scale_ = !job_->e8m0 || odd_;
    odd_ = !odd_;
    return true;
}

// The beats of a unit from a cycle on, this one or the next, where nothing can keep them waiting.
bool WeightUnpack::take_unit(Clock& clock, uint64_t from) {
    WeightUnpack next = *this;
    uint32_t beats = 1;
    while (!next.beat()) ++beats;
    if (from + beats == clock.now() + 1 || !port_->take_rows(clock, from, beats)) return false;
    *this = next;
    ends_ = from + beats - 1;
    return true;
}

int32_t WeightUnpack::step(Clock& clock) {
    const uint64_t now = clock.now();
    if (ends_ == now) {
        const int32_t units = told_ ? 0 : 1;
        ends_ = kNever;
        told_ = false;
        units_->push(now, units);
        if (units_->room_next() > 0 && !take_unit(clock, now + 1)) clock.act();
        return units;
    }
    forget(now);
    if (ends_ != kNever) return 0;
    if (!port_->valid(now) || units_->room(now) <= 0) return 0;
    if (clock.short_ways() && take_unit(clock, now)) return 0;
    port_->take(clock);
    if (!beat()) return 0;
    units_->push(now, 1);
    return 1;
}

int32_t WeightUnpack::completes(Clock& clock, uint64_t until) {
    if (ends_ == kNever || ends_ <= clock.now()) return 0;
    const int32_t units = !told_ && ends_ <= until ? 1 : 0;
    if (units != 0) {
        told_ = true;
        units_->push(clock.now(), units);
    }
    if (!told_ || units_->room_next() > 0) clock.at(ends_);
    return units;
}

// -- kv_unpack ----------------------------------------------------------------------------------------------

void KvUnpack::start(const LinearJob& job) {
    job_ = &job;
    tile_ = shape_->tile();
    parts_ = shape_->parts();
    byte_parts_ = shape_->row_units == 1 ? 2 : 1;
    wanted_ = job.values ? static_cast<int32_t>(parts_) : 1;
    part_ = token_ = count_ = group_ = 0;
    exponents_ = false;
    paused_ = kNever;
    claimed_.set(0);
    tokens_.clear();
    pushes_.clear();
}

// Four tokens are collected, turned round, and leave as eight entries.
int32_t KvUnpack::leave(Clock& clock) {
    const uint64_t now = clock.now();
    if (tokens_.due(now)) {
        tokens_.pop();
        clock.act();
        if (++count_ == 4) {
            count_ = 0;
            if (++group_ == (job_->values ? 8 : tile_ / 4)) {
                group_ = 0;
                pushes_.push(now + latency::kTurn);
            }
        }
    }
    clock.at(tokens_.next());
    int32_t pushed = 0;
    if (pushes_.due(now)) {
        pushes_.pop();
        clock.act();
        pushed = wanted_;
        units_->push(now, pushed);
        claimed_.add(now, -pushed);
    }
    clock.at(pushes_.next());
    return pushed;
}

void KvUnpack::token_in(uint64_t now) {
    const bool bytes = job_->bytes;
    tokens_.push(now + (bytes ? latency::kStoredToken : latency::kToken));
    if (bytes && byte_parts_ == 1) paused_ = now + 1;
    if (++token_ != (job_->values ? 32 : tile_)) return;
    token_ = 0;
    exponents_ = false;
    claimed_.add(now, wanted_);
}

void KvUnpack::take(Clock& clock) {
    const uint64_t now = clock.now();
    const bool bytes = job_->bytes, exponents = bytes && !exponents_;
    port_->take(clock);
    const uint32_t beats = exponents || bytes ? byte_parts_ : parts_;
    const bool last = part_ == beats - 1;
    part_ = last ? 0 : part_ + 1;
    if (!last) return;
    if (exponents)
        exponents_ = true;
    else
        token_in(now);
}

int32_t KvUnpack::step(Clock& clock) {
    const uint64_t now = clock.now();
    const int32_t pushed = leave(clock);
    if (paused_ == now) {
        clock.act();
    } else if (port_->valid(now) && units_->room(now) >= claimed_.at(now) + wanted_) {
        take(clock);
    }
    return pushed;
}

// -- kv_blocks ----------------------------------------------------------------------------------------------

void KvBlocks::start(const LinearJob& job) {
    job_ = &job;
    order_.start(job);
    const uint32_t block = job.bytes ? kByteUnit : kBlockUnits, sets = shape_->sets();
    block_beats_ = block > shape_->row_units ? block / shape_->row_units : 1;
    leavers_ = std::min(sets, std::max(2u, sets / 2));
    beat_ = set_ = dim_ = batch_ = head_ = token_block_ = 0;
    left_ = job.n_blocks;
    exponents_ = false;
    free_at_.fill(0);
    claimed_.set(0);
    pushes_.clear();
}

// Nothing stops a block that is there: it goes through the quantiser and leaves entry after entry.
void KvBlocks::block_in(uint64_t now) {
    const uint64_t entries = 8 * shape_->halves,
                   token = job_->bytes ? latency::kStoredToken : latency::kToken;
    const bool dim_last = dim_ + 1 == job_->dim_blocks();
    const bool head_last = head_ + 1 == job_->heads_here(batch_);
    const bool set_last =
        set_ + 1 == shape_->sets() || (job_->values ? dim_last && head_last : set_ + 1 == left_);
    free_at() = now + entries;
    if (set_last) pushes_.push(now + token + 1 + entries);
    exponents_ = false;
    next_set(set_last, dim_last);
    if (job_->values || set_last) dim_ = dim_last ? 0 : dim_ + 1;
    if (set_last && dim_last) left_ = left_ <= shape_->sets() ? job_->n_blocks : left_ - shape_->sets();
}

// Values: heads follow each other, each head's blocks behind those of its share of the unit's places.
void KvBlocks::next_set(bool set_last, bool dim_last) {
    ++set_;
    if (job_->values && dim_last) {
        set_ = ++head_ * (shape_->sets() / job_->heads);
        const uint32_t heads = job_->heads_here(batch_);
        if (head_ == heads) {
            head_ = 0;
            if (++token_block_ == job_->k_blocks) {
                token_block_ = 0;
                batch_ += heads;
            }
        }
    }
    if (set_last) set_ = 0;
}

void KvBlocks::take(Clock& clock) {
    const uint64_t now = clock.now();
    const bool exponents = job_->bytes && !exponents_, first = beat_ == 0, last = beat_ + 1 == block_beats_;
    if (first && set_ == 0 && units_->room(now) <= claimed_.at(now)) return;
    if (!exponents && last && free_at() > now) return clock.at(free_at());
    order_.take(clock);
    if (exponents) {
        exponents_ = true;
        return;
    }
    if (first && set_ == 0) claimed_.add(now, 1);
    beat_ = last ? 0 : beat_ + 1;
    if (last) block_in(now);
}

int32_t KvBlocks::step(Clock& clock) {
    const uint64_t now = clock.now();
    int32_t pushed = 0;
    if (pushes_.due(now)) {
        pushes_.pop();
        clock.act();
        pushed = 1;
        units_->push(now, pushed);
        claimed_.add(now, -pushed);
    }
    clock.at(pushes_.next());
    if (order_.valid(now)) take(clock);
    order_.step(clock);
    return pushed;
}

}  // namespace dlavm::timed
