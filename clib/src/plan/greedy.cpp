#include "plan/greedy.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

namespace dlavm::plan {

namespace {

constexpr int kRounds = 8;
constexpr int64_t kMostPairs = int64_t{1} << 31;  // looked at in all rounds, or in one if that takes more

// Sorted from small to large key: large, wide, long-lived buffers first, or in order of time.
using Key = std::pair<int64_t, int64_t>;
using KeyOf = Key (*)(const Problem&, int);

constexpr KeyOf kOrders[] = {
    [](const Problem& p, int b) { return Key(-p.size[b], p.first[b]); },
    [](const Problem& p, int b) { return Key(-p.size[b] * (p.last[b] - p.first[b]), p.first[b]); },
    [](const Problem& p, int b) { return Key(p.first[b], -p.size[b]); },
    [](const Problem& p, int b) { return Key(p.first[b] - p.last[b], -p.size[b]); },
};

class Placement {
  public:
    explicit Placement(const Problem& problem) : problem_(problem) {}

    // Best fit: the smallest gap that is large enough, or the space behind everything else.
    std::vector<int64_t> place(const std::vector<int>& order) {
        std::vector<int64_t> offsets(order.size(), 0);
        by_offset_.clear();
        for (const int b : order) {
            offsets[b] = offset_of(b, offsets);
            const auto at = std::upper_bound(by_offset_.begin(), by_offset_.end(), b,
                                             [&](int x, int y) { return offsets[x] < offsets[y]; });
            by_offset_.insert(at, b);
        }
        return offsets;
    }

  private:
    int64_t offset_of(int b, const std::vector<int64_t>& offsets) const {
        int64_t end = 0, best = -1, best_gap = 0;
        for (const int other : by_offset_) {
            if (!problem_.collide(b, other)) continue;
            const int64_t gap = offsets[other] - end;
            if (gap >= problem_.size[b] && (best < 0 || gap < best_gap)) {
                best = end;
                best_gap = gap;
            }
            end = std::max(end, offsets[other] + problem_.size[other]);
        }
        return best >= 0 ? best : end;
    }

    const Problem& problem_;
    std::vector<int> by_offset_;
};

}  // namespace

Placed greedy(const Problem& problem, int64_t enough, const Stop& stop) {
    Placed best;
    Placement placement(problem);
    std::vector<int> order(static_cast<size_t>(problem.count()));
    const int64_t pairs = int64_t{problem.count()} * problem.count();
    int64_t left = kMostPairs;
    for (const KeyOf key : kOrders) {
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return key(problem, a) < key(problem, b); });
        for (int round = 0; round < kRounds; ++round) {
            Placed next;
            next.offsets = placement.place(order);
            next.peak = problem.peak(next.offsets);
            if (best.offsets.empty() || next.peak < best.peak) best = next;
            left -= pairs;
            if (best.peak <= enough || left < pairs || stop.now()) return best;
            // What reached the top is placed first in the next round.
            std::stable_partition(order.begin(), order.end(), [&](int b) {
                return (next.offsets[b] + problem.size[b]) * problem.unit - problem.padding[b] == next.peak;
            });
        }
    }
    return best;
}

}  // namespace dlavm::plan
