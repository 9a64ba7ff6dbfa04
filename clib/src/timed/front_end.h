// front_end.sv with fetch.sv, command_reader.sv and the latency of scalar_alu.sv. What a command does is
// known before (Source); here is when.
#pragma once

#include <array>

#include "timed/ports.h"
#include "timed/queues.h"

namespace dlavm::timed {

// fetch.sv
class Fetch {
  public:
    Fetch(const Shape& shape, ReadPort& port) : units_(shape.units), port_(&port) {}

    void program(uint64_t address, uint32_t words);
    bool word_valid(uint64_t now) const { return drop_ == 0 && port_->valid(now); }
    // The end of a cycle: whether the reader took a word, and where a jump goes (kNever: no jump).
    void step(Clock& clock, bool taken, uint64_t jump);

  private:
    uint32_t units_;
    ReadPort* port_;
    uint64_t program_ = 0, unit_ = 0, end_ = 0, words_ = 0;
    uint32_t place_ = 0, asked_ = 0, drop_ = 0;
    bool active_ = false;
};

class FrontEnd {
  public:
    static constexpr uint32_t kQueues = 3;
    static constexpr uint32_t kMatrix = 0, kVector = 1, kStore = 2;

    FrontEnd(const Shape& shape, ReadPort& program, ReadPort& load);

    bool launched() const { return shape_->header_words == 0; }  // a run is one command

    // The registers PROGRAM (here a byte address) and PROGRAM_WORDS. The fetch looks at them all the time:
    // with a longer program it goes on reading ahead before the start.
    void program(uint64_t address, uint32_t words) { fetch_.program(address, words); }
    void start(Source& source);
    void start_nothing();  // CONTROL.start where there is no stream
    bool finished() const { return finished_; }
    uint64_t finished_at() const { return finished_at_; }
    void step(Clock& clock, std::array<EngineQueue, kQueues>& queues);
    Wait waits() const;
    const CommandPtr& command() const { return command_; }  // that is read, executed or pushed

  private:
    enum class State { kOff, kRead, kReading, kExecute, kCheck, kPush, kDrain, kAlu, kLoad, kLoading };
    enum class Reader { kIdle, kHeader, kPredicate, kMask, kPayload, kDone };
    enum class Then { kNext, kPush, kEnd };

    bool read(Clock& clock);  // true: it took a word
    void execute(Clock& clock);
    void go_on();
    void drain(Then then) {
        then_ = then;
        state_ = State::kDrain;
    }
    void push(Clock& clock, std::array<EngineQueue, kQueues>& queues);
    void drain(Clock& clock, const std::array<EngineQueue, kQueues>& queues);
    void wait(Clock& clock, State state, uint64_t until);

    const Shape* shape_;
    Fetch fetch_;
    ReadPort* load_;
    Source* source_ = nullptr;
    CommandPtr command_;
    State state_ = State::kOff;
    Reader reader_ = Reader::kIdle;
    Then then_ = Then::kNext;
    bool jump_ = false;   // the command that is read next is fetched anew
    uint64_t until_ = 0;  // of CHECK and ALU: the cycle in which it is done
    bool nothing_ = false;
    uint32_t words_read_ = 0;
    bool finished_ = false;
    uint64_t finished_at_ = 0;
    std::array<int32_t, 32> waits_{};
};

}  // namespace dlavm::timed
