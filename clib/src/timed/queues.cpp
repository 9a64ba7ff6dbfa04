#include "timed/queues.h"

namespace dlavm::timed {

bool EngineQueue::step_ahead(Clock& clock, const Semaphores& semaphores) {
    const uint64_t now = clock.now();
    if (shown_ >= entries_.count(now)) return false;
    const Item& item = entries_.at(shown_);
    if (item.kind == Entry::kSignal) return true;
    if (item.kind == Entry::kWait) return !item.fetch || semaphores.pass(now, item.sem, item.ticket);
    if (ahead_->empty(now)) ahead_->show(clock, *item.command);
    return ahead_->left(now);
}

bool EngineQueue::step_entry(Clock& clock, Semaphores& semaphores, Trace* trace) {
    const uint64_t now = clock.now();
    if (!entries_.valid(now)) return false;
    Item& item = entries_.front();
    if (item.kind == Entry::kCommand) {
        if (!running_) {
            if (!engine_->ready(now)) return false;
            item.span.begin = now;
            engine_->begin(clock, *item.command);
            running_ = true;
            clock.poke(part_);
            return false;
        }
        if (!engine_->done(now)) return false;
        item.span.end = now;
        busy_ += now - item.span.begin;
        if (trace != nullptr) trace->command(*item.command, item.span);
        running_ = false;
    } else if (item.kind == Entry::kSignal) {
        semaphores.signal(now, item.sem);
    } else if (!semaphores.pass(now, item.sem, item.ticket)) {
        return false;
    }
    item.command.reset();
    entries_.pop(now);
    clock.poke(Part::kFront);
    return true;
}

}  // namespace dlavm::timed
