// The way of the weights: weight_fetch.sv, weight_unpack.sv, kv_unpack.sv, unit_buffer.sv.
#pragma once

#include "timed/fabric.h"
#include "timed/latency.h"
#include "timed/linear.h"

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
    void next() { ++asks_; }   // another command is asked for,
    void begin() { ++runs_; }  // begins
    bool same() const { return asks_ == runs_; }

  private:
    static constexpr uint32_t kNumbers = 8;
    ReadPort* port_;
    uint32_t asks_ = 0, runs_ = 0;
    std::array<Count, kNumbers> owed_;  // of each command, requests whose last beat was not taken
};

// weight_fetch.sv
class WeightFetch {
  public:
    WeightFetch(const Shape& shape, WeightPort& port) : shape_(&shape), port_(&port) {}
    void start(const LinearJob& job);
    bool idle() const { return !active_; }
    void step(Clock& clock);

  private:
    uint32_t units() const;
    void tile_done(uint64_t part_units);

    const Shape* shape_;
    WeightPort* port_;
    const LinearJob* job_ = nullptr;
    bool active_ = false, exponents_ = false;
    uint32_t batch_ = 0, tile_ = 0, block_ = 0, part_ = 0, tiles_ = 0, parts_ = 1;
    uint32_t set_ = 0, sets_ = 1, left_ = 0;  // keys: blocks of the tile, those from it on
    uint64_t base_ = 0, tile_base_ = 0, block_base_ = 0, unit_ = 0;
};

// unit_buffer.sv: how many units there are.
class UnitBuffer {
  public:
    void start(bool short_slots) {
        slots_ = short_slots ? 8 : 4;
        used_.set(0);
    }
    int32_t room(uint64_t now) const { return slots_ - used_.at(now); }
    void push(uint64_t now, int32_t units) { used_.add(now, units); }
    void release(uint64_t now) { used_.add(now, -1); }

  private:
    int32_t slots_ = 8;
    Count used_;
};

// weight_unpack.sv
class WeightUnpack {
  public:
    WeightUnpack(const Shape& shape, WeightPort& port, UnitBuffer& units)
        : halves_(shape.halves), port_(&port), units_(&units) {}
    void start(const LinearJob& job);
    int32_t step(Clock& clock);  // units that were completed

  private:
    bool unit_ends();
    void begin_tile();

    uint32_t halves_;
    WeightPort* port_;
    UnitBuffer* units_;
    const LinearJob* job_ = nullptr;
    bool want_zero_ = false, want_scale_ = false, odd_ = false, half_ = false;
    bool held_ = false;  // a beat row
    uint32_t block_ = 0, left_ = 0, entry_ = 0, third_ = 0;
};

// kv_unpack.sv: row tiles of less than 64 rows in beats of up to 64 bytes.
class KvUnpack {
  public:
    KvUnpack(const Shape& shape, WeightPort& port, UnitBuffer& units)
        : shape_(&shape), port_(&port), units_(&units) {}
    void start(const LinearJob& job);
    int32_t step(Clock& clock);  // units that were completed

  private:
    int32_t leave(Clock& clock);
    void take(Clock& clock);
    void token_in(uint64_t now);

    const Shape* shape_;
    WeightPort* port_;
    UnitBuffer* units_;
    const LinearJob* job_ = nullptr;
    uint32_t parts_ = 1, byte_parts_ = 1, tile_ = 16;
    int32_t wanted_ = 1;  // slots of a unit of keys, a block of values
    uint32_t part_ = 0, token_ = 0, count_ = 0, group_ = 0;
    bool exponents_ = false, upper_ = false;
    uint64_t paused_ = kNever;
    Count claimed_;
    Pipeline<16> tokens_, pushes_;
};

// kv_blocks.sv
class KvBlocks {
  public:
    KvBlocks(const Shape& shape, WeightPort& port, UnitBuffer& units)
        : shape_(&shape), port_(&port), units_(&units) {}
    void start(const LinearJob& job);
    int32_t step(Clock& clock);  // units that were completed

  private:
    int32_t leave(Clock& clock);
    void take(Clock& clock);
    void block_in(uint64_t now);

    const Shape* shape_;
    WeightPort* port_;
    UnitBuffer* units_;
    const LinearJob* job_ = nullptr;
    uint32_t block_beats_ = 1, beat_ = 0, set_ = 0, dim_ = 0, left_ = 0, count_ = 0;
    bool exponents_ = false;
    uint64_t collected_ = kNever, out_ = kNever;  // from when on; when the block that leaves is out
    Count under_way_, claimed_;
    Fifo<bool, 4> lasts_;  // of their units, by block
    Pipeline<16> beats_;
};

}  // namespace dlavm::timed
