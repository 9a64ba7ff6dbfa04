// block_order.sv
#pragma once

#include <array>

#include "timed/linear.h"
#include "timed/weight_port.h"

namespace dlavm::timed {

class BlockOrder {
  public:
    BlockOrder(const Shape& shape, WeightPort& port) : shape_(&shape), port_(&port) {}
    void start(const LinearJob& job);

    // kv_blocks: a beat is taken once a cycle, before step().
    bool valid(uint64_t now) const { return ordered_ ? valid_ : port_->valid(now); }
    void take(Clock& clock) {
        if (ordered_)
            taken_ = true;
        else
            port_->take(clock);
    }
    void step(Clock& clock) {
        if (ordered_) move(clock);
    }

  private:
    void move(Clock& clock);
    uint32_t coming() const;  // beats of the group that comes
    void group_in();

    const Shape* shape_;
    WeightPort* port_;
    const LinearJob* job_ = nullptr;
    bool ordered_ = false, valid_ = false, taken_ = false;
    uint32_t left_ = 0, batch_ = 0;  // blocks of 32 tokens of the batch from this group on
    uint32_t in_ = 0, out_ = 0;      // beats of a group
    uint32_t in_half_ = 0, out_half_ = 0;
    std::array<uint32_t, 2> full_{};  // beats of a complete group
};

}  // namespace dlavm::timed
