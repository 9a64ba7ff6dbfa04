#include "timed/vector_units.h"

#include <algorithm>

namespace dlavm::timed {

VectorUnits::VectorUnits(const Shape& shape, ReadPort& in, WritePort& out)
    : shape_(&shape), in_(&in), out_(&out) {
    summed_.fill(-1000);
}

void VectorUnits::step(Clock& clock, bool permute_job) {
    const bool load_bank_full = full_[load_bank_], strip_ready = full_[work_bank_];
    strip_loaded_ = strip_done_ = false;
    step_lanes(clock);
    step_storer(clock);
    if (permute_job) {
        step_permute(clock);
    } else {
        step_loader(clock, load_bank_full);
        step_issue(clock, strip_ready);
    }
    if (strip_loaded_) {
        full_[load_bank_] = true;
        load_bank_ ^= 1;
    }
    if (strip_done_) {
        full_[work_bank_] = false;
        work_bank_ ^= 1;
    }
}

// -- vector_loader ------------------------------------------------------------------------------------------

void VectorUnits::step_loader(Clock& clock, bool bank_full) {
    const uint64_t now = clock.now();
    if (flights_.valid(now)) load_words(clock, bank_full);
    if (loads.valid(now) && flights_.ready(now) && in_->ready(now)) {
        const VectorLoad& load = loads.front();
        const auto offset = static_cast<uint32_t>(load.address % 8);
        in_->ask(clock, load.address / 8 * kUnitBytes, divided_up(load.count + offset, 8),
                 loads.size() > 1 || !clock.short_ways());
        flights_.push(now, {offset, load.count, load.last});
        loads.pop(now);
    }
}

// A word a cycle. Where a strip starts inside a unit its last chunk may need no further word.
void VectorUnits::load_words(Clock& clock, bool bank_full) {
    const uint64_t now = clock.now();
    const Flight& head = flights_.front();
    const uint32_t lanes = shape_->lanes, words_of_beat = divided(shape_->units * 8, lanes);
    const uint32_t words = divided_up(head.count + head.offset, lanes),
                   chunks = divided_up(head.count, lanes);
    bool done = false;
    if (words_taken_ == words) {
        done = true;
        clock.act();
    } else if (in_->valid(now) && !bank_full) {
        const bool last = words_taken_ + 1 == words;
        if (last || word_ == words_of_beat - 1) {
            in_->take(clock, false);
            word_ = 0;
        } else {
            ++word_;
        }
        done = last && (head.offset == 0 || chunks != words);
        ++words_taken_;
        // Else there is nothing to be done until the next word comes.
        const bool more = done ? head.last || !loads.empty() : last || word_ != 0;
        if (more || in_->goes_on(now) || !clock.short_ways()) clock.act();
    }
    if (!done) return;
    words_taken_ = 0;
    strip_loaded_ = head.last;
    flights_.pop(now);
}

// -- vector_issue -------------------------------------------------------------------------------------------

bool VectorUnits::lanes_idle(Clock& clock) const {
    const uint64_t now = clock.now();
    if (works.valid(now)) return false;
    const auto idle_from = static_cast<uint64_t>(std::max<int64_t>(last_issue_ + vector::kOutLatency + 1, 0));
    clock.at(idle_from);
    return now >= idle_from;
}

// Cycles that have to pass since the last issue.
uint64_t VectorUnits::gap(const VectorWork& work, const vector::Step& step, uint32_t columns) const {
    const uint32_t rows = 1u << work.group;
    const uint32_t latency = step.reads_sent ? vector::kOutLatency : vector::kLatency;
    const bool starting = !begun_ && chunk_ == 0;
    if (chunk_ != 0 || (starting && !work.drain && !work.tree)) return 1;
    uint32_t between = columns * rows - 1;
    if (starting)
        between = rows - 1;
    else if (step.accumulates && !work.tree)
        between = rows - 1 + columns - 1;
    return latency > between ? latency - between : 1;
}

// Of the accumulators, whose rows come in turns.
uint32_t VectorUnits::slot(const VectorWork& work) const {
    const uint32_t slots = divided(vector::kVirtual, shape_->lanes), column = chunk_ >> work.group;
    return (chunk_ & ((1u << work.group) - 1)) * slots + remainder(column, slots);
}

// No element went to the accumulator yet.
bool VectorUnits::fresh(const VectorWork& work) const {
    return work.first && chunk_ >> work.group < divided(vector::kVirtual, shape_->lanes);
}

// The step of the work that is issued next; `columns`: chunks of a row.
vector::Step VectorUnits::next_step(const VectorWork& work, uint32_t& columns) const {
    if (!work.tree) {
        columns = divided(work.count - 1, shape_->lanes) % 16 + 1;
        return vector::kSteps[begun_ ? step_at_ : work.start];
    }
    columns = std::max(1u, divided(vector::kVirtual / 2 >> level_, shape_->lanes));
    return {true, false, vector::Step::kElsewhere, level_ == 6};
}

// The first cycle from `from` on in which nothing but room for what comes out can keep the step waiting.
uint64_t VectorUnits::issue_from(const VectorWork& work, const vector::Step& step, uint32_t columns,
                                 uint64_t from) const {
    const int64_t due = last_issue_ + static_cast<int64_t>(gap(work, step, columns));
    auto cycle = std::max(static_cast<int64_t>(from), due);
    if (!step.accumulates || work.tree || fresh(work)) return static_cast<uint64_t>(cycle);
    const int64_t before = std::max<int64_t>(summed_[slot(work)], 0);
    cycle = std::max<int64_t>(cycle, before + vector::kSumLatency);
    if (cycle > before + vector::kSumLatency) cycle = std::max<int64_t>(cycle, before + vector::kLatency);
    return static_cast<uint64_t>(cycle);
}

// A work that has begun is not stopped but for room. So all but its last issue may be done before their
// cycles.
void VectorUnits::step_issue(Clock& clock, bool strip_ready) {
    const uint64_t now = clock.now();
    if (!works.valid(now)) return;
    if (now < issue_at_) return clock.at(issue_at_);
    const VectorWork& work = works.front();
    if (!begun_ && chunk_ == 0 && work.loads && !strip_ready) return;
    uint64_t cycle = now;
    for (;; ++cycle) {
        uint32_t columns = 0;
        const vector::Step step = next_step(work, columns);
        const uint32_t last = (columns << work.group) - 1;
        cycle = issue_from(work, step, columns, cycle);
        const bool ends = step.last && chunk_ == last;
        const int32_t outs = cycle == now ? outs_due_.at(now) : outs_due_.next(),
                      words = cycle == now ? words_due_.at(now) : words_due_.next();
        if ((step.to == vector::Step::kOut && outs == kOuts) ||
            (step.to == vector::Step::kWord && words == kAnswers) ||
            (cycle != now && (ends || !clock.short_ways())))
            break;
        issued(now, cycle, work, step, last);
        if (ends || !clock.short_ways()) clock.act();
        if (ends) {
            strip_done_ = work.loads;
            works.pop(now);
            break;
        }
        // Nobody waits for what stays in the lanes: one chunk a cycle, up to the last one.
        if (chunk_ == 0 || step.accumulates || step.to != vector::Step::kElsewhere || !clock.short_ways())
            continue;
        last_issue_ += last - chunk_;
        chunk_ = last;
    }
    issue_at_ = cycle;
    clock.at(cycle);
    clock.at(outs_made_.next());
    clock.at(words_made_.next());
}

void VectorUnits::issued(uint64_t now, uint64_t cycle, const VectorWork& work, const vector::Step& step,
                         uint32_t last) {
    last_issue_ = static_cast<int64_t>(cycle);
    if (step.accumulates) summed_[slot(work)] = last_issue_;
    if (step.to == vector::Step::kOut) {
        outs_due_.add(now, 1);
        outs_made_.push(cycle + vector::kOutStage);
    } else if (step.to == vector::Step::kWord) {
        words_due_.add(now, 1);
        words_made_.push(cycle + vector::kWordStage);
    }
    if (chunk_ != last) {
        ++chunk_;
        return;
    }
    chunk_ = 0;
    step_at_ = (begun_ ? step_at_ : work.start) + 1;
    begun_ = !step.last;
    level_ = step.last ? 0 : level_ + static_cast<uint32_t>(work.tree);
}

void VectorUnits::step_lanes(Clock& clock) {
    const uint64_t now = clock.now();
    if (outs_made_.due(now)) {
        outs_made_.pop();
        outs_.add(now, 1);
        clock.act();
    }
    if (words_made_.due(now)) {
        words_made_.pop();
        answers_.add(now, 1);
        clock.act();
    }
    clock.at(outs_made_.next());
    clock.at(words_made_.next());
}

// -- vector_storer ------------------------------------------------------------------------------------------

void VectorUnits::step_storer(Clock& clock) {
    const uint64_t now = clock.now();
    const bool sends = beat_ && out_->data_ready(now);
    if (sends) {
        out_->put(clock);
        clock.act();
    }
    const bool beat_stays = beat_ && !sends;
    if (!writes.valid(now)) {
        beat_ = beat_stays;
        return;
    }
    const VectorWrite& write = writes.front();
    const uint32_t lanes = shape_->lanes, words_of_beat = divided(shape_->units * 8, lanes);
    const uint32_t halves = write.count + static_cast<uint32_t>(write.address % 8);
    const uint32_t words = divided_up(halves, lanes), chunks = divided_up(write.count, lanes);
    const bool flush = stored_ == chunks;
    const bool source = flush || (write.word ? answers_ : outs_).at(now) != 0;
    if (!asked_) {
        if (out_->ready(now)) {
            out_->ask(clock, write.address / 8 * kUnitBytes, divided_up(halves, 8));
            asked_ = true;
        }
        beat_ = beat_stays;
        return;
    }
    if (!source || beat_stays) {
        beat_ = beat_stays;
        return;
    }
    clock.act();
    if (!flush && write.word) {
        answers_.add(now, -1);
        words_due_.add(now, -1);
    } else if (!flush) {
        outs_.add(now, -1);
        outs_due_.add(now, -1);
    }
    const bool last = stored_ + 1 == words;
    stored_ = last ? 0 : stored_ + 1;
    beat_ = last || store_word_ == words_of_beat - 1;
    store_word_ = beat_ ? 0 : store_word_ + 1;
    if (!last) return;
    asked_ = false;
    writes.pop(now);
}

// -- vector_permute -----------------------------------------------------------------------------------------

void VectorUnits::permute(bool check, uint64_t index_unit, uint64_t src_unit, const uint32_t* indices,
                          uint32_t count) {
    next_job_ = {check, index_unit, src_unit, indices, count};
    has_next_job_ = true;
}

// A beat of indices or an element; true: the last.
bool VectorUnits::permute_take(Clock& clock) {
    in_->take(clock);
    came_ += permute_ == Permute::kIndices ? 4 * shape_->units : 1;
    return came_ >= job_.count;
}

void VectorUnits::permute_elements(Clock& clock) {
    const uint64_t now = clock.now();
    const bool out_ready = outs_.at(now) != kOuts;
    const bool sends = chunk_full_ && out_ready;
    if (sends) {
        outs_.add(now, 1);
        clock.act();
    }
    chunk_full_ = chunk_full_ && !sends;
    if (permute_ != Permute::kElements) return;
    if (asked_elements_ != job_.count && places_.at(now) != 16 && in_->ready(now)) {
        in_->ask(clock, (job_.src_unit + job_.indices[asked_elements_] / 8) * kUnitBytes, 1);
        ++asked_elements_;
        places_.add(now, 1);
    }
    if (!in_->valid(now) || places_.at(now) == 0 || chunk_full_) return;
    const bool last = permute_take(clock);
    places_.add(now, -1);
    chunk_full_ = last || remainder(came_, shape_->lanes) == 0;
    if (last) permute_ = Permute::kIdle;
}

void VectorUnits::step_permute(Clock& clock) {
    const uint64_t now = clock.now();
    permute_elements(clock);
    switch (permute_) {
        case Permute::kAsk:
            if (!in_->ready(now)) break;
            in_->ask(clock, job_.index_unit * kUnitBytes, divided_up(job_.count, 4));
            permute_ = Permute::kIndices;
            break;
        case Permute::kIndices:
            if (!in_->valid(now) || !permute_take(clock)) break;
            came_ = 0;
            permute_ = job_.check ? Permute::kIdle : Permute::kElements;
            break;
        default:
            break;
    }
    if (!has_next_job_) return;
    has_next_job_ = false;
    job_ = next_job_;
    asked_elements_ = came_ = 0;
    permute_ = Permute::kAsk;
    clock.act();
}

}  // namespace dlavm::timed
