#include "timed/core.h"

#include <cstdlib>
#include <cstring>

#include "abi/misuse.h"
#include "abi/registers.h"

namespace dlavm::timed {

using abi::format;
using abi::Misuse;

namespace {

constexpr uint64_t kPiece = 1'000'000;  // cycles between looks at the stop
constexpr uint32_t kFirstArg = 1;       // ARG[0] becomes s1

uint64_t number(const std::string& name, const std::string& value, uint64_t least, uint64_t most) {
    char* end = nullptr;
    const unsigned long long result = std::strtoull(value.c_str(), &end, 10);
    if (value.empty() || value[0] == '-' || *end != 0 || result < least || result > most) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     format("option %s: expected %llu..%llu, got '%.40s'", name.c_str(),
                            static_cast<unsigned long long>(least), static_cast<unsigned long long>(most),
                            value.c_str())};
    }
    return result;
}

uint32_t lanes_of(const std::string& text) {
    const uint64_t lanes = number("lanes", text, 8, vector::kVirtual);
    if ((lanes & (lanes - 1)) != 0)
        throw Misuse{DLAVM_BAD_ARGUMENT, "open: timed: expected a power of two of vector lanes, got " + text};
    return static_cast<uint32_t>(lanes);
}

}  // namespace

Core::Core(const std::string& lanes, const dlavm_config& config)
    : shape_(shape_of(config, lanes_of(lanes))), sim_(config) {
    if (config.header_words != 2)
        throw Misuse{DLAVM_BAD_ARGUMENT, "open: timed: expected a target with a stream and scalars"};
    reset_twin();
}

void Core::reset_twin() {
    twin_ = std::make_unique<Twin>(shape_);
    twin_->set_skip(skip_);
}

dlavm_device_info Core::info() const {
    dlavm_device_info info = sim_.info();
    info.engine = "timed";
    return info;
}

void Core::set_option(const std::string& name, const std::string& value) {
    if (name == "latency") {
        shape_.latency = static_cast<uint32_t>(number(name, value, 0, 100000));
    } else if (name == "fold") {
        shape_.fold = number(name, value, 0, 1) == 1;
    } else if (name == "skip") {
        skip_ = number(name, value, 0, 1) == 1;
    } else if (name == "timing_only") {
        sim_.set_kernels(number(name, value, 0, 1) == 0);
    } else {
        return sim_.set_option(name, value);
    }
    reset_twin();
}

void Core::mem_read(uint64_t address, void* out, uint64_t bytes) { sim_.mem_read(address, out, bytes); }

void Core::mem_write(uint64_t address, const void* in, uint64_t bytes) {
    sim_.mem_write(address, in, bytes);
}

void Core::mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    sim_.mem_map(address, channel, path, bytes);
}

uint32_t Core::csr_read(uint32_t offset) {
    if (offset == isa::kRegCycles) return static_cast<uint32_t>(cycles_);
    if (offset == isa::kRegCycles + 4) return static_cast<uint32_t>(cycles_ >> 32);
    return sim_.csr_read(offset);
}

int Core::csr_write(uint32_t offset, uint32_t value, std::string& error) {
    const int code = sim_.csr_write(offset, value, error);
    if (offset != isa::kRegControl) return code;
    if ((value & abi::kReset) != 0) {
        stop_ = false;
        reset_twin();
    }
    cycles_ = 0;
    started_ = (value & abi::kStart) != 0;
    begun_ = false;
    return code;
}

// Executes a command and tells the twin what it was.
CommandPtr Core::next() {
    uint64_t executed = 0;
    code_ = sim_.run(1, executed, error_);
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

int Core::run(uint64_t max_commands, uint64_t& executed, std::string& error) {
    executed = 0;
    if (max_commands != 0) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     "run: a core runs a program to its end: expected max_commands 0, got " +
                         std::to_string(max_commands)};
    }
    if (!started_) return sim_.run(0, executed, error);
    if (!begun_) {
        begun_ = true;
        executed_ = 0;
        code_ = 0;
        const uint64_t program = uint64_t{sim_.csr_read(isa::kRegProgram)} * isa::kAddressUnit;
        twin_->start(program, sim_.csr_read(isa::kRegProgramWords), *this, nullptr);
    }
    bool ended = false;
    while (!ended && !stop_) ended = twin_->run(kPiece);
    executed = executed_;
    if (!ended) return 0;
    started_ = false;
    cycles_ = twin_->cycles();
    if (code_ != 0) error = error_;
    return code_;
}

dlavm_counters Core::counters() const {
    dlavm_counters counters = sim_.counters();
    counters.cycles = cycles_;
    return counters;
}

void Core::request_stop() noexcept {
    stop_ = true;
    sim_.request_stop();
}

}  // namespace dlavm::timed
