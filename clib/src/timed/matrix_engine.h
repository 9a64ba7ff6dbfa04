// matrix_engine.sv
#pragma once

#include "timed/activations.h"
#include "timed/epilogue.h"
#include "timed/queues.h"
#include "timed/weights.h"

namespace dlavm::timed {

class MatrixEngine final : public Engine {
  public:
    MatrixEngine(const Shape& shape, ReadPort& weights, ReadPort& activations, ReadPort& operands,
                 WritePort& out);
    MatrixEngine(const MatrixEngine&) = delete;
    MatrixEngine& operator=(const MatrixEngine&) = delete;

    bool ready() const override { return state_ == State::kIdle; }
    void begin(Clock& clock, const Command& command) override;
    void step(Clock& clock) {
        if (state_ != State::kIdle) step_busy(clock);
    }

  private:
    void step_busy(Clock& clock);
    enum class State { kIdle, kCheck, kBegin, kRun };
    void start();
    void step_run(Clock& clock);
    bool quiet(uint64_t now) const;

    const Shape* shape_;
    LinearJob job_;
    WeightFetch fetch_;
    UnitBuffer units_;
    WeightUnpack unpack_;
    KvUnpack kv_;
    ActivationLoad load_;
    ActivationFeed feed_;
    MatrixArray array_;
    EpilogueFetch operands_;
    Epilogue epilogue_;
    State state_ = State::kIdle;
    uint64_t check_until_ = 0;
    uint32_t quiet_ = 0;  // cycles, one after the other
};

}  // namespace dlavm::timed
