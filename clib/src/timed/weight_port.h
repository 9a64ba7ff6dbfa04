#pragma once

#include "timed/fabric.h"

namespace dlavm::timed {

// The counts of linear_prepare.sv: which beats belong to the command that runs.
class WeightPort {
  public:
    explicit WeightPort(ReadPort& port) : port_(&port) {}
    bool ready(uint64_t now) const { return port_->ready(now); }
    void ask(Clock& clock, uint64_t address, uint32_t units) {
        if (begun_)
            mine_.add(clock.now(), 1);
        else
            ++next_;
        port_->ask(clock, address, units);
    }
    bool valid(uint64_t now) const { return mine_.at(now) != 0 && port_->valid(now); }
    void take(Clock& clock) {
        if (port_->last()) mine_.add(clock.now(), -1);
        port_->take(clock);
    }
    // The command that was asked for begins; all of it was asked for.
    void begin(uint64_t now) {
        mine_.add(now, next_);
        next_ = 0;
        begun_ = true;
    }
    void fetched() { begun_ = false; }

  private:
    ReadPort* port_;
    Count mine_;  // requests whose last beat was not taken
    int32_t next_ = 0;
    bool begun_ = false;
};

}  // namespace dlavm::timed
