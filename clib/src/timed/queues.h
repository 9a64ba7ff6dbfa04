// engine_queue.sv and semaphores.sv.
#pragma once

#include <array>

#include "timed/clock.h"
#include "timed/command.h"
#include "timed/shape.h"
#include "timed/wait.h"

namespace dlavm::timed {

// What a queue asks of its engine. A command is begun where it is ready; done() is true in one cycle.
class Engine {
  public:
    virtual ~Engine() = default;
    virtual bool ready(uint64_t now) const = 0;
    virtual void begin(Clock& clock, const Command& command) = 0;
    virtual Wait waits(uint64_t now) const = 0;  // where it has a command
    bool done(uint64_t now) const { return done_ == now; }

  protected:
    uint64_t done_ = kNever;
};

// One that is shown its next command while the one before it still runs (AHEAD of engine_queue.sv).
class AheadEngine : public Engine {
  public:
    virtual bool empty(uint64_t now) const = 0;  // a command may be shown
    virtual bool left(uint64_t now) const = 0;   // that which was is not looked at any more
    virtual void show(Clock& clock, const Command& command) = 0;
};

class Semaphores {
  public:
    void clear() { given_.fill(Count{}); }
    void signal(uint64_t now, uint32_t sem) { given_[sem].add(now, 1); }
    bool pass(uint64_t now, uint32_t sem, int32_t ticket) const { return given_[sem].at(now) > ticket; }

  private:
    std::array<Count, 32> given_;
};

enum class Entry : uint8_t { kCommand, kSignal, kWait };

class EngineQueue {
  public:
    EngineQueue(Engine& engine, Part part) : engine_(&engine), part_(part) {}
    EngineQueue(AheadEngine& engine, Part part) : engine_(&engine), ahead_(&engine), part_(part) {}

    bool ready(uint64_t now) const { return entries_.ready(now); }
    void push(Clock& clock, CommandPtr command) {
        push(clock, {Entry::kCommand, 0, 0, false, std::move(command), {clock.now(), 0, 0}});
    }
    // `fetch`: a wait of `load`, which guards what is fetched ahead.
    void push(Clock& clock, Entry kind, uint32_t sem, int32_t ticket, bool fetch) {
        push(clock, {kind, sem, ticket, fetch, nullptr, {}});
    }
    bool idle(uint64_t now) const { return !entries_.valid(now) && !running_; }
    Wait waits(uint64_t now) const;
    uint32_t semaphore() const { return entries_.front().sem; }  // of a WAIT
    uint64_t busy() const { return busy_; }  // cycles in which commands ran, since the start
    void start() { busy_ = 0; }
    // Behind the engine.
    void step(Clock& clock, Semaphores& semaphores, Trace* trace) {
        if (entries_.empty()) return;
        const bool passed = ahead_ != nullptr && step_ahead(clock, semaphores);
        const bool popped = step_entry(clock, semaphores, trace);
        if (passed || popped) clock.act();
        shown_ += passed ? 1 : 0;
        if (popped && shown_ != 0) --shown_;
    }

  private:
    struct Item {
        Entry kind = Entry::kCommand;
        uint32_t sem = 0;
        int32_t ticket = 0;
        bool fetch = false;
        CommandPtr command;
        Span span;
    };
    bool step_ahead(Clock& clock, const Semaphores& semaphores);          // true: the entry was passed
    bool step_entry(Clock& clock, Semaphores& semaphores, Trace* trace);  // true: it is over
    void push(Clock& clock, const Item& item) {
        entries_.push(clock.now(), item);
        clock.act();
        clock.poke(Part::kQueues);
    }

    Engine* engine_;
    AheadEngine* ahead_ = nullptr;
    Part part_;
    Fifo<Item, kQueueDepth> entries_;
    uint32_t shown_ = 0;  // entries up to the one that the engine is shown next
    bool running_ = false;
    uint64_t busy_ = 0;
};

}  // namespace dlavm::timed
