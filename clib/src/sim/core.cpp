// Registers of the functional core, and what surrounds the commands.
#include "sim/core.h"

#include <cfenv>
#include <cstdlib>
#include <cstring>

namespace dlavm::sim {

namespace {

using abi::kArgs;
using abi::kBusy;
using abi::kDone;
using abi::kFailed;
using abi::kOps;
using abi::kReset;
using abi::kStart;

constexpr uint32_t kArgScalar = 1;  // ARG[0] becomes s1

// The rounding and subnormal handling that the contract asks for, whatever the caller's thread has set.
class FloatEnvironment {
  public:
    FloatEnvironment() {
        std::fegetenv(&saved_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~FloatEnvironment() { std::fesetenv(&saved_); }
    FloatEnvironment(const FloatEnvironment&) = delete;
    FloatEnvironment& operator=(const FloatEnvironment&) = delete;

  private:
    std::fenv_t saved_;
};

const dlavm_config& checked(const dlavm_config& c) {
    const bool fits = c.header_words <= 2 && c.scalar_registers <= 32 && c.semaphores <= 32 &&
                      c.loop_depth <= 1024 && c.call_depth <= 1024 && c.act_slots <= 4;
    if (!fits) throw Misuse{DLAVM_BAD_ARGUMENT, "config: a limit of the target is larger than its encoding"};
    if (c.header_words < 2 && c.scalar_registers != 0) {
        throw Misuse{DLAVM_BAD_ARGUMENT, "config: scalar registers need two header words"};
    }
    return c;
}

bool within(uint32_t offset, uint32_t first, uint32_t count) {
    return offset >= first && offset < first + 4 * count;
}

uint32_t half_of(uint64_t value, uint32_t offset, uint32_t first) {
    return static_cast<uint32_t>(offset == first ? value : value >> 32);
}

}  // namespace

Core::Core(const dlavm_config& config)
    : config_(checked(config)), machine_(config), hazards_(config.semaphores) {}

dlavm_device_info Core::info() const {
    return {"sim", machine_.kernels->name, machine_.pool.size(), DLAVM_ABI_VERSION};
}

void Core::set_option(const std::string& name, const std::string& value) {
    char* end = nullptr;
    const long number = std::strtol(value.c_str(), &end, 10);
    const bool numeric = !value.empty() && *end == 0;
    if (name == "threads" && numeric && number >= 0 && number <= 1024) {
        machine_.set_threads(static_cast<unsigned>(number));
    } else if (name == "check_hazards" && numeric && (number == 0 || number == 1)) {
        check_hazards_ = number == 1;
        hazards_.reset();
    } else if (name == "simd" && find_kernels(value.c_str()) != nullptr) {
        machine_.kernels = find_kernels(value.c_str());
    } else if (name == "threads" || name == "check_hazards" || name == "simd") {
        throw Misuse{DLAVM_BAD_ARGUMENT, format("option %s: not a value that this machine can take: '%.40s'",
                                                name.c_str(), value.c_str())};
    } else {
        throw Misuse{DLAVM_NOT_FOUND,
                     format("option: expected threads, simd or check_hazards, got '%.40s'", name.c_str())};
    }
}

void Core::mem_read(uint64_t address, void* out, uint64_t bytes) {
    abi::find_or_throw(machine_.memory.spaces(), "mem_read", address, bytes);
    machine_.memory.read(address, out, bytes);
}

void Core::mem_write(uint64_t address, const void* in, uint64_t bytes) {
    abi::find_or_throw(machine_.memory.spaces(), "mem_write", address, bytes);
    machine_.memory.write(address, in, bytes);
}

void Core::mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    machine_.memory.map(address, channel, path, bytes);
}

uint32_t Core::csr_read(uint32_t offset) {
    abi::check_readable(config_, offset);
    if (offset == isa::kRegId) return config_.id;
    if (offset == isa::kRegStatus) return status_;
    if (offset == isa::kRegError) return error_;
    if (offset == isa::kRegErrorPc) return error_pc_;
    if (within(offset, isa::kRegCycles, 2)) return half_of(counters_.cycles, offset, isa::kRegCycles);
    if (within(offset, isa::kRegCommands, 2)) return half_of(counters_.commands, offset, isa::kRegCommands);
    if (within(offset, isa::kRegBytesRead, 2))
        return half_of(counters_.bytes_read, offset, isa::kRegBytesRead);
    if (within(offset, isa::kRegBytesWritten, 2))
        return half_of(counters_.bytes_written, offset, isa::kRegBytesWritten);
    // Channels and engines take no time here.
    if (offset > isa::kRegChannel && offset < isa::kRegLaunch) return 0;
    return writable(offset);
}

uint32_t& Core::writable(uint32_t offset) {
    if (offset == isa::kRegProgram) return program_;
    if (offset == isa::kRegProgramWords) return program_words_;
    if (offset == isa::kRegChannel) return channel_;
    if (within(offset, isa::kRegArg, kArgs)) return args_[(offset - isa::kRegArg) / 4];
    return op_[(offset - isa::kRegOp) / 4];
}

int Core::csr_write(uint32_t offset, uint32_t value, std::string& error) {
    abi::check_writable(config_, offset);
    if (offset == isa::kRegControl) {
        if (value & kReset) reset();
        if (value & kStart) start();
        return 0;
    }
    if (offset == isa::kRegLaunch) return launch(value, error);
    writable(offset) = value;
    return 0;
}

void Core::reset() {
    machine_.reset();
    machine_.stop = false;
    status_ = error_ = error_pc_ = program_ = program_words_ = channel_ = 0;
    std::memset(args_, 0, sizeof args_);
    std::memset(op_, 0, sizeof op_);
    std::memset(scalars_, 0, sizeof scalars_);
    counters_ = {};
    hazards_.reset();
    loops_.clear();
    calls_.clear();
    pc_ = 0;
}

void Core::start() {
    counters_ = {};
    error_ = error_pc_ = 0;
    std::memset(scalars_, 0, sizeof scalars_);
    for (uint32_t i = 0; i < kArgs; ++i) set_scalar(kArgScalar + i, args_[i]);
    hazards_.reset();
    loops_.clear();
    calls_.clear();
    pc_ = 0;
    status_ = abi::has_stream(config_) ? kBusy : kDone;
}

int Core::stopped(const Fault& fault, const std::string& where, std::string& error) {
    status_ = kFailed;
    error_ = static_cast<uint32_t>(fault.code);
    error_pc_ = static_cast<uint32_t>(pc_);
    error_text_ = where + ": " + isa::kErrorNames[error_] + ": " + fault.text;
    error = error_text_;
    return static_cast<int>(error_);
}

int Core::launch(uint32_t opcode, std::string& error) {
    const FloatEnvironment environment;
    const isa::CommandInfo* info = nullptr;
    for (const isa::CommandInfo& c : isa::kCommands) {
        const bool present = opcode < 256 && (config_.opcode_mask[opcode / 64] >> opcode % 64 & 1) != 0;
        if (c.opcode == opcode && present && c.engine >= 0) info = &c;
    }
    error_ = 0;
    try {
        if (info == nullptr) {
            throw Fault{isa::Error::kIllegalOpcode,
                        format("opcode 0x%02x is unknown to this target", opcode)};
        }
        ++counters_.commands;
        last_ = {};
        last_.info = info;
        std::memcpy(last_.words, op_, sizeof op_);
        execute(*info, op_);
    } catch (const Fault& fault) {
        return stopped(fault, info == nullptr ? "LAUNCH" : std::string(info->name), error);
    }
    status_ = kDone;
    return 0;
}

int Core::run(uint64_t max_commands, uint64_t& executed, std::string& error) {
    const FloatEnvironment environment;
    executed = 0;
    if (status_ & kFailed) {
        error = error_text_;
        return static_cast<int>(error_);
    }
    while ((status_ & kBusy) != 0 && (max_commands == 0 || executed < max_commands) &&
           !machine_.stop.load(std::memory_order_relaxed)) {
        ++executed;
        try {
            step();
        } catch (const Fault& fault) {
            const uint32_t opcode =
                machine_.memory.find(uint64_t{program_} * isa::kAddressUnit + 4 * pc_, 4) != nullptr
                    ? program_word(pc_) & 0xff
                    : 0;
            const char* name = "command";
            for (const isa::CommandInfo& c : isa::kCommands) {
                if (c.opcode == opcode && fault.code != isa::Error::kIllegalOpcode) name = c.name;
            }
            return stopped(fault, format("%s at word %llu", name, static_cast<unsigned long long>(pc_)),
                           error);
        }
    }
    return 0;
}

}  // namespace dlavm::sim
