#include "xdma/card.h"

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "abi/file.h"
#include "abi/misuse.h"
#include "abi/registers.h"

namespace dlavm::xdma {

using abi::ChannelRange;
using abi::format;
using abi::Misuse;
using abi::Space;
using abi::Stripes;
using Clock = std::chrono::steady_clock;

namespace {

constexpr uint64_t kPiece = uint64_t{4} << 20;  // bytes that stand in host memory at a time
constexpr uint32_t kNoAnswer = 0xffffffff;      // what a read gives on a bus without the card
constexpr std::chrono::microseconds kSpin(20), kLongestPause(200);
constexpr std::chrono::milliseconds kResetTime(100);  // of a card that did not answer in time

uint64_t physical_address(const Space& space, uint32_t channel, uint64_t offset) {
    return space.base + channel * space.channel_bytes + offset;
}

}  // namespace

Card::Card(const std::string& prefix, const dlavm_config& config)
    : config_(config), spaces_(abi::spaces_of(config)), dma_(prefix), registers_(prefix) {}

dlavm_device_info Card::info() const { return {"xdma", "none", 0, DLAVM_ABI_VERSION}; }

void Card::set_option(const std::string& name, const std::string& value) {
    if (name != "timeout_ms") {
        throw Misuse{DLAVM_NOT_FOUND,
                     format("option: a card behind xdma: has timeout_ms, got '%.40s'", name.c_str())};
    }
    char* end = nullptr;
    const long number = std::strtol(value.c_str(), &end, 10);
    if (value.empty() || *end != 0 || number < 1 || number > 1000000000) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     format("option timeout_ms: expected 1..1000000000, got '%.40s'", value.c_str())};
    }
    timeout_ = std::chrono::milliseconds(number);
}

// Cuts linear bytes into pieces that fit the bounce buffer: piece(offset in the space, done so far, length).
template <class Piece>
void Card::each_piece(const Space& space, uint64_t address, uint64_t bytes, Piece piece) {
    const uint64_t most = std::max(kPiece / space.beat_row(), uint64_t{1}) * space.beat_row();
    for (uint64_t done = 0; done < bytes; done += std::min(most, bytes - done))
        piece(address - space.base + done, done, std::min(most, bytes - done));
}

// The beat rows that linear bytes touch, as host memory: one contiguous part a channel.
Stripes Card::bounce(const Space& space, uint64_t offset, uint64_t bytes) {
    const uint64_t rows = (offset + bytes - 1) / space.beat_row() - offset / space.beat_row() + 1;
    if (buffer_.size() < rows * space.beat_row()) buffer_.resize(rows * space.beat_row());
    return {buffer_.data(), rows * space.port_bytes, space.channels, space.port_bytes};
}

// One transfer a channel: transfer(address on the card, bytes in the bounce buffer, length).
template <class Transfer>
void Card::each_channel(const Space& space, uint64_t offset, uint64_t bytes, const Stripes& bounce,
                        Transfer transfer) const {
    const uint64_t first = offset / space.beat_row() * space.port_bytes;
    for (uint32_t channel = 0; channel < space.channels; ++channel) {
        const ChannelRange range = abi::channel_range(space, offset, bytes, channel);
        if (range.begin == range.end) continue;
        transfer(physical_address(space, channel, range.begin),
                 bounce.data + channel * bounce.pitch + range.begin - first, range.end - range.begin);
    }
}

void Card::mem_read(uint64_t address, void* out, uint64_t bytes) {
    const Space& space = abi::find_or_throw(spaces_, "mem_read", address, bytes);
    if (space.channels == 1) return dma_.read(address, out, bytes);
    each_piece(space, address, bytes, [&](uint64_t offset, uint64_t done, uint64_t length) {
        const Stripes stripes = bounce(space, offset, length);
        each_channel(space, offset, length, stripes,
                     [&](uint64_t physical, uint8_t* at, uint64_t count) { dma_.read(physical, at, count); });
        abi::gather(stripes, offset % space.beat_row(), static_cast<uint8_t*>(out) + done, length);
    });
}

void Card::mem_write(uint64_t address, const void* in, uint64_t bytes) {
    const Space& space = abi::find_or_throw(spaces_, "mem_write", address, bytes);
    if (space.channels == 1) return dma_.write(address, in, bytes);
    each_piece(space, address, bytes, [&](uint64_t offset, uint64_t done, uint64_t length) {
        const Stripes stripes = bounce(space, offset, length);
        abi::scatter(stripes, offset % space.beat_row(), static_cast<const uint8_t*>(in) + done, length);
        each_channel(space, offset, length, stripes, [&](uint64_t physical, uint8_t* at, uint64_t count) {
            dma_.write(physical, at, count);
        });
    });
}

void Card::mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    const Space* space = abi::find(spaces_, address, bytes);
    const uint64_t offset = abi::image_offset(space, address, channel, bytes);
    if (bytes == 0) return;
    abi::read_image(path, bytes, kPiece, [&](uint64_t done, const uint8_t* data, uint64_t length) {
        dma_.write(physical_address(*space, channel, offset + done), data, length);
    });
}

uint32_t Card::csr_read(uint32_t offset) {
    abi::check_readable(config_, offset);
    return registers_.read(offset);
}

int Card::csr_write(uint32_t offset, uint32_t value, std::string& error) {
    abi::check_writable(config_, offset);
    if (offset == isa::kRegControl) {
        take(offset, "CONTROL", value);
        started_ = (value & abi::kStart) != 0;
        if ((value & abi::kReset) != 0) stop_ = false;
    } else if (offset == isa::kRegLaunch) {
        take(offset, "LAUNCH", value);
        return finish("LAUNCH", error);
    } else {
        registers_.write(offset, value);
    }
    return 0;
}

int Card::run(uint64_t max_commands, uint64_t& executed, std::string& error) {
    executed = 0;
    if (max_commands != 0) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     "run: a card runs a program to its end: expected max_commands 0, got " +
                         std::to_string(max_commands)};
    }
    if (!started_) return (answer(isa::kRegStatus, "STATUS") & abi::kFailed) != 0 ? stopped("run", error) : 0;
    const int code = finish("run", error);
    started_ = false;
    executed = registers_.read_pair(isa::kRegCommands);
    return code;
}

dlavm_counters Card::counters() const {
    return {registers_.read_pair(isa::kRegCycles), registers_.read_pair(isa::kRegCommands),
            registers_.read_pair(isa::kRegBytesRead), registers_.read_pair(isa::kRegBytesWritten)};
}

void Card::request_stop() noexcept {
    stop_ = true;
    registers_.write(isa::kRegControl, abi::kReset);
}

// Writes a register that makes the card act, and waits until it has: such a register then reads as zero.
void Card::take(uint32_t offset, const char* name, uint32_t value) {
    registers_.write(offset, value);
    if (wait(timeout_, [&] { return answer(offset, name) == 0; })) return;
    throw Misuse{DLAVM_SYSTEM,
                 registers_.path() + format(": %s: the card did not take 0x%x within %lld ms", name, value,
                                            static_cast<long long>(timeout_.count()))};
}

// Waits for the end of what was started; 0, or the core's error with its text.
int Card::finish(const char* call, std::string& error) {
    uint32_t status = 0;
    const bool over = wait(timeout_, [&] {
        status = answer(isa::kRegStatus, "STATUS");
        return (status & abi::kBusy) == 0 || stop_;
    });
    if (stop_) return 0;
    if (!over) {
        started_ = false;
        registers_.write(isa::kRegControl, abi::kReset);
        wait(kResetTime, [&] { return registers_.read(isa::kRegControl) == 0; });
        throw Misuse{DLAVM_SYSTEM, format("%s: the card did not finish within %lld ms; it was reset", call,
                                          static_cast<long long>(timeout_.count()))};
    }
    if ((status & abi::kFailed) != 0) return stopped(call, error);
    if ((status & abi::kDone) == 0) {
        throw Misuse{DLAVM_SYSTEM,
                     format("%s: register STATUS: expected done or error, got 0x%08x", call, status)};
    }
    return 0;
}

int Card::stopped(const char* call, std::string& error) const {
    constexpr uint32_t codes = sizeof isa::kErrorNames / sizeof *isa::kErrorNames;
    const uint32_t code = registers_.read(isa::kRegError);
    if (code == 0 || code >= codes) {
        throw Misuse{DLAVM_SYSTEM,
                     format("%s: register ERROR: expected a code of 1..%u, got %u", call, codes - 1, code)};
    }
    const std::string where =
        abi::has_stream(config_) ? format("command at word %u", registers_.read(isa::kRegErrorPc)) : call;
    error = where + ": " + isa::kErrorNames[code] + ": stopped the card";
    return static_cast<int>(code);
}

// A register that never has all bits set.
uint32_t Card::answer(uint32_t offset, const char* name) const {
    const uint32_t value = registers_.read(offset);
    if (value == kNoAnswer)
        throw Misuse{DLAVM_SYSTEM,
                     registers_.path() + ": " + name + " reads 0xffffffff: the card does not answer"};
    return value;
}

// Waits for a condition; false: it did not come. Short waits spin: a thread's sleep is longer than they are.
template <class Condition>
bool Card::wait(std::chrono::milliseconds longest, Condition over) const {
    const Clock::time_point begin = Clock::now();
    std::chrono::microseconds pause(1);
    for (;;) {
        const Clock::duration passed = Clock::now() - begin;
        if (over()) return true;
        if (passed >= longest) return false;
        if (passed < kSpin) continue;
        std::this_thread::sleep_for(pause);
        pause = std::min(2 * pause, kLongestPause);
    }
}

}  // namespace dlavm::xdma
