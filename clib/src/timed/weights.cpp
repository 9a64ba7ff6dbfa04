#include "timed/weights.h"

namespace dlavm::timed {

namespace {

constexpr uint32_t kHalfUnit = 128, kByteUnit = 64, kExponentUnits = 2;  // kv_pkg, in units of 16 bytes

}  // namespace

// -- weight_fetch -------------------------------------------------------------------------------------------

void WeightFetch::start(const LinearJob& job) {
    job_ = &job;
    active_ = true;
    exponents_ = false;
    batch_ = tile_ = block_ = part_ = 0;
    tiles_ = job.values ? job.k_blocks : job.tiles;
    parts_ = job.keys ? 32 / (8 * shape_->units) : 1;
    base_ = tile_base_ = unit_ = job.c.wgt;
}

uint32_t WeightFetch::units() const {
    const uint32_t tile = 8 * shape_->units;
    if (job_->keys) return job_->bytes ? 2 * tile : 4 * tile;
    if (job_->values) return job_->bytes ? kByteUnit : job_->dim_blocks() * kHalfUnit;
    return job_->tile_units;
}

void WeightFetch::tile_done(uint64_t part_units) {
    block_ = 0;
    const bool part_last = part_ + 1 == parts_;
    if (part_last) tile_base_ += job_->c.wgt_tile;
    part_ = part_last ? 0 : part_ + 1;
    unit_ = tile_base_ + part_ * part_units;
    if (++tile_ != tiles_) return;
    tile_ = part_ = 0;
    base_ += job_->c.wgt_b;
    tile_base_ = unit_ = base_;
    active_ = ++batch_ != job_->c.batch;
}

void WeightFetch::step(Clock& clock) {
    if (!active_ || !port_->ready(clock.now())) return;
    const uint32_t block_units = job_->bytes ? kByteUnit : kHalfUnit;
    if (job_->bytes && !exponents_) {
        exponents_ = true;
        const uint64_t unit = tile_base_ + job_->dim_blocks() * block_units + block_ * kExponentUnits;
        port_->ask(clock, unit * kUnitBytes, kExponentUnits);
        return;
    }
    exponents_ = false;
    const uint32_t count = units();
    port_->ask(clock, unit_ * kUnitBytes, count);
    unit_ += block_units;
    ++block_;
    if (!(job_->keys || job_->bytes) || block_ == job_->dim_blocks()) tile_done(job_->keys ? count : 0);
}

// -- weight_unpack ------------------------------------------------------------------------------------------

void WeightUnpack::start(const LinearJob& job) {
    job_ = &job;
    half_ = false;
    block_ = beat_ = third_ = 0;
    begin_tile();
}

void WeightUnpack::begin_tile() {
    left_ = job_->k_blocks - 1;
    want_zero_ = job_->zero;
    want_scale_ = true;
    odd_ = false;
}

// A beat of codes. Of 6-bit codes every third slice has high bits, which are no entries.
bool WeightUnpack::unit_ends() {
    const bool high = job_->element == Element::kE2m3 && third_ == 0;
    const uint32_t last = job_->element == Element::kInt8 || job_->element == Element::kE4m3 ? 15 : 7;
    const bool ends = !high && beat_ == last;
    if (half_) third_ = third_ == 2 ? 0 : third_ + 1;
    half_ = !half_;
    if (!high) beat_ = ends ? 0 : beat_ + 1;
    if (ends) third_ = 0;
    return ends;
}

int32_t WeightUnpack::step(Clock& clock) {
    const uint64_t now = clock.now();
    if (!port_->valid(now) || units_->room(now) <= 0) return 0;
    port_->take(clock);
    if (want_zero_) {
        want_zero_ = false;
        return 0;
    }
    if (want_scale_) {
        want_scale_ = false;
        return 0;
    }
    if (!unit_ends()) return 0;
    units_->push(now, 1);
    const bool group_last = ++block_ == job_->group_blocks;
    if (left_ == 0) {
        block_ = 0;
        begin_tile();
        return 1;
    }
    --left_;
    if (!group_last) return 1;
    block_ = 0;
    want_zero_ = job_->zero && odd_;
    want_scale_ = !job_->e8m0 || odd_;
    odd_ = !odd_;
    return 1;
}

// -- kv_unpack ----------------------------------------------------------------------------------------------

void KvUnpack::start(const LinearJob& job) {
    job_ = &job;
    tile_ = 8 * shape_->units;
    parts_ = 32 / tile_;
    byte_parts_ = shape_->units == 1 ? 2 : 1;
    wanted_ = job.values ? static_cast<int32_t>(parts_) : 1;
    part_ = token_ = count_ = group_ = 0;
    exponents_ = upper_ = false;
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
    if (bytes ? byte_parts_ == 1 : parts_ == 1) paused_ = now + 1;
    upper_ = bytes && shape_->units == 4 && !upper_;
    if (++token_ != (job_->values ? 32 : tile_)) return;
    token_ = 0;
    exponents_ = false;
    claimed_.add(now, wanted_);
}

void KvUnpack::take(Clock& clock) {
    const uint64_t now = clock.now();
    const bool bytes = job_->bytes, exponents = bytes && !exponents_;
    // A beat of 64 bytes has two tokens of an MXINT8 cache, and goes with the second.
    if (shape_->units != 4 || !bytes || exponents || upper_) port_->take(clock);
    clock.act();
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

}  // namespace dlavm::timed
