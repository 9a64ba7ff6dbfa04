#include "timed/front_end.h"

#include <algorithm>

#include "timed/operand_check.h"

namespace dlavm::timed {

namespace {

using isa::Opcode;
using isa::ScalarFn;

// scalar_alu.sv: from EXECUTE to `done_o`.
constexpr uint64_t kAluCycles = 2, kDivideCycles = 35;

uint64_t alu_cycles(const isa::Scalar& c) {
    return c.fn == ScalarFn::kDiv || c.fn == ScalarFn::kMod ? kDivideCycles : kAluCycles;
}

uint32_t queue_of(isa::Engine engine) {
    if (engine == isa::Engine::kVector) return FrontEnd::kVector;
    return engine == isa::Engine::kStore ? FrontEnd::kStore : FrontEnd::kMatrix;
}

}  // namespace

// -- fetch --------------------------------------------------------------------------------------------------

void Fetch::program(uint64_t address, uint32_t words) {
    program_ = address;
    words_ = words;
    end_ = (uint64_t{words} + 3) / 4;
}

void Fetch::step(Clock& clock, bool taken, uint64_t jump) {
    const uint64_t now = clock.now();
    const uint32_t block = std::max(units_, 16u), ahead = 2, words_of_beat = 4 * units_;
    const uint32_t asked = asked_, drop = drop_;
    if (active_ && drop == 0 && unit_ < end_ && asked < ahead && port_->ready(now)) {
        port_->ask(clock, program_ + unit_ * kUnitBytes,
                   static_cast<uint32_t>(std::min<uint64_t>(end_ - unit_, block)));
        unit_ += block;
        ++asked_;
    }
    bool answered = false;
    if (port_->valid(now) && (drop != 0 || (taken && place_ == words_of_beat - 1))) {
        answered = port_->last();
        port_->take(clock);
    }
    if (taken) place_ = (place_ + 1) % words_of_beat;
    if (answered) --asked_;
    if (jump != kNever) {
        unit_ = jump / 4;
        place_ = static_cast<uint32_t>(jump % 4);
        active_ = jump < words_;
        drop_ = asked_;
        clock.act();
    } else if (drop != 0 && answered) {
        --drop_;
    }
}

// -- front end ----------------------------------------------------------------------------------------------

FrontEnd::FrontEnd(const Shape& shape, ReadPort& program, ReadPort& load)
    : shape_(&shape), fetch_(shape, program), load_(&load) {}

void FrontEnd::start(Source& source) {
    source_ = &source;
    state_ = State::kRead;
    jump_ = true;
    finished_ = false;
    waits_.fill(0);
}

void FrontEnd::start_nothing() {
    drain(Then::kEnd);
    finished_ = false;
}

// The command is over, or in its queue.
void FrontEnd::go_on() {
    if (launched())
        drain(Then::kEnd);
    else
        state_ = State::kRead;
}

void FrontEnd::wait(Clock& clock, State state, uint64_t until) {
    state_ = state;
    until_ = until;
    clock.at(until);
}

// command_reader.sv
bool FrontEnd::read(Clock& clock) {
    const bool word = launched() || fetch_.word_valid(clock.now());  // registers are there
    const auto payload = [this] { return command_->payload == 0 ? Reader::kDone : Reader::kPayload; };
    switch (reader_) {
        case Reader::kHeader:
            if (word) reader_ = Reader::kPredicate;
            break;
        case Reader::kPredicate:
            words_read_ = 0;
            reader_ = shape_->header_words > 1 ? Reader::kMask : payload();
            clock.act();
            return false;
        case Reader::kMask:
            if (word) reader_ = payload();
            break;
        case Reader::kPayload:
            if (word && ++words_read_ == command_->payload) reader_ = Reader::kDone;
            break;
        default:
            return false;
    }
    if (word) clock.act();
    return word;
}

void FrontEnd::execute(Clock& clock) {
    const uint64_t now = clock.now();
    jump_ = command_->jump;
    if (command_->engine >= 0) {
        const Checked checked = check(*command_);
        nothing_ = checked.nothing;
        return wait(clock, State::kCheck, now + checked.cycles);
    }
    clock.act();
    state_ = State::kRead;
    switch (static_cast<Opcode>(command_->opcode)) {
        case Opcode::kEnd:
        case Opcode::kFence:
            drain(command_->opcode == static_cast<uint8_t>(Opcode::kEnd) ? Then::kEnd : Then::kNext);
            break;
        case Opcode::kSignal:
        case Opcode::kWait:
            state_ = State::kPush;
            break;
        case Opcode::kScalar: {
            const auto scalar = decoded<isa::Scalar>(*command_);
            if (scalar.fn == ScalarFn::kLoad)
                state_ = State::kLoad;
            else
                wait(clock, State::kAlu, now + alu_cycles(scalar));
            break;
        }
        default:
            break;
    }
}

void FrontEnd::push(Clock& clock, std::array<EngineQueue, kQueues>& queues) {
    if (command_->engine >= 0) {
        EngineQueue& queue = queues[queue_of(static_cast<isa::Engine>(command_->engine))];
        if (!queue.ready(clock.now())) return;
        queue.push(clock, command_);
        if (shape_->ordered && command_->opcode == static_cast<uint8_t>(Opcode::kLoadTable))
            drain(Then::kNext);
        else
            go_on();
        return;
    }
    const auto c = decoded<isa::Signal>(*command_);  // WAIT has the same fields
    EngineQueue& queue = queues[queue_of(c.engine)];
    if (!queue.ready(clock.now())) return;
    if (command_->opcode == static_cast<uint8_t>(Opcode::kWait))
        queue.push(clock, Entry::kWait, c.sem, waits_[c.sem]++, c.engine == isa::Engine::kLoad);
    else
        queue.push(clock, Entry::kSignal, c.sem, 0, false);
    state_ = State::kRead;
}

void FrontEnd::drain(Clock& clock, const std::array<EngineQueue, kQueues>& queues) {
    for (const EngineQueue& queue : queues)
        if (!queue.idle(clock.now())) return;
    clock.act();
    if (then_ == Then::kNext) {
        state_ = State::kRead;
    } else if (then_ == Then::kPush) {
        state_ = State::kPush;
    } else {
        state_ = State::kOff;
        finished_ = true;
        finished_at_ = clock.now() + 1;
    }
}

void FrontEnd::step(Clock& clock, std::array<EngineQueue, kQueues>& queues) {
    const uint64_t now = clock.now();
    uint64_t jump = kNever;
    const State state = state_;
    const bool read_done = reader_ == Reader::kDone;
    const bool taken = read(clock);
    switch (state) {
        case State::kRead:
            clock.act();
            command_ = source_->next();
            if (command_->fault) {  // what is queued comes to its end
                drain(Then::kEnd);
                break;
            }
            if (jump_) jump = command_->pc;
            jump_ = false;
            reader_ = Reader::kHeader;
            state_ = State::kReading;
            break;
        case State::kReading:
            if (!read_done) break;
            clock.act();
            reader_ = Reader::kIdle;
            if (command_->skip && !command_->jump)
                go_on();
            else
                state_ = State::kExecute;
            break;
        case State::kExecute:
            execute(clock);
            break;
        case State::kCheck:
            if (until_ != now) {
                clock.at(until_);
                break;
            }
            clock.act();
            if (nothing_)
                go_on();
            else if (!shape_->ordered || command_->opcode == static_cast<uint8_t>(Opcode::kLoadTable))
                drain(Then::kPush);
            else
                state_ = State::kPush;
            break;
        case State::kPush:
            push(clock, queues);
            break;
        case State::kDrain:
            drain(clock, queues);
            break;
        case State::kAlu:
            if (until_ != now) {
                clock.at(until_);
                break;
            }
            clock.act();
            state_ = State::kRead;
            break;
        case State::kLoad:
            if (!load_->ready(now)) break;
            load_->ask(clock, command_->load_address, 1);
            state_ = State::kLoading;
            break;
        case State::kLoading:
            if (!load_->valid(now)) break;
            load_->take(clock);
            state_ = State::kRead;
            break;
        default:
            break;
    }
    if (!launched()) fetch_.step(clock, taken, jump);
}

}  // namespace dlavm::timed
