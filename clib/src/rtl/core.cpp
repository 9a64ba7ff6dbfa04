#include "rtl/core.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "abi/misuse.h"
#include "abi/registers.h"

namespace dlavm::rtl {

using abi::format;
using abi::Misuse;

namespace {

constexpr uint64_t kPiece = 10000;   // cycles between looks at the stop
constexpr uint64_t kReset = 50'000;  // cycles that engines have to end what they run
constexpr const char* kTrace = "?trace=";

uint64_t number(const std::string& name, const std::string& value, uint64_t most) {
    char* end = nullptr;
    const unsigned long long result = std::strtoull(value.c_str(), &end, 10);
    if (value.empty() || value[0] == '-' || *end != 0 || result > most) {
        throw Misuse{DLAVM_BAD_ARGUMENT, format("option %s: expected 0..%llu, got '%.40s'", name.c_str(),
                                                static_cast<unsigned long long>(most), value.c_str())};
    }
    return result;
}

// The part of a URL behind `mark`, cut off from it; empty where there is none.
std::string cut(std::string& text, const char* mark) {
    const size_t at = text.find(mark);
    if (at == std::string::npos) return "";
    const std::string rest = text.substr(at + std::strlen(mark));
    text.resize(at);
    return rest;
}

std::string library_path(std::string rest) {
    cut(rest, kTrace);
    return rest;
}

}  // namespace

// Notices a core that neither counts a command nor moves a beat any more.
class Core::Watch {
  public:
    explicit Watch(Core& core) : core_(core), seen_(activity()) {}

    // Throws Misuse, after the core was reset from outside, once it has done nothing for too long.
    void passed(uint64_t cycles, const char* call) {
        idle_ += cycles;
        if (idle_ < core_.idle_cycles_ && idle_ < next_) return;
        const uint64_t now = activity();
        if (now != seen_) idle_ = 0;
        seen_ = now;
        next_ = idle_ + kPiece;
        if (idle_ < core_.idle_cycles_) return;
        const uint64_t commands = core_.pair(isa::kRegCommands);
        core_.library_.restart(core_.model_);
        core_.started_ = false;
        throw Misuse{
            DLAVM_SYSTEM,
            format("%s: the core hangs: no command and no beat of memory for %llu cycles, "
                   "after %llu commands; it was reset",
                   call, static_cast<unsigned long long>(idle_), static_cast<unsigned long long>(commands))};
    }

  private:
    uint64_t activity() const {
        uint64_t sum = core_.pair(isa::kRegCommands);
        for (uint32_t i = 0; i < core_.channels_; ++i) {
            const dlavm_rtl_traffic traffic = core_.library_.traffic_of(core_.model_, i);
            sum += traffic.read_beats + traffic.written_beats;
        }
        return sum;
    }

    Core& core_;
    uint64_t seen_, idle_ = 0, next_ = kPiece;
};

Core::Core(const std::string& rest, const dlavm_config& config)
    : config_(config), memory_(config), library_(library_path(rest)), model_(nullptr) {
    std::vector<dlavm_rtl_channel> channels;
    for (const sim::Space& space : memory_.spaces()) {
        for (uint32_t c = 0; c < space.channels; ++c)
            channels.push_back({space.channel(c), space.channel_bytes});
    }
    channels_ = static_cast<uint32_t>(channels.size());
    std::string path = rest;
    const std::string waves = cut(path, kTrace);
    model_ = library_.open(channels.data(), channels_, config.memories[0].port_bytes);
    if (model_ == nullptr)
        throw Misuse{DLAVM_BAD_ARGUMENT, "open: rtl: " + path + ": built for a board with other memory"};
    try {
        if (path != rest) open_waves(waves);
    } catch (...) {
        library_.close(model_);
        throw;
    }
}

// `text`: what follows `?trace=`.
void Core::open_waves(const std::string& text) {
    std::string file = text;
    const std::string cycles = cut(file, "&cycles=");
    char* colon = nullptr;
    char* end = nullptr;
    const unsigned long long first = std::strtoull(cycles.c_str(), &colon, 10);
    const unsigned long long last = *colon == ':' ? std::strtoull(colon + 1, &end, 10) : 0;
    if (file.empty() || cycles[0] == ':' || cycles.find_first_not_of("0123456789:") != std::string::npos ||
        end == nullptr || *end != 0 || first >= last) {
        throw Misuse{
            DLAVM_BAD_ARGUMENT,
            format("open: rtl: expected ?trace=FILE&cycles=A:B with A below B, got '%.80s'", text.c_str())};
    }
    const int status = library_.trace(model_, file.c_str(), first, last);
    if (status == 1)
        throw Misuse{DLAVM_BAD_ARGUMENT, "open: rtl: the library was built without waves, got trace=" + file};
    if (status != 0) throw Misuse{DLAVM_SYSTEM, "open: rtl: trace: " + file + ": cannot be written"};
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
        timing_.stalls = static_cast<uint32_t>(number(name, value, 1000));
    } else if (name == "seed") {
        timing_.seed = number(name, value, UINT32_MAX);
    } else if (name == "fault") {
        timing_.fault = value == "none" ? DLAVM_RTL_NO_FAULT : number(name, value, uint64_t{1} << 60);
    } else if (name == "max_cycles") {
        max_cycles_ = number(name, value, uint64_t{1} << 60);
    } else if (name == "idle_cycles") {
        idle_cycles_ = number(name, value, uint64_t{1} << 60);
    } else if (name != "threads") {  // a Verilated core has one, whatever is asked for
        throw Misuse{DLAVM_NOT_FOUND, format("option: a Verilated core has latency, timing, stalls, seed, "
                                             "fault, max_cycles and idle_cycles, got '%.40s'",
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

int Core::csr_write(uint32_t offset, uint32_t value, std::string& error) {
    abi::check_writable(config_, offset);
    library_.write(model_, offset, value);
    if (offset == isa::kRegLaunch) {
        started_ = false;
        return ends("LAUNCH") ? result("LAUNCH", error) : 0;
    }
    if (offset == isa::kRegControl) control(value);
    return 0;
}

// Waits until the core has taken a start or a reset.
void Core::control(uint32_t value) {
    const bool reset = (value & abi::kReset) != 0;
    started_ = (value & abi::kStart) != 0;
    if (reset) stop_ = false;
    Watch watch(*this);
    for (uint64_t cycles = 0; !stop_ && library_.read(model_, isa::kRegControl) != 0;) {
        const uint64_t passed = library_.run(model_, 64) + 1;
        cycles += passed;
        watch.passed(passed, "CONTROL");
        if (!reset || cycles < kReset) continue;
        library_.restart(model_);
        throw Misuse{DLAVM_SYSTEM,
                     format("CONTROL: the core did not end what it runs within %llu cycles; it was "
                            "reset from outside",
                            static_cast<unsigned long long>(cycles))};
    }
}

int Core::run(uint64_t max_commands, uint64_t& executed, std::string& error) {
    executed = 0;
    if (max_commands != 0) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     "run: a core runs a program to its end: expected max_commands 0, got " +
                         std::to_string(max_commands)};
    }
    if (started_) {
        if (!ends("run")) return 0;
        started_ = false;
        executed = pair(isa::kRegCommands);
    }
    return result("run", error);
}

// Clocks the core to the end of what it was told to do. False: another thread stopped it.
bool Core::ends(const char* call) {
    Watch watch(*this);
    for (uint64_t cycles = 0; !stop_;) {
        const uint64_t piece = std::min(kPiece, max_cycles_ - cycles);
        const uint64_t passed = library_.run(model_, piece);
        if (passed < piece) return true;
        cycles += passed;
        if (cycles == max_cycles_)
            throw Misuse{DLAVM_SYSTEM, format("%s: the core did not finish within %llu cycles", call,
                                              static_cast<unsigned long long>(cycles))};
        watch.passed(passed, call);
    }
    return false;
}

// 0, or the error that STATUS tells of.
int Core::result(const char* call, std::string& error) const {
    if ((library_.read(model_, isa::kRegStatus) & abi::kFailed) == 0) return 0;
    const uint32_t code = library_.read(model_, isa::kRegError);
    constexpr uint32_t codes = sizeof isa::kErrorNames / sizeof *isa::kErrorNames;
    if (code == 0 || code >= codes)
        throw Misuse{DLAVM_SYSTEM,
                     format("%s: register ERROR: expected a code of 1..%u, got %u", call, codes - 1, code)};
    const std::string where = abi::has_stream(config_)
                                  ? format("command at word %u", library_.read(model_, isa::kRegErrorPc))
                                  : call;
    error = where + ": " + isa::kErrorNames[code] + ": stopped the core";
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
