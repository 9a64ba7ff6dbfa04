// The control of dlavm_core.sv: how many cycles a program takes (doc/timing.md).
#pragma once

#include <array>
#include <vector>

#include "timed/fabric.h"
#include "timed/front_end.h"
#include "timed/matrix_engine.h"
#include "timed/queues.h"
#include "timed/store_engine.h"
#include "timed/vector_engine.h"

namespace dlavm::timed {

// What the counters of a run hold at its end.
struct RunCounters {
    uint64_t cycles = 0;
    std::vector<Fabric::Traffic> spaces;  // of a channel of each
    std::array<uint64_t, FrontEnd::kQueues> engines{};

    RunCounters& operator+=(const RunCounters& run);
};

class Twin {
  public:
    // From cycle `now` on, that of the memories' clock.
    Twin(const Shape& shape, Memories& memories, uint64_t now, bool skip);
    Twin(const Twin&) = delete;
    Twin& operator=(const Twin&) = delete;

    // The registers PROGRAM (here a byte address) and PROGRAM_WORDS from cycle `from` on; earlier ones pass.
    void program(uint64_t from, uint64_t address, uint32_t words);
    // A run whose first cycle is `begin`; earlier ones pass.
    void start(uint64_t begin, Source& source, Trace* trace, Observer* observer);
    void start_nothing(uint64_t begin);  // without a stream
    // Goes on for at most `cycles`; true: the program has ended. Throws std::logic_error if nothing can
    // happen.
    bool run(uint64_t cycles);
    const RunCounters& counters() const { return counters_; }
    uint64_t end() const { return front_.finished_at() + 1; }  // the first cycle behind the run

    // What is on its way goes on until `cycle`, which has not come.
    void idle_until(uint64_t cycle);
    bool quiet() const { return fabric_.quiet(clock_.now()); }
    uint64_t steps() const { return steps_; }  // cycles that were looked at

    // For an observer.
    uint64_t now() const { return clock_.now(); }
    const Fabric& fabric() const { return fabric_; }
    const FrontEnd& front() const { return front_; }
    const std::array<EngineQueue, FrontEnd::kQueues>& queues() const { return queues_; }

  private:
    void begin(uint64_t begin, Trace* trace, Observer* observer);
    void step();
    void step(Part part);
    template <Part kPart, class Client, class... More>
    void step_client(Client& client, More&... more);

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
    Observer* observer_ = nullptr;
    uint64_t began_ = 0, steps_ = 0;
    RunCounters counters_;
};

}  // namespace dlavm::timed
