// The order check against a model that keeps the clock of every byte, over random commands and semaphores.
// Run by tests/unit/test_native_order_model.py.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <random>
#include <vector>

#include "sim/fault.h"
#include "sim/hazard.h"

using dlavm::isa::Engine;
using namespace dlavm::sim;

namespace {

constexpr uint64_t kBytes = 4096;
constexpr uint32_t kSemaphores = 4;

std::mt19937 rng(2025);

uint64_t below(uint64_t n) { return rng() % n; }
bool chance(uint32_t percent) { return below(100) < percent; }

struct Operand {
    Engine engine;
    bool write;
    RowSet rows;
    uint64_t bytes;
};

template <class Body>
void for_each_byte(const Operand& x, Body&& body) {
    for (uint64_t b = 0; b < x.rows.count_b; ++b) {
        for (uint64_t o = 0; o < x.rows.count_o; ++o) {
            for (uint64_t i = 0; i < x.rows.count_i; ++i) {
                for (uint64_t j = 0; j < x.bytes; ++j) body(x.rows.at(b, o, i) + j);
            }
        }
    }
}

class Model {
  public:
    using Clock = std::array<uint64_t, kEngines>;

    bool command(Engine engine, const std::vector<Operand>& operands) {
        bool allowed = true;
        for (const Operand& x : operands) {
            for_each_byte(x, [&](uint64_t at) { allowed = allowed && may(x, at); });
        }
        if (!allowed) return false;
        const auto own = static_cast<unsigned>(engine);
        if (engine == Engine::kMatrix) ++clocks_[0][0];
        ++clocks_[own][own];
        for (const Operand& x : operands) {
            const auto e = static_cast<unsigned>(x.engine);
            for_each_byte(x, [&](uint64_t at) { times_[e][x.write][at] = clocks_[e][e]; });
        }
        if (engine == Engine::kMatrix) learn(clocks_[own], clocks_[0]);
        return true;
    }

    void signal(Engine engine, uint32_t s) { queues_[s].push_back(clocks_[static_cast<unsigned>(engine)]); }

    bool wait(Engine engine, uint32_t s) {
        if (queues_[s].empty()) return false;
        learn(clocks_[static_cast<unsigned>(engine)], queues_[s].front());
        queues_[s].pop_front();
        return true;
    }

    void fence() {
        for (unsigned e = 0; e < kEngines; ++e) {
            for (Clock& clock : clocks_) clock[e] = clocks_[e][e];
        }
    }

  private:
    static void learn(Clock& clock, const Clock& other) {
        for (unsigned e = 0; e < kEngines; ++e) clock[e] = std::max(clock[e], other[e]);
    }

    bool may(const Operand& x, uint64_t at) const {
        const auto own = static_cast<unsigned>(x.engine);
        for (unsigned e = 0; e < kEngines; ++e) {
            if (e == own) continue;
            if (times_[e][1][at] > clocks_[own][e]) return false;
            if (x.write && times_[e][0][at] > clocks_[own][e]) return false;
        }
        return true;
    }

    std::array<Clock, kEngines> clocks_{};
    std::array<std::array<std::array<uint64_t, kBytes>, 2>, kEngines> times_{};
    std::array<std::deque<Clock>, kSemaphores> queues_;
};

uint64_t any_count() { return chance(40) ? 1 : chance(80) ? 2 + below(4) : 2 + below(12); }

uint64_t any_stride() {
    switch (below(6)) {
        case 0:
            return below(8);
        case 1:
            return 16 * below(8);
        case 2:
            return uint64_t{1} << below(10);
        default:
            return below(120);
    }
}

// Few base addresses and shapes come back: operands that meet in part, touch, interleave or are the same.
Operand any_operand(Engine engine, bool write, uint64_t most_rows) {
    for (;;) {
        RowSet r = {0, any_stride(), any_stride(), any_stride(), any_count(), any_count(), any_count()};
        if (chance(30)) r.stride_o = r.stride_i * (1 + below(5));
        if (chance(30)) r.stride_b = r.stride_o * (1 + below(5));
        const uint64_t bytes = chance(70) ? 1 + below(16) : 1 + below(100);
        const uint64_t extent = r.at(r.count_b - 1, r.count_o - 1, r.count_i - 1) + bytes;
        if (extent > kBytes || r.count() > most_rows) continue;
        r.base = below(kBytes - extent + 1);
        if (chance(50)) r.base &= ~uint64_t{63};
        return {engine, write, r, bytes};
    }
}

std::vector<Operand> any_command(Engine engine, uint64_t most_rows) {
    std::vector<Operand> operands;
    if (engine == Engine::kMatrix) operands.push_back(any_operand(Engine::kLoad, false, most_rows));
    const uint64_t reads = below(3);
    for (uint64_t i = 0; i < reads; ++i) operands.push_back(any_operand(engine, false, most_rows));
    if (chance(80)) operands.push_back(any_operand(engine, true, most_rows));
    return operands;
}

bool allows(Hazards& hazards, Engine engine, const std::vector<Operand>& operands) {
    std::vector<Access> accesses;
    for (const Operand& x : operands) accesses.push_back({x.engine, x.write, "x", strided(x.rows, x.bytes)});
    try {
        hazards.command(engine, accesses);
    } catch (const Fault&) {
        return false;
    }
    return true;
}

unsigned long long allowed = 0, refused = 0;

void require(bool same, const char* what, int program, int step) {
    if (same) return;
    std::printf("%s: the model disagrees at step %d of program %d\n", what, step, program);
    std::exit(1);
}

// One program; what is refused leaves no trace, so that it goes on.
void compare(int number, int steps) {
    const Hazards::Effort efforts[] = {{}, {0, 0, 0}, {4, 1 << 20, 0}, {8, 20, 1}, {3, 2, 0}};
    Hazards hazards(kSemaphores, efforts[number % 5]);
    Model model;
    const uint32_t ordered = static_cast<uint32_t>(below(60)), fences = static_cast<uint32_t>(below(4));
    const uint64_t most_rows = chance(30) ? 200 : 1 + below(20);
    for (int step = 0; step < steps; ++step) {
        const auto engine = static_cast<Engine>(below(kEngines));
        const auto s = static_cast<uint32_t>(below(kSemaphores));
        if (chance(fences)) {
            hazards.fence();
            model.fence();
        } else if (chance(ordered)) {
            hazards.signal(engine, s);
            model.signal(engine, s);
            const auto other = static_cast<Engine>(below(kEngines));
            require(hazards.wait(other, s) == model.wait(other, s), "wait", number, step);
        } else if (engine != Engine::kLoad) {
            const std::vector<Operand> operands = any_command(engine, most_rows);
            const bool right = model.command(engine, operands);
            require(allows(hazards, engine, operands) == right, right ? "allowed" : "refused", number, step);
            ++(right ? allowed : refused);
        }
    }
}

// Two operands alone: sets of rows that do not meet although they reach into each other are rare in programs.
void compare_pairs(int rounds) {
    for (int round = 0; round < rounds; ++round) {
        const Operand a = any_operand(Engine::kVector, true, 300), b = any_operand(Engine::kStore, true, 300);
        std::array<bool, kBytes> in{};
        for_each_byte(a, [&](uint64_t at) { in[at] = true; });
        bool shared = false;
        for_each_byte(b, [&](uint64_t at) { shared = shared || in[at]; });
        const Strided x = strided(a.rows, a.bytes), y = strided(b.rows, b.bytes);
        uint64_t budget = 1 << 20;
        require(meet(x, y, budget) == shared && meet(y, x, budget) == shared, "meet", 0, round);
        std::array<bool, kBytes> rows{};
        for_each_row(
            x, [&](uint64_t begin, uint64_t end) { std::fill(&rows[begin], &rows[end - 1] + 1, true); });
        require(rows == in, "rows", 0, round);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 200;
    compare_pairs(100 * rounds);
    for (int number = 0; number < rounds; ++number) compare(number, 200);
    std::printf("allowed %llu refused %llu\n", allowed, refused);
    return 0;
}
