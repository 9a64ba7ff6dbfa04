#include "timed/channels.h"

namespace dlavm::timed {

void ReadChannel::step(Clock& clock) {
    const uint64_t now = clock.now();
    if (reads_.valid(now)) {
        Burst& burst = reads_.front();
        if (burst.due > now) {
            clock.at(burst.due);
        } else if (part_ + 1 != pack_ || parts_.at(now) != kParts) {
            clock.act();
            if (++part_ == pack_) {
                part_ = 0;
                parts_.add(now, 1);
            }
            if (--burst.beats == 0) reads_.pop(now);
        }
    }
    if (chunks_.valid(now) && reads_.ready(now)) {
        clock.act();
        reads_.push(now, {now + latency_, chunks_.front().rows * pack_});
        chunks_.pop(now);
    }
}

void WriteChannel::step(Clock& clock) {
    const uint64_t now = clock.now();
    if (answers_.valid(now)) {
        if (answers_.front() > now) {
            clock.at(answers_.front());
        } else if (responses_.at(now) != kResponses) {
            clock.act();
            answers_.pop(now);
            responses_.add(now, 1);
        }
    }
    // Data is taken only once its address is known.
    if (rows_.at(now) != 0 && writes_.valid(now)) {
        clock.act();
        if (++part_ == pack_) {
            part_ = 0;
            rows_.add(now, -1);
        }
        if (--writes_.front() == 0) {
            writes_.pop(now);
            answers_.push(now, now + latency_);
        }
    }
    if (chunks_.valid(now) && writes_.ready(now)) {
        clock.act();
        writes_.push(now, chunks_.front() * pack_);
        chunks_.pop(now);
    }
}

}  // namespace dlavm::timed
