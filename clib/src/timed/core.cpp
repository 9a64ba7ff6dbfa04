#include "timed/core.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "abi/misuse.h"
#include "abi/registers.h"
#include "timing/parameters.h"

namespace dlavm::timed {

using abi::format;
using abi::Misuse;

namespace {

constexpr uint64_t kPiece = 1'000'000;  // cycles between looks at the stop
constexpr uint64_t kResetCycles = 5;    // of the harness, when it opens
constexpr uint64_t kLatency = 40;       // of memory whose figures nobody gave

uint64_t number(const std::string& name, const std::string& value, uint64_t least, uint64_t most) {
    char* end = nullptr;
    const unsigned long long result = std::strtoull(value.c_str(), &end, 10);
    if (value.empty() || value[0] == '-' || *end != 0 || result < least || result > most) {
        throw Misuse{DLAVM_BAD_ARGUMENT, format("option %s: expected %llu..%llu, got '%.40s'", name.c_str(),
                                                static_cast<unsigned long long>(least),
                                                static_cast<unsigned long long>(most), value.c_str())};
    }
    return result;
}

}  // namespace

Core::Core(const std::string& sizes, const dlavm_config& config)
    : config_(config),
      shape_(shape_of(config, sizes)),
      sim_(config),
      figures_(shape_.spaces.size()),
      host_(kResetCycles) {
    make_twin();
}

void Core::make_twin() {
    memories_.clear();
    for (size_t s = 0; s < shape_.spaces.size(); ++s) {
        memories_.emplace_back(shape_.fold ? 1 : shape_.spaces[s].channels);
        for (ChannelMemory& memory : memories_.back())
            if (figures_[s]) memory.timed.emplace(*figures_[s]);
    }
    apply_memory();
    twin_ = std::make_unique<Twin>(shape_, memories_, host_, skip_);
}

void Core::apply_memory() {
    for (auto& space : memories_) {
        for (ChannelMemory& memory : space) {
            memory.board = latency_ || !memory.timed ? nullptr : &*memory.timed;
            memory.latency = latency_.value_or(kLatency);
        }
    }
}

dlavm_device_info Core::info() const {
    dlavm_device_info info = sim_.info();
    info.engine = "timed";
    return info;
}

void Core::set_option(const std::string& name, const std::string& value) {
    if (name == "latency") {
        latency_.reset();
        if (value != "board") latency_ = number(name, value, 0, 100000);
        apply_memory();
    } else if (name == "timing") {
        set_timing(value);
    } else if (name.compare(0, 6, "memory") == 0) {
        set_memory(name, value);
    } else if (name == "fold") {
        shape_.fold = number(name, value, 0, 1) == 1;
        make_twin();
    } else if (name == "skip") {
        skip_ = number(name, value, 0, 1) == 1;
        make_twin();
    } else if (name == "trace") {
        trace_path_ = value;
    } else if (name == "profile") {
        profile_path_ = value;
    } else if (name == "profile_least") {
        profile_least_ = number(name, value, 1, 1000000000);
    } else if (name == "timing_only") {
        sim_.set_kernels(number(name, value, 0, 1) == 0);
    } else {
        sim_.set_option(name, value);
    }
}

// memoryN: the figures of space N, all of them.
void Core::set_memory(const std::string& name, const std::string& value) {
    const uint64_t space = number(name, name.substr(6), 0, shape_.spaces.size() - 1);
    dlavm_memory_timing figures{};
    std::string wrong = timing::change(figures, value);
    if (!wrong.empty())
        throw Misuse{DLAVM_BAD_ARGUMENT, format("option %s: %s", name.c_str(), wrong.c_str())};
    figures_[space] = figures;
    make_twin();
}

void Core::set_timing(const std::string& changes) {
    std::vector<std::optional<dlavm_memory_timing>> changed = figures_;
    for (size_t s = 0; s < changed.size(); ++s) {
        if (!changed[s])
            throw Misuse{DLAVM_BAD_ARGUMENT, "option timing: expected memory0, .. to be set before"};
        const std::string wrong = timing::change(*changed[s], changes);
        if (!wrong.empty()) throw Misuse{DLAVM_BAD_ARGUMENT, format("option timing: %s", wrong.c_str())};
        for (ChannelMemory& memory : memories_[s]) memory.timed.emplace(*changed[s]);
    }
    apply_memory();
}

void Core::mem_read(uint64_t address, void* out, uint64_t bytes) { sim_.mem_read(address, out, bytes); }

void Core::mem_write(uint64_t address, const void* in, uint64_t bytes) { sim_.mem_write(address, in, bytes); }

void Core::mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    sim_.mem_map(address, channel, path, bytes);
}

uint64_t Core::channel_counter(uint32_t offset) const {
    const uint32_t channel = sim_.channel();
    uint32_t first = 0;
    for (size_t s = 0; s < counters_.spaces.size(); ++s) {
        const uint32_t end = first + shape_.spaces[s].channels;
        if (channel < first || channel >= end) {
            first = end;
            continue;
        }
        const Fabric::Traffic& t = counters_.spaces[s];
        if (offset == isa::kRegChannelRead) return t.read_beats * shape_.port_bytes;
        if (offset == isa::kRegChannelWritten) return t.written_beats * shape_.port_bytes;
        if (offset == isa::kRegChannelBusy) return t.busy;
        if (offset == isa::kRegChannelStalled) return t.asked - t.busy;
        return offset == isa::kRegChannelIdle ? counters_.cycles - t.asked : 0;
    }
    return 0;
}

// CYCLES and the registers of profile_counters, by the offset of the pair.
uint64_t Core::profile(uint32_t offset) const {
    if (offset == isa::kRegCycles) return counters_.cycles;
    if (offset < isa::kRegEngineBusy) return channel_counter(offset);
    switch ((offset - isa::kRegEngineBusy) / 8) {
        case static_cast<uint32_t>(isa::Engine::kMatrix):
            return counters_.engines[FrontEnd::kMatrix];
        case static_cast<uint32_t>(isa::Engine::kVector):
            return counters_.engines[FrontEnd::kVector];
        case static_cast<uint32_t>(isa::Engine::kStore):
            return counters_.engines[FrontEnd::kStore];
        default:
            return 0;
    }
}

uint32_t Core::csr_read(uint32_t offset) {
    const uint32_t value = sim_.csr_read(offset);
    access(1);
    const uint32_t pair = offset / 8 * 8;
    const bool mine = pair == isa::kRegCycles || (pair > isa::kRegChannel && pair < isa::kRegEngineBusy + 32);
    if (!mine) return value;
    const uint64_t counter = profile(pair);
    return static_cast<uint32_t>(offset == pair ? counter : counter >> 32);
}

int Core::csr_write(uint32_t offset, uint32_t value, std::string& error) {
    if (offset == isa::kRegLaunch) return launch(value, error);
    const int code = sim_.csr_write(offset, value, error);
    const uint64_t at = host_;
    access(1);
    if (offset == isa::kRegProgram || offset == isa::kRegProgramWords) show_program(at + 1);
    if (offset != isa::kRegControl) return code;
    if ((value & abi::kReset) != 0) reset();
    access(kWatchReads + 1);  // whether the core has taken it
    counters_ = {};
    started_ = (value & abi::kStart) != 0;
    begun_ = false;
    begin_ = at + kAccessCycles;
    if (started_ && !abi::has_stream(config_)) {
        started_ = false;
        twin_->start_nothing(begin_);
        while (!twin_->run(kPiece)) {
        }
        counters_ = twin_->counters();
    }
    return code;
}

// A run of one command, whose counters go on from the last start.
int Core::launch(uint32_t opcode, std::string& error) {
    begin_ = host_ + kAccessCycles;
    launched_ = opcode;
    code_ = 0;
    twin_->start(begin_, *this, nullptr, nullptr);
    bool ended = false;
    while (!ended && !stop_) ended = twin_->run(kPiece);
    counters_ += twin_->counters();
    access(1 + kWatchReads);
    host_ = std::max(host_, twin_->end());
    access(code_ != 0 ? 2 : 1);  // STATUS, and ERROR
    if (code_ != 0) error = error_;
    return code_;
}

void Core::show_program(uint64_t from) {
    if (begun_) return;  // a run goes on with what it began with
    const uint64_t program = uint64_t{sim_.csr_read(isa::kRegProgram)} * isa::kAddressUnit;
    twin_->program(from, program, sim_.csr_read(isa::kRegProgramWords));
}

// A reset waits until memory owes nothing.
void Core::reset() {
    stop_ = false;
    for (twin_->idle_until(host_); !twin_->quiet(); ++host_) twin_->idle_until(host_ + 1);
    twin_ = std::make_unique<Twin>(shape_, memories_, host_, skip_);
}

// Executes a command and tells the twin what it was.
CommandPtr Core::next() {
    uint64_t executed = 0;
    if (abi::has_stream(config_)) {
        code_ = sim_.run(1, executed, error_);
    } else {
        code_ = sim_.csr_write(isa::kRegLaunch, launched_, error_);
        executed = 1;
    }
    executed_ += executed;
    auto command = std::make_shared<Command>();
    if (code_ != 0 || executed == 0) {
        command->fault = true;
        return command;
    }
    const sim::Executed& last = sim_.last();
    command->pc = last.at;
    command->opcode = static_cast<uint8_t>(last.info->opcode);
    command->payload = last.info->payload_words;
    command->skip = last.skipped;
    command->jump = last.jumped;
    command->engine = last.info->engine;
    command->load_address = last.load_address;
    command->number = executed_ - 1;
    std::memcpy(command->words, last.words, sizeof command->words);
    if (!last.skipped) sim_.read_indices(command->indices);
    return command;
}

void Core::open_trace() {
    recorder_.reset();
    if (!profile_path_.empty())
        recorder_ = std::make_unique<Recorder>(profile_path_, begin_, profile_least_, shape_);
    if (trace_path_.empty()) return;
    trace_.open(trace_path_, std::ios::trunc);
    if (!trace_)
        throw Misuse{DLAVM_SYSTEM, "option trace: expected a file that can be written, got " + trace_path_};
    trace_ << "command,word,name,queued,begun,ended\n";
}

// Cycles from the run's first on: put into its queue, begun by its engine, found done by its queue.
void Core::command(const Command& command, const Span& span) {
    if (recorder_) recorder_->command(command, span);
    if (!trace_.is_open()) return;
    const char* name = "";
    for (const isa::CommandInfo& info : isa::kCommands)
        if (info.opcode == command.opcode) name = info.name;
    trace_ << command.number << ',' << command.pc << ',' << name << ',' << span.queued - begin_ << ','
           << span.begin - begin_ << ',' << span.end - begin_ << '\n';
}

int Core::run(uint64_t max_commands, uint64_t& executed, std::string& error) {
    executed = 0;
    if (max_commands != 0) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     "run: a core runs a program to its end: expected max_commands 0, got " +
                         std::to_string(max_commands)};
    }
    if (!started_) {
        access(1);
        return sim_.run(0, executed, error);
    }
    if (!begun_) {
        begun_ = true;
        executed_ = 0;
        code_ = 0;
        open_trace();
        const bool traced = recorder_ || trace_.is_open();
        twin_->start(begin_, *this, traced ? this : nullptr, recorder_.get());
    }
    bool ended = false;
    while (!ended && !stop_) ended = twin_->run(kPiece);
    executed = executed_;
    if (!ended) return 0;
    trace_.close();
    if (recorder_) recorder_->finish(*twin_);
    recorder_.reset();
    started_ = begun_ = false;
    counters_ = twin_->counters();
    access(kWatchReads);
    host_ = std::max(host_, twin_->end());
    access(code_ != 0 ? 5 : 3);  // COMMANDS, STATUS; ERROR and ERROR_PC
    if (code_ != 0) error = error_;
    return code_;
}

dlavm_counters Core::counters() const {
    access(8);
    dlavm_counters counters = sim_.counters();
    counters.cycles = counters_.cycles;
    return counters;
}

void Core::request_stop() noexcept {
    stop_ = true;
    sim_.request_stop();
}

}  // namespace dlavm::timed
