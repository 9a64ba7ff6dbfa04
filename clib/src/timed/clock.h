// What the twin of the RTL is made of: registers as the RTL's other modules see them in a cycle, whatever the
// order in which modules are stepped. A register that changed in this cycle still reads as it stood before.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dlavm::timed {

constexpr uint64_t kNever = UINT64_MAX;

// The parts of the core that are stepped apart, in this order within a cycle.
enum class Part : uint8_t { kReads, kWrites, kMatrix, kVector, kStore, kQueues, kFront, kPorts };
constexpr uint32_t kParts = 8;

// The cycle, and which parts have something to do in it. A part that changed a register of its own calls
// act() and is stepped again in the next cycle; one that waits for a time alone calls at(). One that waits
// for another part calls neither: whoever changes what another part looks at pokes it. So idle parts cost
// nothing, and where nobody has anything to do time jumps. Stepping everything in every cycle (set_all) must
// give the same.
class Clock {
  public:
    Clock() { timers_.fill(kNever); }

    uint64_t now() const { return now_; }
    void set_all(bool all) { always_ = all ? (1u << kParts) - 1 : 0; }
    bool all() const { return always_ != 0; }
    // Whether somebody looks at registers behind every step: no short way may be seen in them.
    void set_watched(bool watched) { watched_ = watched; }
    bool watched() const { return watched_; }
    bool short_ways() const { return always_ == 0 && !watched_; }

    // The next part that is to be stepped in this cycle; what follows is its doing. False: that was all.
    bool begin_next() {
        if (mask_ == 0) return false;
        current_ = static_cast<uint32_t>(__builtin_ctz(mask_));
        mask_ &= mask_ - 1;
        timers_[current_] = kNever;
        return true;
    }
    Part part() const { return static_cast<Part>(current_); }
    void act() { next_ |= 1u << current_; }
    void at(uint64_t cycle) { at(static_cast<Part>(current_), cycle); }
    // The same for a part that looks at what is there only from `cycle` on.
    void at(Part part, uint64_t cycle) {
        uint64_t& timer = timers_[static_cast<uint32_t>(part)];
        if (cycle <= now_ || cycle >= timer) return;
        timer = cycle;
        if (cycle < timer_) timer_ = cycle;
    }
    void poke(Part part) { next_ |= 1u << static_cast<uint32_t>(part); }
    // A part that comes later in this cycle.
    void poke_now(Part part) { mask_ |= 1u << static_cast<uint32_t>(part); }
    // The same of ports by their numbers, which are looked at one by one.
    void poke_port(uint32_t port) {
        ports_next_ |= 1u << port;
        poke(Part::kPorts);
    }
    void poke_port_now(uint32_t port) {
        ports_ |= 1u << port;
        poke_now(Part::kPorts);
    }
    // The same in a cycle to come. A port that waits for one is stepped whenever one of them is.
    void port_at(uint32_t port, uint64_t cycle) {
        if (cycle == kNever) return;
        ports_timed_ |= 1u << port;
        at(Part::kPorts, cycle);
    }
    uint32_t take_ports() {
        const uint32_t ports = ports_ | ports_timed_;
        ports_timed_ = 0;
        return ports;
    }

    // The next cycle in which there is something to do; kNever: nothing is on its way.
    uint64_t next() const {
        if ((next_ | always_) != 0) return now_ + 1;
        uint64_t first = kNever;
        for (const uint64_t timer : timers_) first = timer < first ? timer : first;
        return first;
    }
    // To the next cycle, if there is one.
    bool advance() {
        if ((next_ | always_) != 0 && now_ + 1 < timer_) {
            ++now_;
            mask_ = next_ | always_;
        } else if (!advance_to_timer()) {
            return false;
        }
        ports_ = always_ != 0 ? UINT32_MAX : ports_next_;
        next_ = ports_next_ = 0;
        return true;
    }
    // Past cycles in which there is nothing to do.
    void move(uint64_t cycle) { now_ = cycle; }

  private:
    // No timer is earlier than timer_, which is nearly always that of one.
    bool advance_to_timer() {
        mask_ = next_ | always_;
        while (mask_ != 0 || timer_ != kNever) {
            const uint64_t to = mask_ != 0 ? now_ + 1 : timer_;
            timer_ = kNever;
            for (uint32_t i = 0; i < kParts; ++i) {
                if (timers_[i] <= to)
                    mask_ |= 1u << i;
                else
                    timer_ = timers_[i] < timer_ ? timers_[i] : timer_;
            }
            if (mask_ == 0) continue;
            now_ = to;
            return true;
        }
        return false;
    }

    uint64_t now_ = 0;
    uint32_t mask_ = 0, next_ = 0, current_ = 0, ports_ = 0, ports_next_ = 0, always_ = 0;
    uint32_t ports_timed_ = 0;
    bool watched_ = false;
    uint64_t timer_ = 0;  // none of the timers is earlier
    std::array<uint64_t, kParts> timers_;
};

// The same for something inside a part that has little to do in most of the part's steps. `next`: when it
// has.
class Pace {
  public:
    uint64_t now() const { return now_; }
    uint64_t next() const { return next_; }
    bool begin(uint64_t now, bool always) {
        if (next_ > now && !always) return false;
        now_ = now;
        next_ = kNever;
        return true;
    }
    void act() { next_ = now_ + 1; }
    void at(uint64_t cycle) {
        if (cycle > now_ && cycle < next_) next_ = cycle;
    }
    void poke(uint64_t now) {  // what it looks at is another in the next cycle
        if (now + 1 < next_) next_ = now + 1;
    }
    void sleep(uint64_t until) { next_ = until; }

  private:
    uint64_t now_ = 0, next_ = 0;
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

// What will be added to a counter: one in each of `left` cycles from `from` on.
struct Ramp {
    uint64_t from = 0;
    int32_t left = 0;
    // How many show in a cycle; from which cycle on the `count`th (1: the first one) does, if there is one.
    int32_t seen(uint64_t now) const {
        if (now <= from) return 0;
        return now - from < static_cast<uint64_t>(left) ? static_cast<int32_t>(now - from) : left;
    }
    uint64_t shows(int32_t count) const {
        return count > left ? kNever : from + static_cast<uint64_t>(count);
    }
    // Moves what shows in a cycle to a counter that nobody has changed in it yet.
    void settle(uint64_t now, Count& count, int32_t change = 1) {
        const int32_t seen = this->seen(now);
        if (seen == 0) return;
        from += static_cast<uint64_t>(seen);
        left -= seen;
        count.add(from - 1, seen * change);
    }
};

// The same where there are gaps: runs of cycles.
class Ramps {
  public:
    bool empty() const { return in_ == out_; }
    // How many show in a cycle; from which cycle on the `count`th does, if there is one.
    int32_t seen(uint64_t now) const {
        int32_t seen = 0;
        for (uint32_t i = out_; i != in_ && run(i).from < now; ++i) seen += run(i).seen(now);
        return seen;
    }
    uint64_t shows(int32_t count) const {
        for (uint32_t i = out_; i != in_; count -= run(i++).left)
            if (count <= run(i).left) return run(i).shows(count);
        return kNever;
    }
    // Those of the first run that do not show in a cycle; none: an empty one.
    Ramp coming(uint64_t now) const {
        for (uint32_t i = out_; i != in_; ++i) {
            const int32_t seen = run(i).seen(now);
            if (seen != run(i).left) return {run(i).from + static_cast<uint64_t>(seen), run(i).left - seen};
        }
        return {};
    }
    int32_t room() const { return static_cast<int32_t>(kRuns - (in_ - out_)); }  // for runs
    // One in each of `count` cycles behind all others.
    void add(uint64_t from, int32_t count) {
        if (!empty() && last().from + static_cast<uint64_t>(last().left) == from)
            last().left += count;
        else
            runs_[in_++ % kRuns] = {from, count};
    }
    // Moves what shows to two counters, whose sum stays.
    void settle(uint64_t now, Count& up, Count& down) {
        while (!empty() && runs_[out_ % kRuns].from < now) {
            Ramp& first = runs_[out_ % kRuns];
            Ramp same = first;
            same.settle(now, down, -1);
            first.settle(now, up);
            if (first.left != 0) return;
            ++out_;
        }
    }

  private:
    static constexpr uint32_t kRuns = 32;
    const Ramp& run(uint32_t number) const { return runs_[number % kRuns]; }
    Ramp& last() { return runs_[(in_ - 1) % kRuns]; }
    std::array<Ramp, kRuns> runs_{};
    uint32_t in_ = 0, out_ = 0;
};

// What a queue counts: a word shows itself a cycle after it went in. At most one goes in and one out in a
// cycle.
class FifoCount {
  public:
    uint32_t count(uint64_t now) const {
        return in_ - out_ - static_cast<uint32_t>(pushed_ == now) + static_cast<uint32_t>(popped_ == now);
    }
    bool valid(uint64_t now) const {
        if (in_ == out_) return popped_ == now;
        return in_ != out_ + 1 || pushed_ != now || popped_ == now;
    }
    bool empty() const { return in_ == out_; }
    uint32_t size() const { return in_ - out_; }
    void pop(uint64_t now) {
        ++out_;
        popped_ = now;
    }

  protected:
    uint32_t push(uint64_t now) {  // where the word goes
        pushed_ = now;
        return in_++;
    }
    uint32_t first() const { return out_; }

  private:
    uint32_t in_ = 0, out_ = 0;
    uint64_t pushed_ = kNever, popped_ = kNever;
};

// fifo.sv
template <class T, uint32_t kDepth>
class Fifo : public FifoCount {
    static_assert((kDepth & (kDepth - 1)) == 0, "a power of two");

  public:
    bool ready(uint64_t now) const { return count(now) != kDepth; }
    bool full() const { return size() == kDepth; }
    T& front() { return items_[first() % kDepth]; }
    const T& front() const { return items_[first() % kDepth]; }
    void push(uint64_t now, const T& item) { items_[FifoCount::push(now) % kDepth] = item; }
    const T& at(uint32_t place) const { return items_[(first() + place) % kDepth]; }
    T& at(uint32_t place) { return items_[(first() + place) % kDepth]; }

  private:
    std::array<T, kDepth> items_{};
};

// The same of a depth that the constructor states; its places stand apart.
template <class T>
class DeepFifo : public FifoCount {
  public:
    explicit DeepFifo(uint32_t depth) : depth_(depth) {
        size_t places = 1;
        while (places < depth) places *= 2;
        items_.resize(places);
        mask_ = static_cast<uint32_t>(places - 1);
    }
    bool ready(uint64_t now) const { return count(now) != depth_; }
    const T& front() const { return items_[first() & mask_]; }
    const T& last() const { return items_[(first() + size() - 1) & mask_]; }
    void push(uint64_t now, const T& item) { items_[FifoCount::push(now) & mask_] = item; }

  private:
    std::vector<T> items_;
    uint32_t mask_ = 0, depth_;
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
    // All marks `cycles` later. How far each is away from `now`, behind their number.
    void shift(uint64_t cycles) {
        for (uint32_t i = out_; i != in_; ++i) cycles_[i % kDepth] += cycles;
    }
    template <class Word>
    void append(Word& out, uint64_t now) const {
        out.push_back(size());
        for (uint32_t i = out_; i != in_; ++i) out.push_back(cycles_[i % kDepth] - now);
    }

  private:
    static_assert((kDepth & (kDepth - 1)) == 0, "a power of two");
    std::array<uint64_t, kDepth> cycles_{};
    uint32_t in_ = 0, out_ = 0;
};

}  // namespace dlavm::timed
