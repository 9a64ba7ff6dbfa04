// matrix_engine.sv
#pragma once

#include "timed/activations.h"
#include "timed/epilogue.h"
#include "timed/linear_prepare.h"
#include "timed/queues.h"
#include "timed/weights.h"

namespace dlavm::timed {

class MatrixEngine final : public AheadEngine {
  public:
    MatrixEngine(const Shape& shape, ReadPort& weights, ReadPort& activations, ReadPort& operands,
                 WritePort& out);
    MatrixEngine(const MatrixEngine&) = delete;
    MatrixEngine& operator=(const MatrixEngine&) = delete;

    bool empty(uint64_t now) const override { return prepare_.empty(now); }
    bool left(uint64_t now) const override { return prepare_.left(now); }
    void show(Clock& clock, const Command& command) override { prepare_.show(clock, command); }
    bool ready(uint64_t now) const override { return !running_ && prepare_.ready(now); }
    void begin(Clock& clock, const Command& command) override;
    Wait waits(uint64_t now) const override;
    void step(Clock& clock) {
        const bool fetched = prepare_.fetched();
        prepare_.step(clock);
        if (running_)
            step_run(clock, fetched);
        else
            prepare_.load(clock);
    }

  private:
    void step_pairs(Clock& clock, bool given);
    void jump_pairs(const Clock& clock);
    void pass_pairs(const Clock& clock);
    int32_t step_units(Clock& clock);
    bool in_blocks() const { return shape_->tile() >= 32; }  // the cache, or in tokens
    void step_run(Clock& clock, bool fetched);
    bool quiet(uint64_t now);

    const Shape* shape_;
    WeightPort weights_;
    LinearPrepare prepare_;
    LinearJob job_;
    UnitBuffer units_;
    WeightUnpack unpack_;
    KvUnpack kv_;
    KvBlocks blocks_;
    ActivationLoad load_;
    ActivationFeed feed_;
    MatrixArray array_;
    EpilogueFetch operands_;
    Epilogue epilogue_;
    bool running_ = false;
    uint32_t quiet_ = 0;                      // cycles, one after the other
    std::vector<uint64_t> seen_, last_seen_;  // registers of feed and array when a block was taken
    uint64_t last_took_ = 0, period_ = 0;     // a block is taken every so many cycles; 0: nobody knows
    Pace pace_;                               // of feed and array
};

}  // namespace dlavm::timed
