#pragma once

#include <array>

#include "timed/ports.h"

namespace dlavm::timed {

// Which beats belong to the command that runs (linear_prepare.sv).
class WeightPort {
  public:
    explicit WeightPort(ReadPort& port) : port_(&port) {}
    bool ready(uint64_t now) const { return port_->ready(now); }
    void ask(Clock& clock, uint64_t address, uint32_t units) {
        owed_[asks_ % kNumbers].add(clock.now(), 1);
        port_->ask(clock, address, units);
    }
    bool valid(uint64_t now) const { return owed_[runs_ % kNumbers].at(now) != 0 && port_->valid(now); }
    void take(Clock& clock) {
        if (port_->last()) owed_[runs_ % kNumbers].add(clock.now(), -1);
        port_->take(clock);
    }
    // ReadPort::take_rows
    bool take_rows(Clock& clock, uint64_t from, uint32_t count) {
        return owed_[runs_ % kNumbers].next() != 0 && port_->take_rows(clock, from, count);
    }
    void next() { ++asks_; }   // another command is asked for,
    void begin() { ++runs_; }  // begins
    bool same() const { return asks_ == runs_; }

  private:
    static constexpr uint32_t kNumbers = 8;
    ReadPort* port_;
    uint32_t asks_ = 0, runs_ = 0;
    std::array<Count, kNumbers> owed_;  // of each command, requests whose last beat was not taken
};

}  // namespace dlavm::timed
