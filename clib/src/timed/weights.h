// The way of the weights: weight_fetch.sv, weight_unpack.sv, kv_unpack.sv, unit_buffer.sv.
#pragma once

#include <array>

#include "timed/block_order.h"
#include "timed/latency.h"
#include "timed/linear.h"
#include "timed/ports.h"

namespace dlavm::timed {

// weight_fetch.sv
class WeightFetch {
  public:
    WeightFetch(const Shape& shape, WeightPort& port) : shape_(&shape), port_(&port) {}
    void start(const LinearJob& job);
    bool idle() const { return !active_; }
    void step(Clock& clock);

  private:
    uint32_t units() const;
    uint32_t run() const;  // blocks of tokens that are read together
    void tile_done(uint64_t part_units);

    const Shape* shape_;
    WeightPort* port_;
    const LinearJob* job_ = nullptr;
    bool active_ = false, exponents_ = false;
    bool keys_ = false;  // not in the order of memory
    uint32_t batch_ = 0, tile_ = 0, block_ = 0, part_ = 0, run_ = 0, tiles_ = 0, parts_ = 1;
    uint32_t set_ = 0, sets_ = 1, left_ = 0;  // keys: blocks of the tile, those from it on
    uint32_t head_ = 0;                       // values: of the unit
    uint64_t span_ = 0;                       // from its first head to this one
    uint64_t base_ = 0, tile_base_ = 0, block_base_ = 0, unit_ = 0;
};

// unit_buffer.sv: how many units there are.
class UnitBuffer {
  public:
    void start(bool short_slots, bool wide) {
        slots_ = (short_slots ? 8 : 4) * (wide ? 2 : 1);
        used_.set(0);
    }
    int32_t room(uint64_t now) const { return slots_ - used_.at(now); }
    int32_t room_next() const { return slots_ - used_.next(); }  // in the next cycle, at least
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
    // Behind a step in whose cycle room was made: whether it need not be stepped in the next one for that.
    bool goes_on(Clock& clock) {
        return clock.short_ways() && (ends_ != kNever || take_unit(clock, clock.now() + 1));
    }
    // Behind all that: units (of those that step() does not tell of) which are completed by cycle `until`, up
    // to which nobody looks.
    int32_t completes(Clock& clock, uint64_t until);

  private:
    bool beat();
    bool take_unit(Clock& clock, uint64_t from);
    bool unit_ends();
    void begin_tile();
    void forget(uint64_t now) {  // a unit that was told of beforehand
        if (!told_ || ends_ > now) return;
        ends_ = kNever;
        told_ = false;
    }

    uint32_t halves_;
    WeightPort* port_;
    UnitBuffer* units_;
    const LinearJob* job_ = nullptr;
    bool want_zero_ = false, want_scale_ = false, odd_ = false, half_ = false;
    bool held_ = false;  // a beat row
    uint32_t block_ = 0, left_ = 0, entry_ = 0, third_ = 0;
    uint64_t ends_ = kNever;  // the last beat of a unit whose beats were taken together
    bool told_ = false;       // of that unit, before it ends
};

// kv_unpack.sv: row tiles of less than 32 rows in beats of up to 32 bytes.
class KvUnpack {
  public:
    KvUnpack(const Shape& shape, WeightPort& port, UnitBuffer& units)
        : shape_(&shape), port_(&port), units_(&units) {}
    void start(const LinearJob& job);
    int32_t step(Clock& clock);  // units that were completed
    bool turning() const { return tokens_.size() != 0 || pushes_.size() != 0; }

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
    bool exponents_ = false;
    uint64_t paused_ = kNever;
    Count claimed_;
    Pipeline<16> tokens_, pushes_;
};

// kv_blocks.sv
class KvBlocks {
  public:
    static constexpr uint32_t kMostLeavers = 16;

    KvBlocks(const Shape& shape, WeightPort& port, UnitBuffer& units)
        : shape_(&shape), order_(shape, port), units_(&units) {}
    void start(const LinearJob& job);
    int32_t step(Clock& clock);  // units that were completed
    bool turning() const { return pushes_.size() != 0; }

  private:
    uint64_t& free_at() { return free_at_[set_ % leavers_]; }
    void take(Clock& clock);
    void block_in(uint64_t now);
    void next_set(bool set_last, bool dim_last);

    const Shape* shape_;
    BlockOrder order_;
    UnitBuffer* units_;
    const LinearJob* job_ = nullptr;
    uint32_t block_beats_ = 1, beat_ = 0, set_ = 0, dim_ = 0, left_ = 0, leavers_ = 1;
    uint32_t batch_ = 0, head_ = 0, token_block_ = 0;  // values: the unit's first head, and which of them
    bool exponents_ = false;
    std::array<uint64_t, kMostLeavers> free_at_{};  // from when on a block's last beat may come for the stage
    Count claimed_;
    Pipeline<32> pushes_;  // the ends of units
};

}  // namespace dlavm::timed
