// The cycles in which the beats of a port are there, in order and at most one in each: kept as stretches of
// one a cycle, of which there are few.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "timing/ring.h"

namespace dlavm::timing {

class Beats {
  public:
    bool empty() const { return stretches_.empty(); }
    size_t size() const { return size_; }
    uint64_t front() const { return stretches_.front().cycle; }
    // So many, one a cycle, from `cycle` on or from behind the last one.
    void add(uint64_t cycle, uint32_t count) {
        const uint64_t first = std::max(cycle, next_);
        if (first == next_ && !empty())
            stretches_.back().count += count;
        else
            stretches_.push_back({first, count});
        next_ = first + count;
        size_ += count;
    }
    // How many there are for somebody who takes one a cycle from that one on; at most so many.
    uint32_t from(uint64_t cycle, uint32_t most) const {
        uint64_t beats = 0;
        for (size_t i = 0; i < stretches_.size() && stretches_[i].cycle <= cycle + beats; ++i) {
            beats += stretches_[i].count;
            if (beats >= most) return most;
        }
        return static_cast<uint32_t>(beats);
    }
    // The cycles from `cycle` on, and before `until`, in which somebody takes the first ones, one a cycle as
    // soon as each is there. Returns how many; at most so many.
    uint32_t taken(uint64_t cycle, uint64_t until, uint32_t most, uint64_t* cycles) const {
        uint32_t beats = 0;
        for (size_t i = 0; i < stretches_.size(); ++i) {
            cycle = std::max(cycle, stretches_[i].cycle);
            for (uint64_t left = stretches_[i].count; left != 0; --left) {
                if (beats == most || cycle >= until) return beats;
                cycles[beats++] = cycle++;
            }
        }
        return beats;
    }
    void take(uint32_t count) {
        size_ -= count;
        for (;;) {
            Stretch& first = stretches_.front();
            if (count < first.count) {
                first.cycle += count;
                first.count -= count;
                return;
            }
            count -= static_cast<uint32_t>(first.count);
            stretches_.pop_front();
            if (count == 0) return;
        }
    }

  private:
    struct Stretch {
        uint64_t cycle, count;
    };
    Ring<Stretch> stretches_;
    size_t size_ = 0;
    uint64_t next_ = 0;  // behind the last one that there ever was
};

}  // namespace dlavm::timing
