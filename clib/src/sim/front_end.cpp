// Fetching, decoding and control flow of command streams.
#include <cstring>
#include <type_traits>

#include "sim/core.h"

namespace dlavm::sim {

namespace {

using isa::Error;
using isa::Opcode;

// The information on every opcode in one step.
struct CommandTable {
    const isa::CommandInfo* by_opcode[256] = {};
    CommandTable() {
        for (const isa::CommandInfo& c : isa::kCommands) by_opcode[c.opcode] = &c;
    }
};

const CommandTable kTable;

// Which payload word makes a command undecodable: the one whose zero makes the error go away.
template <class Command>
std::string blame(const uint32_t* words, unsigned count) {
    uint32_t copy[32];
    std::memcpy(copy, words, count * sizeof(uint32_t));
    for (unsigned i = 0; i < count; ++i) {
        Command c;
        Error error;
        const uint32_t kept = copy[i];
        copy[i] = 0;
        if (Command::decode(copy, c, error)) return format("payload word %u = 0x%08x", i, kept);
        copy[i] = kept;
    }
    return "several payload words";
}

template <class Command>
Command decode(const isa::CommandInfo& info, const uint32_t* words) {
    Command c;
    Error error;
    if (!Command::decode(words, c, error)) throw Fault{error, blame<Command>(words, info.payload_words)};
    return c;
}

// Whether the words of the next command are fetched anew, even where they happen to be the next ones.
bool jumps(const isa::CommandInfo& info, const uint32_t* words, bool skipped) {
    switch (static_cast<Opcode>(info.opcode)) {
        case Opcode::kCall:
        case Opcode::kRet:
            return !skipped;
        case Opcode::kLoop:
            return skipped || static_cast<int32_t>(words[1]) <= 0;
        default:
            return false;
    }
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0); }

// SCALAR on 32-bit words; 64-bit arithmetic, so that every result is defined and wraps.
uint32_t compute(isa::ScalarFn fn, uint32_t a, uint32_t b) {
    const int64_t sa = static_cast<int32_t>(a), sb = static_cast<int32_t>(b);
    const bool shift = fn == isa::ScalarFn::kShl || fn == isa::ScalarFn::kShr;
    const bool division = fn == isa::ScalarFn::kDiv || fn == isa::ScalarFn::kMod;
    if (shift && b > 31)
        throw Fault{Error::kScalar, format("field b: expected a shift of 0..31, got %d", int32_t(b))};
    if (division && b == 0) throw Fault{Error::kScalar, "field b: division by zero"};
    switch (fn) {
        case isa::ScalarFn::kMov:
            return b;
        case isa::ScalarFn::kAdd:
            return a + b;
        case isa::ScalarFn::kSub:
            return a - b;
        case isa::ScalarFn::kMul:
            return static_cast<uint32_t>(uint64_t{a} * b);
        case isa::ScalarFn::kDiv:
            return static_cast<uint32_t>(floor_divide(sa, sb));
        case isa::ScalarFn::kMod:
            return static_cast<uint32_t>(sa - floor_divide(sa, sb) * sb);
        case isa::ScalarFn::kMin:
            return sa < sb ? a : b;
        case isa::ScalarFn::kMax:
            return sa > sb ? a : b;
        case isa::ScalarFn::kShl:
            return a << b;
        case isa::ScalarFn::kShr:
            return static_cast<uint32_t>(sa >> b);
        case isa::ScalarFn::kLt:
            return sa < sb ? 1 : 0;
        case isa::ScalarFn::kLe:
            return sa <= sb ? 1 : 0;
        case isa::ScalarFn::kEq:
            return a == b ? 1 : 0;
        case isa::ScalarFn::kLoad:
            break;  // not computed
    }
    return 0;
}

}  // namespace

uint32_t Core::program_word(uint64_t at) const {
    uint32_t word;
    machine_.memory.read(uint64_t{program_} * isa::kAddressUnit + 4 * at, &word, sizeof word);
    return word;
}

void Core::check_header(const Fetched& f, uint32_t header) const {
    const uint32_t length = header >> 8 & 0xff, expected = config_.header_words + f.info->payload_words;
    if (length != expected || f.at + expected > program_words_) {
        throw Fault{Error::kBadLength, format("field length: expected %u words within a stream of %u, got %u",
                                              expected, program_words_, length)};
    }
    if (header >> 21 != 0 || (f.predicate != 0 && config_.scalar_registers == 0)) {
        throw Fault{Error::kReservedBits, format("header 0x%08x", header)};
    }
    if (f.predicate != 0 && f.info->opcode == static_cast<uint32_t>(Opcode::kEndloop)) {
        throw Fault{Error::kReservedBits, "field predicate: ENDLOOP takes none"};
    }
    if (f.predicate != 0) check_register("predicate", f.predicate);
}

Core::Fetched Core::fetch() const {
    Fetched f;
    const uint64_t base = uint64_t{program_} * isa::kAddressUnit;
    if (pc_ >= program_words_) throw Fault{Error::kBadLength, "the stream ends without END"};
    if (machine_.memory.find(base, uint64_t{4} * program_words_) == nullptr) {
        throw Fault{Error::kBadAddress, "the stream is outside every memory space"};
    }
    const uint32_t header = program_word(pc_), opcode = header & 0xff;
    f.info = kTable.by_opcode[opcode];
    if (f.info == nullptr || (config_.opcode_mask[opcode / 64] >> opcode % 64 & 1) == 0) {
        throw Fault{Error::kIllegalOpcode, format("opcode 0x%02x is unknown to this target", opcode)};
    }
    f.at = pc_;
    f.next = pc_ + config_.header_words + f.info->payload_words;
    f.predicate = header >> 16 & 31;
    check_header(f, header);
    f.mask = config_.header_words > 1 ? program_word(pc_ + 1) : 0;
    if ((f.mask & ~f.info->dynamic_mask) != 0) {
        throw Fault{Error::kReservedBits,
                    format("indirect mask 0x%08x names words that are not dynamic", f.mask)};
    }
    if (f.info->payload_words != 0) {
        machine_.memory.read(base + 4 * (pc_ + config_.header_words), f.words, 4 * f.info->payload_words);
    }
    return f;
}

void Core::substitute(Fetched& f) const {
    for (uint32_t rest = f.mask; rest != 0; rest &= rest - 1) {
        uint32_t& word = f.words[__builtin_ctz(rest)];
        if (word >= config_.scalar_registers) {
            throw Fault{Error::kFieldRange,
                        format("payload word %d: no scalar register %u", __builtin_ctz(rest), word)};
        }
        word = scalars_[word];
    }
}

void Core::note(const Fetched& f, bool skipped) {
    last_.info = f.info;
    last_.at = f.at;
    last_.skipped = skipped;
    std::memcpy(last_.words, f.words, sizeof last_.words);
    const auto opcode = static_cast<Opcode>(f.info->opcode);
    if (opcode != Opcode::kScalar || skipped) return;
    isa::Scalar c;
    Error error;
    if (isa::Scalar::decode(f.words, c, error) && c.ra < config_.scalar_registers)
        last_.load_address = uint64_t{scalars_[c.ra]} * isa::kAddressUnit + c.b / 4 * isa::kAddressUnit;
}

void Core::read_indices(std::vector<uint32_t>& out) const {
    out.clear();
    isa::Error error;
    isa::Gather gather;
    isa::Permute permute;
    if (last_.info->opcode == static_cast<uint32_t>(Opcode::kGather)) {
        isa::Gather::decode(last_.words, gather, error);
        if (gather.rows_o == 0 || gather.dim == 0) return;
        out.resize(gather.rows_o);
        machine_.memory.read(uint64_t{gather.ids} * isa::kAddressUnit, out.data(), 4 * out.size());
    } else if (last_.info->opcode == static_cast<uint32_t>(Opcode::kPermute)) {
        isa::Permute::decode(last_.words, permute, error);
        if (permute.rows_o == 0 || permute.rows_i == 0 || permute.dim == 0) return;
        out.resize(permute.dim);
        machine_.memory.read(uint64_t{permute.index} * isa::kAddressUnit, out.data(), 4 * out.size());
    }
}

void Core::step() {
    Fetched f = fetch();
    next_ = f.next;
    ++counters_.commands;
    const bool skipped = f.predicate != 0 && scalars_[f.predicate] == 0;
    const bool loop = f.info->opcode == static_cast<uint32_t>(Opcode::kLoop);
    if (!skipped || loop) substitute(f);
    note(f, skipped);
    if (skipped) {
        if (loop) next_ += decode<isa::Loop>(*f.info, f.words).body;
    } else if (f.info->engine < 0) {
        control(*f.info, f.words);
    } else {
        execute(*f.info, f.words);
    }
    last_.jumped = next_ != f.next || jumps(*f.info, f.words, skipped);
    pc_ = next_;
}

template <class Command>
void Core::engine_command(const isa::CommandInfo& info, const uint32_t* words) {
    const Command c = decode<Command>(info, words);
    const bool ordered = check_hazards_ && config_.semaphores != 0;
    AccessList list(machine_.memory, ordered);
    if (!machine_.plan(c, list)) return;
    if (ordered && std::is_same_v<Command, isa::LoadTable>) hazards_.fence();
    if (ordered) hazards_.command(static_cast<isa::Engine>(info.engine), list.items());
    counters_.bytes_read += list.bytes_read();
    counters_.bytes_written += list.bytes_written();
    if (kernels_) machine_.run(c);
    machine_.ended(c);
    if (ordered && std::is_same_v<Command, isa::LoadTable>) hazards_.fence();
}

void Core::execute(const isa::CommandInfo& info, const uint32_t* words) {
    switch (static_cast<Opcode>(info.opcode)) {
        case Opcode::kLinear:
            return engine_command<isa::Linear>(info, words);
        case Opcode::kNorm:
            return engine_command<isa::Norm>(info, words);
        case Opcode::kSoftmax:
            return engine_command<isa::Softmax>(info, words);
        case Opcode::kRope:
            return engine_command<isa::Rope>(info, words);
        case Opcode::kAct:
            return engine_command<isa::Act>(info, words);
        case Opcode::kEltwise:
            return engine_command<isa::Eltwise>(info, words);
        case Opcode::kArgmax:
            return engine_command<isa::Argmax>(info, words);
        case Opcode::kPermute:
            return engine_command<isa::Permute>(info, words);
        case Opcode::kTopk:
            return engine_command<isa::Topk>(info, words);
        case Opcode::kKvAppend:
            return engine_command<isa::KvAppend>(info, words);
        case Opcode::kGather:
            return engine_command<isa::Gather>(info, words);
        case Opcode::kCopy:
            return engine_command<isa::Copy>(info, words);
        case Opcode::kLoadTable:
            return engine_command<isa::LoadTable>(info, words);
        default:
            throw Fault{Error::kIllegalOpcode, "not a command of an engine"};
    }
}

void Core::control(const isa::CommandInfo& info, const uint32_t* words) {
    switch (static_cast<Opcode>(info.opcode)) {
        case Opcode::kEnd:
            return do_end();
        case Opcode::kFence:
            return hazards_.drain();
        case Opcode::kSignal:
            return do_signal(decode<isa::Signal>(info, words));
        case Opcode::kWait:
            return do_wait(decode<isa::Wait>(info, words));
        case Opcode::kScalar:
            return do_scalar(decode<isa::Scalar>(info, words));
        case Opcode::kLoop:
            return do_loop(decode<isa::Loop>(info, words));
        case Opcode::kEndloop:
            return do_endloop();
        case Opcode::kCall:
            return do_call(decode<isa::Call>(info, words));
        case Opcode::kRet:
            return do_ret();
        default:
            throw Fault{Error::kIllegalOpcode, "not a command of the front end"};
    }
}

void Core::do_end() {
    if (!loops_.empty() || !calls_.empty()) throw Fault{Error::kStack, "END inside a loop or a call"};
    hazards_.drain();
    status_ = 2;  // done
}

void Core::check_register(const char* field, uint32_t index) const {
    if (index >= config_.scalar_registers) {
        throw Fault{Error::kFieldRange, format("field %s: no scalar register %u", field, index)};
    }
}

void Core::check_semaphore(uint32_t index) const {
    if (index >= config_.semaphores)
        throw Fault{Error::kFieldRange, format("field sem: no semaphore %u", index)};
}

void Core::do_signal(const isa::Signal& c) {
    check_semaphore(c.sem);
    hazards_.signal(c.engine, c.sem);
}

void Core::do_wait(const isa::Wait& c) {
    check_semaphore(c.sem);
    if (!hazards_.wait(c.engine, c.sem)) {
        throw Fault{Error::kDeadlock, format("field sem: no earlier SIGNAL serves semaphore %u", c.sem)};
    }
}

void Core::set_scalar(uint32_t index, uint32_t value) {
    if (index != 0 && index < config_.scalar_registers) scalars_[index] = value;
}

void Core::do_scalar(const isa::Scalar& c) {
    check_register("rd", c.rd);
    check_register("ra", c.ra);
    const bool loads = c.fn == isa::ScalarFn::kLoad;
    set_scalar(c.rd, loads ? memory_word(scalars_[c.ra], c.b) : compute(c.fn, scalars_[c.ra], c.b));
}

uint32_t Core::memory_word(uint32_t base, uint32_t index) const {
    const uint64_t address = uint64_t{base} * isa::kAddressUnit + 4 * uint64_t{index};
    uint32_t word = 0;
    if (machine_.memory.find(address, sizeof word) == nullptr) {
        throw Fault{Error::kBadAddress,
                    format("field ra: no memory at byte 0x%llx", static_cast<unsigned long long>(address))};
    }
    if (check_hazards_) hazards_.front_end_read(address, address + sizeof word);
    machine_.memory.read(address, &word, sizeof word);
    return word;
}

void Core::do_loop(const isa::Loop& c) {
    check_register("rd", c.rd);
    if (static_cast<int32_t>(c.count) <= 0) {
        next_ += c.body;
        return;
    }
    if (loops_.size() >= config_.loop_depth) {
        throw Fault{Error::kStack, format("loops nested deeper than %u", config_.loop_depth)};
    }
    loops_.push_back({next_, c.rd, c.count, 0});
    set_scalar(c.rd, 0);
}

void Core::do_endloop() {
    if (loops_.empty()) throw Fault{Error::kStack, "ENDLOOP without LOOP"};
    OpenLoop& loop = loops_.back();
    if (++loop.index < loop.count) {
        set_scalar(loop.rd, loop.index);
        next_ = loop.body;
    } else {
        loops_.pop_back();
    }
}

void Core::do_call(const isa::Call& c) {
    if (calls_.size() >= config_.call_depth) {
        throw Fault{Error::kStack, format("calls nested deeper than %u", config_.call_depth)};
    }
    calls_.push_back(next_);
    next_ = c.target;
}

void Core::do_ret() {
    if (calls_.empty()) throw Fault{Error::kStack, "RET without CALL"};
    next_ = calls_.back();
    calls_.pop_back();
}

}  // namespace dlavm::sim
