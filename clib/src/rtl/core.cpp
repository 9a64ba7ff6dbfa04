#include "rtl/core.h"

#include <cstdlib>
#include <vector>

#include "abi/misuse.h"
#include "abi/registers.h"

namespace dlavm::rtl {

using abi::format;
using abi::Misuse;

namespace {

constexpr uint64_t kPiece = 10000;          // cycles between looks at the stop
constexpr uint64_t kControl = 100'000'000;  // cycles that CONTROL may take, a reset while a command runs

uint64_t number(const std::string& name, const std::string& value, uint64_t most) {
    char* end = nullptr;
    const unsigned long long result = std::strtoull(value.c_str(), &end, 10);
    if (value.empty() || value[0] == '-' || *end != 0 || result > most) {
        throw Misuse{DLAVM_BAD_ARGUMENT, format("option %s: expected 0..%llu, got '%.40s'", name.c_str(),
                                                static_cast<unsigned long long>(most), value.c_str())};
    }
    return result;
}

}  // namespace

Core::Core(const std::string& path, const dlavm_config& config)
    : config_(config), memory_(config), library_(path), model_(nullptr) {
    std::vector<dlavm_rtl_channel> channels;
    for (const sim::Space& space : memory_.spaces()) {
        if (space.port_bytes != config.memories[0].port_bytes)
            throw Misuse{DLAVM_BAD_ARGUMENT, "open: rtl: channels of several widths"};
        for (uint32_t c = 0; c < space.channels; ++c)
            channels.push_back({space.channel(c), space.channel_bytes});
    }
    model_ =
        library_.open(channels.data(), static_cast<uint32_t>(channels.size()), config.memories[0].port_bytes);
    if (model_ == nullptr)
        throw Misuse{DLAVM_BAD_ARGUMENT, "open: rtl: " + path + ": built for a board with other memory"};
}

Core::~Core() { library_.close(model_); }

dlavm_device_info Core::info() const { return {"rtl", "none", 1, DLAVM_ABI_VERSION}; }

void Core::set_option(const std::string& name, const std::string& value) {
    if (name == "latency") {
        timing_.latency =
            value == "board" ? DLAVM_RTL_BOARD_TIMING : static_cast<uint32_t>(number(name, value, 100000));
    } else if (name == "timing") {
        if (const char* wrong = library_.set_timing(model_, value.c_str()))
            throw Misuse{DLAVM_BAD_ARGUMENT, format("option timing: %s", wrong)};
    } else if (name == "stalls") {
        timing_.stalls = static_cast<uint32_t>(number(name, value, 999));
    } else if (name == "seed") {
        timing_.seed = number(name, value, UINT32_MAX);
    } else if (name == "fault") {
        timing_.fault = value == "none" ? DLAVM_RTL_NO_FAULT : number(name, value, uint64_t{1} << 60);
    } else if (name == "max_cycles") {
        max_cycles_ = number(name, value, uint64_t{1} << 60);
    } else if (name != "threads") {  // a Verilated core has one, whatever is asked for
        throw Misuse{DLAVM_NOT_FOUND, format("option: a Verilated core has latency, timing, stalls, seed, "
                                             "fault and max_cycles, got '%.40s'",
                                             name.c_str())};
    }
    library_.set_memory(model_, &timing_);
}

void Core::mem_read(uint64_t address, void* out, uint64_t bytes) {
    abi::find_or_throw(memory_.spaces(), "mem_read", address, bytes);
    memory_.read(address, out, bytes);
}

void Core::mem_write(uint64_t address, const void* in, uint64_t bytes) {
    abi::find_or_throw(memory_.spaces(), "mem_write", address, bytes);
    memory_.write(address, in, bytes);
}

void Core::mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    memory_.map(address, channel, path, bytes);
}

uint32_t Core::csr_read(uint32_t offset) {
    abi::check_readable(config_, offset);
    return library_.read(model_, offset);
}

int Core::csr_write(uint32_t offset, uint32_t value, std::string&) {
    abi::check_writable(config_, offset);
    library_.write(model_, offset, value);
    if (offset != isa::kRegControl) return 0;
    for (uint64_t cycles = 0; library_.read(model_, offset) != 0;) {
        cycles += library_.run(model_, 64) + 1;
        if (cycles > kControl) throw Misuse{DLAVM_SYSTEM, "CONTROL: the core does not take it"};
    }
    started_ = (value & abi::kStart) != 0;
    if ((value & abi::kReset) != 0) stop_ = false;
    return 0;
}

int Core::run(uint64_t max_commands, uint64_t& executed, std::string& error) {
    executed = 0;
    if (max_commands != 0) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     "run: a core runs a program to its end: expected max_commands 0, got " +
                         std::to_string(max_commands)};
    }
    if (started_) {
        uint64_t cycles = 0, passed = kPiece;
        while (!stop_ && passed == kPiece && cycles < max_cycles_) {
            passed = library_.run(model_, kPiece);
            cycles += passed;
        }
        if (stop_) return 0;
        if (passed == kPiece)
            throw Misuse{DLAVM_SYSTEM, format("run: the core did not finish within %llu cycles",
                                              static_cast<unsigned long long>(cycles))};
        started_ = false;
        executed = pair(isa::kRegCommands);
    }
    return (library_.read(model_, isa::kRegStatus) & abi::kFailed) != 0 ? stopped(error) : 0;
}

int Core::stopped(std::string& error) const {
    const uint32_t code = library_.read(model_, isa::kRegError);
    constexpr uint32_t codes = sizeof isa::kErrorNames / sizeof *isa::kErrorNames;
    if (code == 0 || code >= codes)
        throw Misuse{DLAVM_SYSTEM,
                     format("run: register ERROR: expected a code of 1..%u, got %u", codes - 1, code)};
    error = format("command at word %u: %s: stopped the core", library_.read(model_, isa::kRegErrorPc),
                   isa::kErrorNames[code]);
    return static_cast<int>(code);
}

uint64_t Core::pair(uint32_t offset) const {
    const uint64_t low = library_.read(model_, offset);
    return low | uint64_t{library_.read(model_, offset + 4)} << 32;
}

dlavm_counters Core::counters() const {
    return {pair(isa::kRegCycles), pair(isa::kRegCommands), pair(isa::kRegBytesRead),
            pair(isa::kRegBytesWritten)};
}

}  // namespace dlavm::rtl
