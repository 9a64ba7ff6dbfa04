// Random and malformed registers, streams and fields through the C interface. Run under the sanitizers
// (tests/unit/test_native_sanitizers.py): the only result is that nothing is found.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "dlavm/device.h"
#include "dlavm_isa.h"

namespace isa = dlavm::isa;

namespace {

using Words = std::vector<uint32_t>;

constexpr uint64_t kCapacity = 1 << 20;
constexpr uint64_t kSecondBase = uint64_t{1} << 24;
constexpr uint32_t kUnits = kCapacity / isa::kAddressUnit;
constexpr uint32_t kProgram = kUnits - (1 << 13);  // the last 128 KiB, which commands rarely write

std::mt19937 rng(12345);

uint32_t below(uint32_t n) { return n == 0 ? 0 : static_cast<uint32_t>(rng() % n); }
bool chance(uint32_t percent) { return below(100) < percent; }

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "stress: %s\n", what);
    std::exit(1);
}

dlavm_config config(uint32_t header_words) {
    dlavm_config c = {};
    c.abi_version = DLAVM_ABI_VERSION;
    c.header_words = header_words;
    c.act_slots = 4;
    if (header_words == 2) {
        c.scalar_registers = c.semaphores = 32;
        c.loop_depth = c.call_depth = 8;
    }
    c.memory_count = 2;
    c.memories[0] = {0, kCapacity, 2, 16};
    c.memories[1] = {kSecondBase, kCapacity, 1, 16};
    for (const isa::CommandInfo& info : isa::kCommands) {
        c.opcode_mask[info.opcode / 64] |= uint64_t{1} << info.opcode % 64;
    }
    c.activation_elements = 3000;
    c.accumulators = 4096;
    c.weight_formats = ~0u;
    return c;
}

// A word of a payload: small numbers, addresses, powers of two and their neighbours, anything. Row counts
// must stay small where strides are zero, or one command takes hours by right; hence mostly small numbers.
uint32_t any_word() {
    switch (below(16)) {
        case 0:
            return 0;
        case 1:
            return (1u << below(32)) - 1;
        case 2:
            return 1u << below(32);
        case 3:
            return rng();
        case 4:
            return below(kUnits);
        case 5:
            return kUnits - below(8);
        case 6:
            return static_cast<uint32_t>(kSecondBase / isa::kAddressUnit) + below(kUnits);
        case 7:
            return below(300);
        default:
            return 1 + below(40);
    }
}

// Words of one command; packed fields are mostly few bits, so that many decode.
Words payload(const isa::CommandInfo& info) {
    Words words(info.payload_words);
    for (unsigned i = 0; i < info.payload_words; ++i) {
        const bool packed = (info.dynamic_mask >> i & 1) == 0;
        words[i] = packed && chance(98) ? rng() & ((1u << below(14)) - 1) : any_word();
    }
    return words;
}

// Elements that a command handles, were all its bytes in memory: with strides of zero they can be, and then a
// command takes hours by right.
template <class Command>
double rows_times(const Words& w, double (*elements)(const Command&)) {
    Command c;
    isa::Error error;
    return Command::decode(w.data(), c, error) ? c.rows_o * elements(c) : 0;
}

double work(const isa::CommandInfo& info, const Words& w) {
    switch (static_cast<isa::Opcode>(info.opcode)) {
        case isa::Opcode::kLinear:
            return rows_times<isa::Linear>(
                w, [](const auto& c) { return 1.0 * c.batch * c.rows_i * c.k * c.n / 50; });
        case isa::Opcode::kNorm:
            return rows_times<isa::Norm>(w, [](const auto& c) { return 1.0 * c.rows_i * c.dim; });
        case isa::Opcode::kSoftmax:
            return rows_times<isa::Softmax>(w,
                                            [](const auto& c) { return 1.0 * c.batch * c.rows_i * c.width; });
        case isa::Opcode::kRope:
            return rows_times<isa::Rope>(w, [](const auto& c) { return 1.0 * c.rows_i * c.dim; });
        case isa::Opcode::kAct:
            return rows_times<isa::Act>(w, [](const auto& c) { return 1.0 * c.rows_i * c.dim; });
        case isa::Opcode::kEltwise:
            return rows_times<isa::Eltwise>(w, [](const auto& c) { return 1.0 * c.rows_i * c.dim; });
        case isa::Opcode::kArgmax:
            return rows_times<isa::Argmax>(w, [](const auto& c) { return 1.0 * c.n; });
        case isa::Opcode::kKvAppend:
            return rows_times<isa::KvAppend>(w, [](const auto& c) { return 1.0 * c.rows_i * c.dim; });
        case isa::Opcode::kGather:
            return rows_times<isa::Gather>(w, [](const auto& c) { return 1.0 * c.dim; });
        case isa::Opcode::kCopy:
            return rows_times<isa::Copy>(w, [](const auto& c) { return 1.0 * c.rows_i * c.dim; });
        default:
            return 0;
    }
}

// Makes a command that is too much work one that must be refused: rows that are further apart than the memory
// is large. False where that does not help.
bool bounded(const isa::CommandInfo& info, Words& w) {
    constexpr double too_much = 1e6;
    if (work(info, w) <= too_much) return true;
    const unsigned first = info.dynamic_mask & 1;  // 1: no packed word before the source rows
    for (unsigned i : {2, 3, 5, 6}) {
        if (i - first < w.size()) w[i - first] = chance(50) ? 0xffffffffu : kUnits + below(1 << 22);
    }
    const uint32_t rows_o = w.size() > 8 ? w[7 - first] : 0, rows_i = w.size() > 8 ? w[8 - first] : 0;
    return rows_o > 1 && rows_i > 1;
}

Words plausible_linear() {
    isa::Error error;
    isa::Linear c;
    for (;;) {
        Words w(23);
        w[0] = rng() & (chance(70) ? 0x1fe7 : 0x1fff);  // mostly without accumulators
        for (unsigned i = 1; i < 23; ++i) w[i] = below(64);
        w[1] = below(kUnits / 2);
        w[4] = kUnits / 2 + below(kUnits / 8);
        w[7] = 1 + below(4);
        w[8] = 1 + below(3);
        w[9] = 1 + below(chance(80) ? 300 : 2000);
        w[10] = 1 + below(chance(80) ? 200 : 4000);
        w[11] = below(kUnits / 4 * 3) & ~1u;
        w[12] = below(2000) & ~1u;
        w[13] = chance(70) ? 1 : below(4);
        w[15] &= ~1u;
        w[17] = below(kUnits / 2);
        w[18] = below(kUnits / 2);
        w[21] = rng();
        w[22] = below(kUnits / 2);
        if (isa::Linear::decode(w.data(), c, error)) return w;
    }
}

const isa::CommandInfo& any_command() {
    constexpr uint32_t count = sizeof isa::kCommands / sizeof *isa::kCommands;
    uint32_t i = below(count);
    if (chance(30)) {
        for (i = 0; isa::kCommands[i].opcode != static_cast<uint32_t>(isa::Opcode::kLinear);) ++i;
    }
    return isa::kCommands[i];
}

void append_command(Words& stream, uint32_t header_words) {
    const isa::CommandInfo& info = any_command();
    const bool linear = info.opcode == static_cast<uint32_t>(isa::Opcode::kLinear) && chance(90);
    Words words = linear ? plausible_linear() : payload(info);
    if (!bounded(info, words) || (info.engine < 0 && chance(70))) return;
    uint32_t length = header_words + static_cast<uint32_t>(words.size());
    if (chance(1)) length = below(256);
    uint32_t header = info.opcode | length << 8;
    if (header_words == 2 && chance(20)) header |= below(32) << 16;
    if (chance(1)) header ^= 1u << below(32);
    stream.push_back(header);
    if (header_words == 2) stream.push_back(chance(92) ? 0 : rng() & info.dynamic_mask & rng() & rng());
    stream.insert(stream.end(), words.begin(), words.end());
    if (chance(1) && !stream.empty()) stream[below(static_cast<uint32_t>(stream.size()))] ^= 1u << below(32);
}

void fill_memory(dlavm_device* device) {
    std::vector<uint32_t> noise(kCapacity / 4);
    for (uint32_t& x : noise) x = rng();
    require(dlavm_mem_write(device, 0, noise.data(), kCapacity) == 0, "filling memory failed");
    require(dlavm_mem_write(device, kSecondBase, noise.data(), kCapacity) == 0, "filling memory failed");
}

// Codes seen, so that the test can say that the stress is not all refused.
uint64_t seen[32];

void note(int code) {
    require(code >= 0 && code < 32, "a run is misuse");
    ++seen[code];
}

void run_stream(dlavm_device* device, const Words& stream) {
    dlavm_mem_write(device, uint64_t{kProgram} * isa::kAddressUnit, stream.data(), 4 * stream.size());
    dlavm_csr_write(device, isa::kRegProgram, chance(98) ? kProgram : rng());
    dlavm_csr_write(device, isa::kRegProgramWords, chance(98) ? static_cast<uint32_t>(stream.size()) : rng());
    for (uint32_t i = 0; i < 8; ++i) dlavm_csr_write(device, isa::kRegArg + 4 * i, any_word());
    dlavm_csr_write(device, isa::kRegControl, 1);
    uint64_t executed = 0;
    for (int i = 0; i < 4; ++i) {
        const int code = dlavm_run(device, 1 + below(40), &executed);
        if (i == 3 || code != 0) note(code);
        if (code == 0) continue;
        require(std::strlen(dlavm_error(device)) > 0, "an error without text");
        return;
    }
}

void stress_streams(uint32_t header_words, const char* simd, int rounds) {
    const dlavm_config c = config(header_words);
    dlavm_device* device = nullptr;
    require(dlavm_open("sim:", &c, &device) == 0, "open failed");
    if (dlavm_set_option(device, "simd", simd) != 0) return dlavm_close(device);
    dlavm_set_option(device, "threads", "2");
    for (int round = 0; round < rounds; ++round) {
        if (round % 64 == 0) fill_memory(device);
        Words stream;
        const uint32_t commands = 1 + below(12);
        for (uint32_t i = 0; i < commands; ++i) append_command(stream, header_words);
        if (chance(80)) stream.push_back(static_cast<uint32_t>(isa::Opcode::kEnd) | header_words << 8);
        if (header_words == 2) stream.push_back(0);
        run_stream(device, stream);
        if (chance(5)) dlavm_csr_write(device, isa::kRegControl, 2);
        if (chance(5)) dlavm_set_option(device, "check_hazards", chance(50) ? "0" : "1");
    }
    dlavm_close(device);
}

void stress_launch(int rounds) {
    const dlavm_config c = config(0);
    dlavm_device* device = nullptr;
    require(dlavm_open("sim:", &c, &device) == 0, "open failed");
    fill_memory(device);
    for (int round = 0; round < rounds; ++round) {
        const isa::CommandInfo& info = any_command();
        if (info.engine < 0 && chance(90)) continue;
        const bool linear = info.opcode == static_cast<uint32_t>(isa::Opcode::kLinear);
        Words words = linear ? plausible_linear() : payload(info);
        if (!bounded(info, words)) continue;
        for (uint32_t i = 0; i < words.size(); ++i) dlavm_csr_write(device, isa::kRegOp + 4 * i, words[i]);
        note(dlavm_csr_write(device, isa::kRegLaunch, chance(95) ? info.opcode : rng()));
    }
    dlavm_close(device);
}

// Calls with bad arguments, addresses and registers.
void stress_interface(int rounds) {
    dlavm_device* device = nullptr;
    dlavm_config c = config(2);
    require(dlavm_open("nowhere:", &c, &device) < 0 && device == nullptr, "an unknown scheme was opened");
    require(dlavm_open(nullptr, &c, &device) < 0, "a null URL was taken");
    c.abi_version = 77;
    require(dlavm_open("sim:", &c, &device) < 0, "a wrong ABI version was taken");
    for (int i = 0; i < 200; ++i) {
        dlavm_config noise = config(2);
        uint8_t* bytes = reinterpret_cast<uint8_t*>(&noise);
        bytes[4 + below(sizeof noise - 4)] ^= static_cast<uint8_t>(1u << below(8));
        if (dlavm_open("sim:", &noise, &device) == 0) dlavm_close(device);
    }
    c = config(2);
    require(dlavm_open("sim:", &c, &device) == 0, "open failed");
    std::vector<uint8_t> buffer(4096);
    for (int i = 0; i < rounds; ++i) {
        const uint64_t address = chance(50) ? uint64_t{rng()} << below(40) : kCapacity - below(5000);
        const uint64_t bytes = below(4096);
        dlavm_mem_read(device, address, buffer.data(), bytes);
        dlavm_mem_write(device, address, buffer.data(), bytes);
        dlavm_mem_map(device, address, below(4), "/nonexistent", bytes);
        uint32_t value;
        dlavm_csr_read(device, chance(80) ? below(0x180) : rng(), &value);
        dlavm_csr_write(device, chance(80) ? below(0x180) & ~1u : rng(), rng() & ~1u);
        dlavm_run(device, 10, nullptr);
    }
    dlavm_csr_read(device, 0, nullptr);
    dlavm_mem_read(device, 0, nullptr, 1);
    dlavm_run(nullptr, 0, nullptr);
    dlavm_close(device);
    dlavm_close(nullptr);
}

// A program that never ends is stopped by a reset from another thread.
void stress_reset() {
    const dlavm_config c = config(2);
    dlavm_device* device = nullptr;
    require(dlavm_open("sim:", &c, &device) == 0, "open failed");
    const uint32_t loop = static_cast<uint32_t>(isa::Opcode::kLoop),
                   end = static_cast<uint32_t>(isa::Opcode::kEndloop);
    Words stream;
    for (int i = 0; i < 3; ++i) stream.insert(stream.end(), {loop | 5u << 8, 0, 1, 0x7fffffff, 0});
    for (int i = 0; i < 3; ++i) stream.insert(stream.end(), {end | 2u << 8, 0});
    dlavm_mem_write(device, 0, stream.data(), 4 * stream.size());
    dlavm_csr_write(device, isa::kRegProgramWords, static_cast<uint32_t>(stream.size()));
    dlavm_csr_write(device, isa::kRegControl, 1);
    std::thread other([&] { require(dlavm_run(device, 0, nullptr) == 0, "the endless program failed"); });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    dlavm_csr_write(device, isa::kRegControl, 2);
    other.join();
    uint32_t status = 9;
    require(dlavm_csr_read(device, isa::kRegStatus, &status) == 0 && status == 0,
            "reset did not stop the program");
    dlavm_close(device);
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 400;
    for (const char* simd : {"portable", "avx2", "avx512", "avx512vnni"}) {
        for (uint32_t header_words : {1u, 2u}) stress_streams(header_words, simd, rounds);
    }
    stress_launch(4 * rounds);
    stress_interface(4 * rounds);
    stress_reset();
    unsigned code = 0;
    for (const char* name : isa::kErrorNames) {
        std::printf("%s %llu\n", name, static_cast<unsigned long long>(seen[code++]));
    }
    return 0;
}
