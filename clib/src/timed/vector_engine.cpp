#include "timed/vector_engine.h"

#include <algorithm>

namespace dlavm::timed {

namespace {

using isa::Opcode;
using vector::Kind;
using vector::Phase;
using vector::Range;
using vector::Store;

template <class Fields>
void two_levels(VectorJob& job, const Fields& c) {
    job.src = c.src;
    job.src_so = c.src_so;
    job.src_si = c.src_si;
    job.dst = c.dst;
    job.dst_so = c.dst_so;
    job.dst_si = c.dst_si;
    job.rows_o = c.rows_o;
    job.rows_i = c.rows_i;
}

VectorJob job_of(const isa::Norm& c) {
    VectorJob job;
    two_levels(job, c);
    const bool layer = c.norm == isa::NormKind::kLayer;
    job.row = layer ? (c.use_beta ? vector::kLayerBeta : vector::kLayer)
                    : (c.use_beta ? vector::kRmsBeta : vector::kRms);
    job.vector0 = c.gamma;
    job.vector1 = c.beta;
    job.dim = c.dim;
    return job;
}

VectorJob job_of(const isa::Softmax& c) {
    VectorJob job;
    two_levels(job, c);
    job.row = c.use_slopes ? vector::kSoftmaxSlope : vector::kSoftmax;
    job.batch = c.batch;
    job.src_b = c.src_b;
    job.dst_b = c.dst_b;
    job.visible = c.visible;
    job.window = c.window;
    job.first = c.recip;
    job.vector0 = c.slopes;
    job.dim = c.width;
    return job;
}

VectorJob job_of(const isa::Rope& c) {
    VectorJob job;
    two_levels(job, c);
    job.row = c.form == isa::RopeForm::kInterleaved ? vector::kPairs : vector::kHalves;
    job.rot = c.rot;
    job.other = c.table;
    job.other_so = c.table_so;
    job.dim = c.dim;
    return job;
}

VectorJob job_of(const isa::Act& c) {
    VectorJob job;
    two_levels(job, c);
    job.row = vector::kAct;
    job.dim = c.dim;
    return job;
}

VectorJob job_of(const isa::Eltwise& c) {
    VectorJob job;
    two_levels(job, c);
    job.row = c.fn == isa::EltwiseFn::kAdd   ? vector::kAdd
              : c.fn == isa::EltwiseFn::kMul ? vector::kMul
                                             : vector::kScale;
    job.other = c.b;
    job.other_so = c.b_so;
    job.other_si = c.b_si;
    job.dim = c.dim;
    return job;
}

VectorJob job_of(const isa::Argmax& c) {
    VectorJob job;
    job.row = vector::kArgmax;
    job.src = c.src;
    job.src_so = c.src_so;
    job.rows_o = c.rows_o;
    job.dim = c.n;
    job.first = c.dst;
    return job;
}

VectorJob job_of(const isa::Topk& c) {
    VectorJob job;
    job.row = c.renormalize ? vector::kTopkShare : vector::kTopk;
    job.src = c.src;
    job.src_so = c.src_so;
    job.rows_o = c.rows_o;
    job.dim = c.n;
    job.k = c.k;
    job.first = c.ids;
    job.second = c.weights;
    return job;
}

VectorJob job_of(const isa::Permute& c) {
    VectorJob job;
    two_levels(job, c);
    job.row = vector::kPermute;
    job.permute = true;
    job.vector0 = c.index;
    job.dim = c.dim;
    return job;
}

}  // namespace

namespace {

VectorJob job_of(const Command& command) {
    switch (static_cast<Opcode>(command.opcode)) {
        case Opcode::kNorm:
            return job_of(decoded<isa::Norm>(command));
        case Opcode::kSoftmax:
            return job_of(decoded<isa::Softmax>(command));
        case Opcode::kRope:
            return job_of(decoded<isa::Rope>(command));
        case Opcode::kAct:
            return job_of(decoded<isa::Act>(command));
        case Opcode::kEltwise:
            return job_of(decoded<isa::Eltwise>(command));
        case Opcode::kArgmax:
            return job_of(decoded<isa::Argmax>(command));
        case Opcode::kTopk:
            return job_of(decoded<isa::Topk>(command));
        default:
            return job_of(decoded<isa::Permute>(command));
    }
}

// Log2 of the rows that go in turns: as many as have accumulators, or, where none are needed, as fit a strip.
uint32_t group_of(const VectorJob& job, uint32_t lanes) {
    const vector::Groups groups = vector::groups(job.row);
    const uint32_t span = job.row == vector::kHalves ? job.dim / 2 : job.dim;
    if (groups == vector::Groups::kMaps)
        return span <= 2 * lanes ? 3 : span <= 4 * lanes ? 2 : span <= 8 * lanes ? 1 : 0;
    if (groups == vector::Groups::kReduces) return lanes >= 64 ? 3 : lanes >= 32 ? 2 : lanes >= 16 ? 1 : 0;
    return 0;
}

// Inner rows go in turns. Where there is one of them the outer rows, or the row sets of a softmax, become
// inner.
void take_in_turns(VectorJob& job) {
    const bool softmax = job.row == vector::kSoftmax;
    const bool rotary = job.row == vector::kHalves || job.row == vector::kPairs;
    const bool sets = softmax && job.rows_o == 1;
    if (job.rows_i != 1 || vector::groups(job.row) == vector::Groups::kAlone || rotary) return;
    if (!sets && job.window != 0) return;
    job.rows_i = sets ? job.batch : job.rows_o;
    job.rows_o = 1;
    job.src_si = sets ? job.src_b : job.src_so;
    job.dst_si = sets ? job.dst_b : job.dst_so;
    job.other_si = job.other_so;
    job.stagger = softmax && !sets;
    if (sets) job.batch = 1;
}

}  // namespace

VectorJob vector_job(const Command& command, uint32_t lanes) {
    VectorJob job = job_of(command);
    job.group = group_of(job, lanes);
    take_in_turns(job);
    return job;
}

// -- vector_rows --------------------------------------------------------------------------------------------

void VectorRows::start(const VectorJob& job) {
    const uint64_t base[3] = {job.src, job.dst, job.other};
    for (int k = 0; k < 3; ++k) at_[k] = outer_[k] = batch_[k] = base[k];
    inner_count_ = outer_count_ = batch_count_ = slope_ = batch_slope_ = 0;
    visible_ = job.visible;
}

uint32_t VectorRows::group(const VectorJob& job) const {
    const uint32_t left = job.rows_i - inner_count_;
    const uint32_t group = std::min(job.group, left >= 8 ? 3u : left >= 4 ? 2u : left >= 2 ? 1u : 0u);
    return job.stagger && visible_ + (1u << group) > job.dim + 1 ? 0 : group;
}

bool VectorRows::last(const VectorJob& job) const {
    return inner_count_ + (1u << group(job)) == job.rows_i && outer_count_ + 1 == job.rows_o &&
           batch_count_ + 1 == job.batch;
}

void VectorRows::next(const VectorJob& job) {
    const uint64_t inner[3] = {job.src_si, job.dst_si, job.other_si};
    const uint64_t outer[3] = {job.src_so, job.dst_so, job.other_so};
    const uint64_t batch[3] = {job.src_b, job.dst_b, 0};
    const uint32_t rows = 1u << group(job);
    inner_count_ += rows;
    if (inner_count_ != job.rows_i) {
        ++slope_;
        if (job.stagger) visible_ += rows;
        for (int k = 0; k < 3; ++k) at_[k] += rows * inner[k];
        return;
    }
    inner_count_ = 0;
    if (++outer_count_ != job.rows_o) {
        slope_ = batch_slope_;
        ++visible_;
        for (int k = 0; k < 3; ++k) at_[k] = outer_[k] += outer[k];
        return;
    }
    outer_count_ = 0;
    ++batch_count_;
    batch_slope_ = ++slope_;
    visible_ = job.visible;
    for (int k = 0; k < 3; ++k) at_[k] = outer_[k] = batch_[k] += batch[k];
}

uint32_t VectorRows::seen(const VectorJob& job) const {
    return std::min(visible_ + (job.stagger ? (1u << group(job)) - 1 : 0), job.dim);
}

uint32_t VectorRows::first(const VectorJob& job) const {
    const uint32_t seen_now = seen(job);
    return job.window != 0 && seen_now > job.window ? seen_now - job.window : 0;
}

// -- vector_sequencer ---------------------------------------------------------------------------------------

VectorEngine::VectorEngine(const Shape& shape, ReadPort& in, WritePort& out)
    : shape_(&shape), out_(&out), units_(shape, in, out) {}

void VectorEngine::begin(Clock&, const Command& command) {
    job_ = vector_job(command, shape_->lanes);
    indices_ = command.indices;
    rows_.start(job_);
    phase_ = job_.row;
    rank_ = at_ = group_ = 0;
    end_ = job_.dim;
    first_word_ = 8 * job_.first;
    second_word_ = 8 * job_.second;
    state_ = job_.permute ? State::kCheck : State::kBegin;
}

bool VectorEngine::idle(uint64_t now) const {
    return units_.permute_ready() && units_.storer_idle(now) && out_->idle(now);
}

uint32_t VectorEngine::share() const { return vector::kStrip * shape_->lanes >> group_; }

uint32_t VectorEngine::count() const { return std::min(end_ - at_, share()); }

void VectorEngine::step_busy(Clock& clock) {
    step_sequencer(clock);
    units_.step(clock, job_.permute);
}

void VectorEngine::range(const Phase& phase, uint32_t& from, uint32_t& to) const {
    const uint32_t block = rows_.first(job_) / 32 * 32, seen = rows_.seen(job_);
    from = 0;
    to = job_.dim;
    switch (phase.range) {
        case Range::kHalf:
            to = job_.rot / 2;
            break;
        case Range::kRot:
            to = job_.rot;
            break;
        case Range::kTail:
            from = job_.rot;
            break;
        case Range::kFront:
            to = block;
            break;
        case Range::kSeen:
            from = block;
            to = seen;
            break;
        case Range::kBack:
            from = seen;
            break;
        default:
            break;
    }
}

void VectorEngine::begin_phase() {
    const Phase& phase = vector::kPhases[phase_];
    group_ = rows_.group(job_);
    load_row_ = write_row_ = 0;
    first_ = work_ = true;
    loads_ = phase.loads;
    writes_ = phase.store == Store::kNothing ? 0 : phase.store == Store::kBoth ? 3 : 1;
    uint32_t from = 0, to = 2;  // the two halves of a slope
    if (phase.kind == Kind::kPass) range(phase, from, to);
    at_ = from;
    end_ = to;
    switch (phase.kind) {
        case Kind::kPass:
            if (from < to)
                state_ = State::kStrips;
            else
                ++phase_;
            break;
        case Kind::kLoop:
            phase_ = rank_ + 1 == job_.k ? phase_ + 1 : phase_ - phase.back;
            rank_ = rank_ + 1 == job_.k ? 0 : rank_ + 1;
            break;
        case Kind::kDone:
            state_ = State::kNext;
            break;
        default:
            state_ = State::kStrips;
    }
}

VectorLoad VectorEngine::load(uint32_t stream, uint32_t count) const {
    const bool pairs = job_.row == vector::kPairs, rotary = pairs || job_.row == vector::kHalves;
    const bool norm = job_.row < vector::kSoftmax;
    const uint64_t src = 8 * (rows_.at(0) + load_row_ * job_.src_si);
    const uint64_t other = 8 * (rows_.at(2) + load_row_ * job_.other_si);
    const uint64_t half = job_.rot / 2, table = other + (pairs ? at_ / 2 : at_);
    VectorLoad out;
    out.last = loads_ == 1u << stream && stream_done(stream);
    out.count = pairs && stream >= 2 ? count / 2 : count;
    switch (stream) {
        case 0:
            out.address = src + at_;
            break;
        case 1:
            if (rotary)
                out.address = src + at_ + half;
            else
                out.address = (norm ? 8 * job_.vector0 : other) + at_;
            break;
        case 2:
            out.address = rotary ? table : 8 * job_.vector1 + at_;
            break;
        default:
            out.address = rotary ? table + half : 8 * job_.vector0 + 2 * rows_.slope();
    }
    return out;
}

// Of the group's rows, with the load that is handed over now.
bool VectorEngine::stream_done(uint32_t stream) const {
    return load_row_ + 1 == 1u << group_ || (vector::kPhases[phase_].common >> stream & 1) != 0;
}

VectorWrite VectorEngine::write(uint32_t count) const {
    const Store store = vector::kPhases[phase_].store;
    if (store == Store::kFirst) return {true, first_word_, 2};
    if (store == Store::kSecond) return {true, second_word_, 2};
    const uint64_t element = 8 * (rows_.at(1) + write_row_ * job_.dst_si) + at_;
    return {false, (writes_ & 1) != 0 ? element : element + job_.rot / 2, count};
}

void VectorEngine::step_strips(Clock& clock) {
    const uint64_t now = clock.now();
    const Phase& phase = vector::kPhases[phase_];
    const bool pass = phase.kind == Kind::kPass;
    const uint32_t elements = count();
    if (loads_ != 0 && units_.loads.ready(now)) {
        const uint32_t stream = (loads_ & 1) != 0 ? 0 : (loads_ & 2) != 0 ? 1 : (loads_ & 4) != 0 ? 2 : 3;
        units_.loads.push(now, load(stream, elements));
        const bool done = stream_done(stream);
        if (done) loads_ &= loads_ - 1;
        load_row_ = done ? 0 : load_row_ + 1;
        clock.act();
    }
    if (writes_ != 0 && units_.writes.ready(now)) {
        units_.writes.push(now, write(elements));
        if (phase.store == Store::kFirst) first_word_ += 2;
        if (phase.store == Store::kSecond) second_word_ += 2;
        const bool done = write_row_ + 1 == 1u << group_;
        if (done) writes_ &= writes_ - 1;
        write_row_ = done ? 0 : write_row_ + 1;
        clock.act();
    }
    if (work_ && job_.permute && units_.permute_ready()) {
        units_.permute(false, job_.vector0 + at_ / 4, rows_.at(0), indices_.data() + at_, elements);
        work_ = false;
        clock.act();
    } else if (work_ && !job_.permute && units_.works.ready(now)) {
        const bool tree = phase.kind == Kind::kTreeAdd || phase.kind == Kind::kTreeMax;
        units_.works.push(now, {phase.program, tree, phase.loads != 0, first_ && (phase.drain || !pass),
                                first_ && pass, group_, tree ? used_ : elements});
        work_ = false;
        clock.act();
    }
    if (loads_ == 0 && writes_ == 0 && !work_) {
        clock.act();
        next_strip(elements);
    }
}

void VectorEngine::next_strip(uint32_t count) {
    const Phase& phase = vector::kPhases[phase_];
    if (first_ && phase.kind == Kind::kPass && phase.loads != 0) used_ = count;
    const bool last = end_ - at_ <= share();
    first_ = false;
    loads_ = phase.loads;
    writes_ = phase.store == Store::kNothing ? 0 : phase.store == Store::kBoth ? 3 : 1;
    work_ = true;
    at_ += share();
    if (!last) return;
    ++phase_;
    state_ = State::kBegin;
}

void VectorEngine::step_sequencer(Clock& clock) {
    const uint64_t now = clock.now();
    const State state = state_;
    if (state != State::kFinish) idle_count_ = 0;
    switch (state) {
        case State::kCheck:
            if (!units_.permute_ready()) break;
            clock.act();
            units_.permute(true, job_.vector0 + at_ / 4, 0, indices_.data() + at_, count());
            if (end_ - at_ <= share()) state_ = State::kChecked;
            at_ += share();
            break;
        case State::kChecked:
            if (!units_.permute_ready()) break;
            clock.act();
            state_ = State::kBegin;
            break;
        case State::kBegin:
            clock.act();
            begin_phase();
            break;
        case State::kStrips:
            step_strips(clock);
            break;
        case State::kNext: {
            clock.act();
            const bool last = rows_.last(job_);
            rows_.next(job_);
            phase_ = job_.row;
            state_ = last ? State::kFinish : State::kBegin;
            break;
        }
        case State::kFinish:
            if (idle_count_ == 3) {
                done_ = now;
                state_ = State::kIdle;
                idle_count_ = 0;
                clock.poke_now(Part::kQueues);
            } else if (units_.lanes_idle(clock) && idle(now)) {
                ++idle_count_;
                clock.act();
            } else {
                idle_count_ = 0;
            }
            break;
        default:
            break;
    }
}

}  // namespace dlavm::timed
