// The control of dlavm_core.sv: how many cycles a program takes (doc/timing.md).
#pragma once

#include <array>

#include "timed/fabric.h"
#include "timed/front_end.h"
#include "timed/matrix_engine.h"
#include "timed/queues.h"
#include "timed/store_engine.h"
#include "timed/vector_engine.h"

namespace dlavm::timed {

class Twin {
  public:
    explicit Twin(const Shape& shape);
    Twin(const Twin&) = delete;
    Twin& operator=(const Twin&) = delete;

    // The program of `words` words at the byte address `program`, from CONTROL.start on.
    void start(uint64_t program, uint32_t words, Source& source, Trace* trace);
    // Goes on for at most `cycles`; true: the program has ended. Throws std::logic_error if nothing can happen.
    bool run(uint64_t cycles);
    uint64_t cycles() const;        // since the start
    uint64_t steps() const { return steps_; }  // cycles that were looked at
    void set_skip(bool skip) { clock_.set_all(!skip); }  // false: every part in every cycle

  private:
    void step();

    Shape shape_;
    Clock clock_;
    Fabric fabric_;
    MatrixEngine matrix_;
    VectorEngine vector_;
    StoreEngine store_;
    std::array<EngineQueue, FrontEnd::kQueues> queues_;
    FrontEnd front_;
    Semaphores semaphores_;
    Trace* trace_ = nullptr;
    uint64_t began_ = 0, steps_ = 0;
};

}  // namespace dlavm::timed
