#include "timed/queues.h"

namespace dlavm::timed {

void EngineQueue::step_entry(Clock& clock, Semaphores& semaphores, Trace* trace) {
    const uint64_t now = clock.now();
    if (!entries_.valid(now)) return;
    Item& item = entries_.front();
    if (running_) {
        if (!engine_->done(now)) return;
        item.span.end = now;
        busy_ += now - item.span.begin;
        if (trace != nullptr) trace->command(*item.command, item.span);
        running_ = false;
    } else if (item.kind == Entry::kCommand) {
        if (!engine_->ready()) return;
        item.span.begin = now;
        engine_->begin(clock, *item.command);
        running_ = true;
        clock.poke(part_);
        return;
    } else if (item.kind == Entry::kSignal) {
        semaphores.signal(now, item.sem);
    } else if (!semaphores.pass(now, item.sem, item.ticket)) {
        return;
    }
    item.command.reset();
    entries_.pop(now);
    clock.act();
    clock.poke(Part::kFront);
}

}  // namespace dlavm::timed
