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
    virtual bool ready() const = 0;
    virtual void begin(Clock& clock, const Command& command) = 0;
    virtual Wait waits(uint64_t now) const = 0;  // where it has a command
    bool done(uint64_t now) const { return done_ == now; }

  protected:
    uint64_t done_ = kNever;
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

    bool ready(uint64_t now) const { return entries_.ready(now); }
    void push(Clock& clock, CommandPtr command) {
        push(clock, {Entry::kCommand, 0, 0, std::move(command), {clock.now(), 0, 0}});
    }
    void push(Clock& clock, Entry kind, uint32_t sem, int32_t ticket) {
        push(clock, {kind, sem, ticket, nullptr, {}});
    }
    bool idle(uint64_t now) const { return !entries_.valid(now) && !running_; }
    Wait waits(uint64_t now) const;
    uint32_t semaphore() const { return entries_.front().sem; }  // of a WAIT
    uint64_t busy() const { return busy_; }  // cycles in which commands ran, since the start
    void start() { busy_ = 0; }
    // Behind the engine.
    void step(Clock& clock, Semaphores& semaphores, Trace* trace) {
        if (!entries_.empty() && !(running_ && !engine_->done(clock.now())))
            step_entry(clock, semaphores, trace);
    }

  private:
    struct Item {
        Entry kind = Entry::kCommand;
        uint32_t sem = 0;
        int32_t ticket = 0;
        CommandPtr command;
        Span span;
    };
    void step_entry(Clock& clock, Semaphores& semaphores, Trace* trace);
    void push(Clock& clock, const Item& item) {
        entries_.push(clock.now(), item);
        clock.act();
        clock.poke(Part::kQueues);
    }

    Engine* engine_;
    Part part_;
    Fifo<Item, kQueueDepth> entries_;
    bool running_ = false;
    uint64_t busy_ = 0;
};

}  // namespace dlavm::timed
