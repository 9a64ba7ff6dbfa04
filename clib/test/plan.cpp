// The planner on random problems, each plan and verdict checked, with limits, cancels and bad arguments
// between. Run by tests/unit/test_plan_sanitizers.py.
#include "dlavm/plan.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "dlavm/device.h"
#include "plan/search.h"

namespace {

std::mt19937_64 rng(2025);

uint64_t below(uint64_t n) { return rng() % n; }

void require(bool good, const char* what, unsigned long long round) {
    if (good) return;
    std::printf("round %llu: %s: %s\n", round, what, dlavm_plan_error());
    std::exit(1);
}

struct Buffers {
    std::vector<uint64_t> lower, upper, size;

    void add(uint64_t from, uint64_t length, uint64_t bytes) {
        lower.push_back(from);
        upper.push_back(from + length);
        size.push_back(bytes);
    }
    dlavm_plan_problem problem(uint64_t align, uint64_t capacity) const {
        return {lower.size(), lower.data(), upper.data(), size.data(), align, capacity};
    }
};

// A rectangle cut into pieces: a plan without a free byte exists, and has to be searched for.
Buffers cut_rectangle(uint64_t count) {
    struct Piece {
        uint64_t from, to, size;
    };
    std::vector<Piece> pieces = {{0, 60, 500}};
    while (pieces.size() < count) {
        Piece& piece = pieces[below(pieces.size())];
        const Piece old = piece;
        if (below(2) != 0 && old.to - old.from > 1) {
            piece.to = old.from + 1 + below(old.to - old.from - 1);
            pieces.push_back({piece.to, old.to, old.size});
        } else if (old.size > 1) {
            piece.size = 1 + below(old.size - 1);
            pieces.push_back({old.from, old.to, old.size - piece.size});
        }
    }
    Buffers result;
    for (const Piece& piece : pieces) result.add(piece.from, piece.to - piece.from, piece.size);
    return result;
}

// Every time is filled up to the same load: no byte may stay free, and often there is no such plan.
Buffers filled() {
    Buffers result;
    const uint64_t times = 4 + below(5), count = 4 + below(6);
    std::vector<uint64_t> load(times, 0);
    for (uint64_t i = 0; i < count; ++i) {
        const uint64_t from = below(times - 1), length = 1 + below(times - from), size = 1 + below(7);
        result.add(from, length, size);
        for (uint64_t t = from; t < from + length; ++t) load[t] += size;
    }
    const uint64_t most = *std::max_element(load.begin(), load.end());
    for (uint64_t t = 0; t < times; ++t) {
        if (load[t] < most) result.add(t, 1, most - load[t]);
    }
    return result;
}

Buffers any_buffers() {
    if (below(2) == 0) return cut_rectangle(20 + below(60));
    Buffers result;
    const uint64_t count = below(60), time = 1 + below(40), most = 1 + below(8);
    const uint64_t scale = below(4) == 0 ? (uint64_t{1} << 50) / 64 : 1;
    for (uint64_t i = 0; i < count; ++i) {
        result.add(below(time), 1 + below(below(2) ? 3 : time),
                   scale * (below(9) == 0 ? 0 : 1 + below(most)));
    }
    return result;
}

bool valid(const dlavm_plan_problem& p, const std::vector<uint64_t>& offsets, uint64_t peak) {
    uint64_t top = 0;
    for (uint64_t a = 0; a < p.count; ++a) {
        top = std::max(top, p.size[a] != 0 ? offsets[a] + p.size[a] : 0);
        if (offsets[a] % p.align != 0) return false;
        for (uint64_t b = 0; b < a; ++b) {
            const bool together = p.lower[a] < p.upper[b] && p.lower[b] < p.upper[a];
            const bool apart = offsets[a] + p.size[a] <= offsets[b] || offsets[b] + p.size[b] <= offsets[a];
            if (together && !apart && p.size[a] != 0 && p.size[b] != 0) return false;
        }
    }
    return top == peak;
}

unsigned long long verdicts[4] = {}, searched = 0;

dlavm_plan_result planned(const dlavm_plan_problem& p, const dlavm_plan_options& options, uint64_t round) {
    std::vector<uint64_t> offsets(p.count);
    dlavm_plan_result result = {};
    require(dlavm_plan(&p, &options, &result, offsets.data()) == DLAVM_OK, "status", round);
    require(valid(p, offsets, result.peak), "valid", round);
    require(result.lower_bound <= result.peak, "bound", round);
    const bool fits = result.peak <= p.capacity;
    require(fits == (result.verdict == DLAVM_PLAN_OPTIMAL || result.verdict == DLAVM_PLAN_FEASIBLE),
            "verdict", round);
    ++verdicts[result.verdict];
    searched += result.nodes != 0;
    return result;
}

// What the smallest peak is must not depend on how it is asked for.
void compare(uint64_t round) {
    const Buffers buffers = any_buffers();
    const uint64_t align = uint64_t{1} << below(5);
    const auto r = planned(buffers.problem(align, UINT64_MAX), {20000, 0, nullptr, 1}, round);
    const auto same = planned(buffers.problem(align, UINT64_MAX), {20000, 0, nullptr, 2}, round);
    require(same.peak == r.peak && same.nodes == r.nodes, "threads", round);
    const auto at = planned(buffers.problem(align, r.peak), {20000, 0, nullptr, 2}, round);
    require(at.lower_bound <= r.peak, "infeasible at a peak that was reached", round);
    if (r.lower_bound == 0) return;
    const auto under = planned(buffers.problem(align, r.lower_bound - 1), {20000, 0, nullptr, 2}, round);
    require(under.verdict == DLAVM_PLAN_INFEASIBLE || under.verdict == DLAVM_PLAN_UNKNOWN, "below a bound",
            round);
}

unsigned long long found = 0, none = 0;

// Every strategy is complete: all must agree on small problems with little room, whatever is cut off on the
// way.
void agree(uint64_t round) {
    using dlavm::plan::Search;
    using dlavm::plan::Strategy;
    const bool perfect = below(3) == 0;
    const uint64_t align = below(3) == 0 ? 2 : 1;
    const Buffers buffers = perfect ? cut_rectangle(8 + below(8)) : filled();
    const std::atomic<int64_t> never{1};
    const dlavm::plan::Stop stop(0, nullptr);
    for (const auto& part : dlavm::plan::parts(buffers.problem(align, UINT64_MAX))) {
        int outcomes[3] = {};
        for (int at = 0; at < 3 * 6 * 2; ++at) {
            Search search(part, part.lower_bound);
            const Strategy strategy = {static_cast<Strategy::Niche>(at % 3),
                                       static_cast<Strategy::Order>(at / 3 % 6), at / 18 == 1,
                                       below(2) * round};
            const Search::Outcome outcome = search.run(strategy, 100000, stop, never, 0);
            ++outcomes[outcome];
            require(outcome != Search::kFound || part.peak(search.offsets()) <= part.lower_bound, "too high",
                    round);
        }
        require(outcomes[Search::kFound] == 0 || outcomes[Search::kInfeasible] == 0, "strategies disagree",
                round);
        require(!perfect || align != 1 || outcomes[Search::kInfeasible] == 0, "a perfect packing is lost",
                round);
        found += outcomes[Search::kFound] != 0;
        none += outcomes[Search::kInfeasible] != 0;
    }
}

// A long search that another thread ends at some time.
void cancel(uint64_t round) {
    Buffers buffers;
    for (int i = 0; i < 200; ++i) buffers.add(below(100), 1 + below(60), 1 + below(1000));
    uint32_t flag = 0;
    std::thread other([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(round % 8));
        __atomic_store_n(&flag, 1, __ATOMIC_RELAXED);
    });
    planned(buffers.problem(1, UINT64_MAX), {uint64_t{1} << 60, 2000, &flag, 2}, round);
    other.join();
}

void misuse(uint64_t round) {
    Buffers buffers = any_buffers();
    buffers.add(1, 2, 3);
    const uint64_t at = below(buffers.size.size());
    uint64_t align = 1;
    switch (round % 4) {
        case 0:
            buffers.upper[at] = buffers.lower[at] - below(2) * buffers.lower[at];
            break;
        case 1:
            buffers.size[at] = (uint64_t{1} << 62) + below(uint64_t{3} << 62);
            break;
        case 2:
            align = 0;
            break;
        default:
            align = (uint64_t{1} << 62) + below(uint64_t{3} << 62);
    }
    std::vector<uint64_t> offsets(buffers.size.size());
    const dlavm_plan_problem p = buffers.problem(align, below(2) ? UINT64_MAX : below(100));
    dlavm_plan_result result = {};
    require(dlavm_plan(&p, nullptr, &result, offsets.data()) == DLAVM_BAD_ARGUMENT, "bad argument taken",
            round);
    require(dlavm_plan_error()[0] != '\0', "no text", round);
}

}  // namespace

int main(int argc, char** argv) {
    const uint64_t rounds = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200;
    for (uint64_t round = 0; round < rounds; ++round) {
        compare(round);
        misuse(round);
        agree(round);
        if (round % 50 == 0) cancel(round / 50);
    }
    std::printf(
        "optimal %llu feasible %llu infeasible %llu unknown %llu searched %llu found %llu none %llu\n",
        verdicts[0], verdicts[1], verdicts[2], verdicts[3], searched, found, none);
    return 0;
}
