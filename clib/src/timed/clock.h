// What the twin of the RTL is made of: registers as the RTL's other modules see them in a cycle, whatever the
// order in which modules are stepped. A register that changed in this cycle still reads as it stood before.
#pragma once

#include <array>
#include <cstdint>

namespace dlavm::timed {

constexpr uint64_t kNever = UINT64_MAX;

// The cycle, and the next one in which anything can happen. A module that changed a register calls act(); one
// that waits for a time alone calls at(); one that waits for another module calls neither, because that one
// will act. So where nobody acts, time jumps.
class Clock {
  public:
    uint64_t now() const { return now_; }
    void act() { wake_ = now_ + 1; }
    void at(uint64_t cycle) {
        if (cycle > now_ && cycle < wake_) wake_ = cycle;
    }
    uint64_t wake() const { return wake_; }
    // To the next cycle in which something can happen; false: never.
    bool advance() {
        if (wake_ == kNever) return false;
        now_ = wake_;
        wake_ = kNever;
        return true;
    }
    // A cycle on, whether or not something happens there.
    void tick() {
        ++now_;
        wake_ = kNever;
    }

  private:
    uint64_t now_ = 0, wake_ = kNever;
};

// A counter; what was added in this cycle shows in the next.
class Count {
  public:
    explicit Count(int32_t value = 0) : value_(value) {}
    int32_t at(uint64_t now) const { return stamp_ == now ? value_ - change_ : value_; }
    int32_t next() const { return value_; }  // in the next cycle, as far as is known
    void add(uint64_t now, int32_t change) {
        if (stamp_ != now) {
            stamp_ = now;
            change_ = 0;
        }
        value_ += change;
        change_ += change;
    }
    void set(int32_t value) {  // at once: between commands
        value_ = value;
        stamp_ = kNever;
    }

  private:
    int32_t value_, change_ = 0;
    uint64_t stamp_ = kNever;
};

// fifo.sv: a word shows itself a cycle after it went in. At most one goes in and one out in a cycle.
template <class T, uint32_t kDepth>
class Fifo {
    static_assert((kDepth & (kDepth - 1)) == 0, "a power of two");

  public:
    uint32_t count(uint64_t now) const {
        return in_ - out_ - static_cast<uint32_t>(pushed_ == now) + static_cast<uint32_t>(popped_ == now);
    }
    bool valid(uint64_t now) const { return count(now) != 0; }
    bool ready(uint64_t now) const { return count(now) != kDepth; }
    T& front() { return items_[out_ % kDepth]; }
    const T& front() const { return items_[out_ % kDepth]; }
    void push(uint64_t now, const T& item) {
        items_[in_++ % kDepth] = item;
        pushed_ = now;
    }
    void pop(uint64_t now) {
        ++out_;
        popped_ = now;
    }
    bool empty() const { return in_ == out_; }

  private:
    std::array<T, kDepth> items_{};
    uint32_t in_ = 0, out_ = 0;
    uint64_t pushed_ = kNever, popped_ = kNever;
};

// A pipeline of fixed length: marks come out at the cycles that were stated when they went in, in order.
template <uint32_t kDepth>
class Pipeline {
  public:
    bool due(uint64_t now) const { return in_ != out_ && cycles_[out_ % kDepth] == now; }
    uint64_t next() const { return in_ != out_ ? cycles_[out_ % kDepth] : kNever; }
    void push(uint64_t cycle) { cycles_[in_++ % kDepth] = cycle; }
    void pop() { ++out_; }
    uint32_t size() const { return in_ - out_; }
    void clear() { out_ = in_; }

  private:
    static_assert((kDepth & (kDepth - 1)) == 0, "a power of two");
    std::array<uint64_t, kDepth> cycles_{};
    uint32_t in_ = 0, out_ = 0;
};

}  // namespace dlavm::timed
