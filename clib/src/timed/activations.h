// activation_load.sv, activation_feed.sv, and what takes the operands: matrix_steps.sv and matrix_control.sv.
#pragma once

#include <algorithm>
#include <vector>

#include "timed/latency.h"
#include "timed/linear.h"
#include "timed/ports.h"
#include "timed/wait.h"
#include "timed/weights.h"

namespace dlavm::timed {

// activation_load.sv
class ActivationLoad {
  public:
    explicit ActivationLoad(ReadPort& port) : port_(&port) {}
    void start(const LinearJob& job);
    bool idle() const { return !active_; }
    void free(uint64_t now, uint32_t sets) {
        used_.add(now, -static_cast<int32_t>(sets));
        freed_ = now;
    }
    bool freed(uint64_t now) const { return freed_ == now; }
    int32_t step(Clock& clock);  // sets that came in completely

  private:
    void ask(Clock& clock);

    ReadPort* port_;
    const LinearJob* job_ = nullptr;
    bool active_ = false, begin_ = false;
    uint32_t batch_ = 0, set_ = 0, sets_ = 1, row_ = 0, rows_in_ = 0;
    int64_t k_left_ = 0;
    uint64_t base_ = 0, batch_base_ = 0;
    uint64_t freed_ = kNever;
    uint64_t taken_until_ = 0;  // words were taken together up to there
    RowWalker walker_;
    Count used_;
};

// activation_feed.sv
class ActivationFeed {
  public:
    static constexpr int32_t kDepth = 4;  // operands under way
    struct Tag {
        bool result = false, release = false, single = false;  // one token
    };

    explicit ActivationFeed(const Shape& shape) : shape_(&shape) {}
    void start(const LinearJob& job);
    bool idle(uint64_t now) const { return !active_ && free_.at(now) == kDepth; }
    void push(uint64_t now, int32_t units) { units_.add(now, units); }
    void set_done(uint64_t now) { sets_.add(now, 1); }
    bool valid(uint64_t now) const { return ready_.at(now) != 0; }
    bool active() const { return active_; }
    bool ahead(uint64_t now) const { return ready_.at(now) > 1; }  // of the operand that is first
    Wait waits(uint64_t now) const;                                // for the next operand, where it is active
    const Tag& tag() const { return tags_.front(); }
    void take(uint64_t now) {
        ready_.add(now, -1);
        free_.add(now, 1);
        tags_.pop(now);
    }
    void step(Pace& pace, ActivationLoad& load);

    // For steady streams: its registers relative to `now`, without what others count; the last cycle in which
    // it waited for them; coming pairs that take as long as those under way (none where some do not); as if
    // `pairs` of them had passed in `cycles`.
    void append(std::vector<uint64_t>& out, uint64_t now) const;
    uint64_t held() const { return held_; }
    uint32_t like_pairs() const;
    void jump(uint64_t now, uint64_t cycles, uint32_t pairs);
    // Of the pair that is taken as the `number`th from now on (1: the next one): pairs of its unit from it
    // on; whether it has a result.
    uint32_t unit_left(uint32_t number) const { return unit_pairs() - place(number) % unit_pairs(); }
    bool has_result(uint32_t number) const;

  private:
    static constexpr uint32_t kUnits = 16;  // that are jumped over at most
    uint32_t unit_pairs() const { return (job_->rows + 1) / 2; }
    // Of the same pair, from the beginning of the unit before the one that is fed.
    uint32_t place(uint32_t number) const { return unit_pairs() + row_ / 2 + number - 1 - tags_.size(); }
    bool lonely() const { return row_ + 1 >= job_->rows; }  // the pair has one token
    void pair_done(uint64_t now, ActivationLoad& load);

    const Shape* shape_;
    const LinearJob* job_ = nullptr;
    bool active_ = false, second_ = false;
    uint32_t batch_ = 0, outer_ = 0, inner_ = 0, row_ = 0, outer_count_ = 1, inner_count_ = 1;
    // Values: the block of 32 columns and the head, blocks of the head from this tile on.
    uint32_t part_ = 0, head_ = 0, parts_left_ = 0;
    Count units_, sets_, free_, ready_;
    uint64_t held_ = 0;
    Fifo<Tag, kDepth> tags_;
    Pipeline<16> operands_;
};

// matrix_steps.sv, matrix_control.sv: a block that has begun is never stopped, so that all that follows has
// its cycle.
class MatrixArray {
  public:
    explicit MatrixArray(const Shape& shape) : shape_(&shape) {}
    void start(const LinearJob& job);
    bool idle(uint64_t now) const { return !running_ && under_way_.at(now) == 0; }
    // A block of results has left in `cycle`, which is this one or one before it.
    void result_free(uint64_t now, uint64_t cycle) {
        room_.add(cycle, 1);
        freed_ = now;
    }
    bool freed(uint64_t now) const { return freed_ == now; }
    bool full() const { return room_.next() <= 0; }  // of results, as far as is known
    void step(Pace& pace, ActivationFeed& feed);

    Wait waits(uint64_t now, const ActivationFeed& feed) const;

    // What comes out of blocks that were taken: units that are free, and blocks' results, of which only who
    // waits for one need look in its cycle.
    void step_ends(Clock& clock, UnitBuffer& units);
    uint64_t next_result() const { return results_.next(); }
    template <class Action>
    void each_result(uint64_t end, Action action) {  // those that are there before `end`
        for (; results_.next() < end; results_.pop()) action(results_.next());
    }

    // For steady streams, as those of the feed. A jump is one from the cycle in which a block was taken.
    bool took(uint64_t now) const { return took_ == now; }
    uint64_t held() const { return held_; }
    void append(std::vector<uint64_t>& out, uint64_t now) const;
    uint64_t pair_cycles() const { return entries_ * turns_; }
    void release_at(uint64_t cycle) { releases_.push(cycle + latency::kRelease); }
    uint32_t results_room() const {  // for as many results there is room, whatever comes
        const int32_t room = std::min(room_.next(), static_cast<int32_t>(kResults / 2 - results_.size()));
        return static_cast<uint32_t>(std::max(room, 0));
    }
    void result_at(uint64_t now, uint64_t taken) {  // of a pair of two tokens
        room_.add(now, -1);
        results_.push(last_row(taken, turns_));
    }
    void jump(uint64_t cycles) { retires_.shift(cycles); }

  private:
    static constexpr uint32_t kResults = 128;  // that are under way at most
    void take(uint64_t now, ActivationFeed& feed);
    // Where the last row of a block comes out that is taken in a cycle. The rows of the first half begin when
    // that half ends.
    uint64_t last_row(uint64_t taken, uint64_t turns) const {
        const uint32_t halves = shape_->halves;
        return taken + latency::kFirstRow + 4 * halves - 1 + latency::kSum - (halves - 1) * turns;
    }

    const Shape* shape_;
    uint64_t turns(const ActivationFeed::Tag& tag) const { return tag.single ? turns_of_single_ : turns_; }

    uint32_t entries_ = 8;                      // of a unit that meet an operand
    uint64_t turns_ = 1, turns_of_single_ = 1;  // at each, for two tokens and for one
    bool running_ = false;
    uint64_t take_at_ = 0, took_ = kNever, freed_ = kNever, held_ = 0;
    Count room_, under_way_;
    Pipeline<32> releases_, retires_;
    Pipeline<kResults> results_;
};

}  // namespace dlavm::timed
