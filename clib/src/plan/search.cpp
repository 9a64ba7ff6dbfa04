#include "plan/search.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

namespace dlavm::plan {

namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr uint64_t kStepsBetweenLooks = 16;
constexpr size_t kLeastMemo = size_t{1} << 12, kMostMemo = size_t{1} << 20;
constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
constexpr double kNoise = 0.5;  // a key may count for so much more

// A bijection that spreads every bit (the finalizer of MurmurHash3).
uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53;
    return x ^ (x >> 33);
}

// In the order of Strategy::Order; the largest key comes first.
using KeyOf = double (*)(double size, int first, int last);

constexpr KeyOf kKeys[] = {
    [](double size, int, int) { return size; },
    [](double, int first, int last) { return double(last - first); },
    [](double size, int first, int last) { return size * (last - first); },
    [](double, int first, int last) { return 1.0 / (last - first); },
    [](double, int first, int) { return 1.0 / (first + 1); },
    [](double, int, int last) { return double(last); },
};

}  // namespace

Search::Search(const Problem& problem, int64_t bytes) : problem_(problem), end_(problem.ends(bytes)) {
    const auto n = static_cast<size_t>(problem.count()), sections = static_cast<size_t>(problem.sections);
    capacity_ = *std::max_element(end_.begin(), end_.end());
    load_ = problem.load;
    low_.assign(n, 0);
    offset_.assign(n, 0);
    placed_.assign(n, 0);
    floor_.assign(sections, {kNever, 0});
    failures_.assign(sections, 1);
    queued_.assign(sections, 0);
    alive_.assign(sections, 0);
    start_.assign(sections + 1, 0);
    begin_.assign(sections + 1, problem.count());
    for (int b = problem.count() - 1; b >= 0; --b) {
        begin_[problem.first[b]] = b;
        for (int s = problem.first[b]; s < problem.last[b]; ++s) ++start_[s + 1];
    }
    for (int s = problem.sections - 1; s >= 0; --s) begin_[s] = std::min(begin_[s], begin_[s + 1]);
    std::partial_sum(start_.begin(), start_.end(), start_.begin());
    member_.resize(start_.back());
    for (int b = 0; b < problem.count(); ++b) {
        slot_.push_back(position_.size());
        for (int s = problem.first[b]; s < problem.last[b]; ++s) {
            position_.push_back(alive_[s]);
            members(s)[alive_[s]++] = b;
        }
        // At the latest the buffer itself.
        int twin = begin_[problem.first[b]];
        while (problem.last[twin] != problem.last[b] || problem.size[twin] != problem.size[b] ||
               problem.padding[twin] != problem.padding[b]) {
            ++twin;
        }
        twin_.push_back(twin);
    }
}

void Search::order_buffers() {
    std::vector<std::pair<double, int>> sorted;
    for (int b = 0; b < problem_.count(); ++b) {
        const double key = kKeys[strategy_.order](static_cast<double>(problem_.size[b]), problem_.first[b],
                                                  problem_.last[b]);
        const uint64_t random =
            strategy_.seed == 0 ? 0 : mix(strategy_.seed * kOdd + static_cast<uint64_t>(b)) >> 40;
        sorted.emplace_back(-key * (1.0 + kNoise * static_cast<double>(random) / (1 << 24)), b);
    }
    // Of equal ones the larger, then the longer.
    std::sort(sorted.begin(), sorted.end(), [&](const auto& a, const auto& b) {
        const auto rest = [&](int x) {
            return std::make_tuple(-problem_.size[x], problem_.first[x] - problem_.last[x], x);
        };
        return a.first != b.first ? a.first < b.first : rest(a.second) < rest(b.second);
    });
    rank_.resize(sorted.size());
    for (size_t i = 0; i < sorted.size(); ++i) rank_[sorted[i].second] = static_cast<int>(i);
}

// Back to the whole problem; false where it has no solution at first sight.
bool Search::reset() {
    undo(0);
    components_.clear();
    branches_.clear();
    options_.clear();
    for (int b = 0; b < problem_.count(); ++b) {
        if (problem_.size[b] > end_[b]) return false;
    }
    for (int s = 0; s < problem_.sections; ++s) touch(s);
    return propagate();
}

Search::Outcome Search::run(const Strategy& strategy, uint64_t nodes, const Stop& stop,
                            const std::atomic<int64_t>& before, int64_t turn) {
    strategy_ = strategy;
    order_buffers();
    nodes_ = 0;
    if (!reset()) return kInfeasible;
    int agenda = split({0, problem_.sections, kNone, kNone}, kNone, kNone);
    for (uint64_t look = 0; agenda != kNone; ++look) {
        if (nodes_ >= nodes) return kStopped;
        if (look % kStepsBetweenLooks == 0 && (before.load(std::memory_order_relaxed) < turn || stop.now())) {
            return kStopped;
        }
        int branch = open(agenda);
        while (branch != kNone && !next(branch, agenda))
            branch = components_[branches_[branch].component].parent;
        if (branch == kNone) return kInfeasible;
    }
    return kFound;
}

// A branch for a component, or the component's parent where it is known to have no solution.
int Search::open(int component) {
    ++nodes_;
    const Component c = components_[component];
    const Key known_by = key(c);
    if (known(known_by)) return c.parent;
    const int s = niche(c);
    const size_t options = options_.size();
    for (int i = 0; i < alive_[s]; ++i) {
        const int b = members(s)[i];
        const auto same = [&](int other) { return twin_[other] == twin_[b]; };
        if (low_[b] == floor_[s].low && std::none_of(options_.begin() + options, options_.end(), same)) {
            options_.push_back(b);
        }
    }
    std::sort(options_.begin() + options, options_.end(), [&](int a, int b) { return rank_[a] < rank_[b]; });
    if (capacity_ - load_[s] > floor_[s].low) options_.push_back(kWaste);
    branches_.push_back(
        {component, s, changes_.size(), components_.size(), options, options_.size(), options, known_by});
    return static_cast<int>(branches_.size()) - 1;
}

// Takes the next option of a branch that nothing speaks against; false where none is left.
bool Search::next(int branch, int& agenda) {
    branches_.resize(branch + 1);
    Branch& at = branches_.back();
    components_.resize(at.components);
    options_.resize(at.end);
    while (at.current < at.end) {
        undo(at.changes);
        const int option = options_[at.current++];
        if (option == kWaste ? waste(at.section) : place(option)) {
            const Component c = components_[at.component];
            agenda = split(c, branch, c.next);
            return true;
        }
        ++nodes_;
    }
    undo(at.changes);
    remember(at.key);
    options_.resize(at.options);
    return false;
}

bool Search::place(int buffer) {
    offset_[buffer] = low_[buffer];
    const int64_t top = low_[buffer] + problem_.size[buffer];
    remove(buffer);
    for (int s = problem_.first[buffer]; s < problem_.last[buffer]; ++s) {
        for (int i = 0; i < alive_[s]; ++i) {
            const int other = members(s)[i];
            if (low_[other] < top && !raise(other, top)) return false;
        }
    }
    return propagate();
}

bool Search::waste(int section) {
    const int64_t floor = floor_[section].low;
    std::vector<std::pair<int, int64_t>> raised;
    for (int i = 0; i < alive_[section]; ++i) {
        const int b = members(section)[i];
        if (low_[b] != floor) continue;
        int64_t low = kNever;
        for (int s = problem_.first[b]; s < problem_.last[b]; ++s) {
            for (int j = 0; j < alive_[s]; ++j) {
                const int other = members(s)[j];
                if (other != b) low = std::min(low, low_[other] + problem_.size[other]);
            }
        }
        if (low == kNever) return false;
        raised.emplace_back(b, low);
    }
    for (const auto& [b, low] : raised) {
        if (!raise(b, low)) return false;
    }
    return propagate();
}

// False where the buffer would not fit any more.
bool Search::raise(int buffer, int64_t low) {
    if (low + problem_.size[buffer] > end_[buffer]) return false;
    changes_.push_back({Change::kLow, buffer, 0, low_[buffer]});
    low_[buffer] = low;
    for (int s = problem_.first[buffer]; s < problem_.last[buffer]; ++s) touch(s);
    return true;
}

// Takes a buffer out of the lists of its sections: it changes place with the last one there.
void Search::remove(int buffer) {
    placed_[buffer] = 1;
    for (int s = problem_.first[buffer]; s < problem_.last[buffer]; ++s) {
        int& at = position_[slot_[buffer] + static_cast<size_t>(s - problem_.first[buffer])];
        const int end = --alive_[s], other = members(s)[end];
        position_[slot_[other] + static_cast<size_t>(s - problem_.first[other])] = at;
        std::swap(members(s)[at], members(s)[end]);
        at = end;
        load_[s] -= problem_.size[buffer];
        touch(s);
    }
    changes_.push_back({Change::kPlaced, buffer, 0, 0});
}

void Search::restore(int buffer) {
    placed_[buffer] = 0;
    for (int s = problem_.first[buffer]; s < problem_.last[buffer]; ++s) {
        ++alive_[s];
        load_[s] += problem_.size[buffer];
    }
}

void Search::undo(size_t changes) {
    for (const int s : queue_) queued_[s] = 0;
    queue_.clear();
    for (; changes_.size() > changes; changes_.pop_back()) {
        const Change& change = changes_.back();
        switch (change.kind) {
            case Change::kLow:
                low_[change.id] = change.low;
                break;
            case Change::kFloor:
                floor_[change.id] = {change.low, change.count};
                break;
            case Change::kPlaced:
                restore(change.id);
                break;
        }
    }
}

void Search::touch(int section) {
    if (queued_[section]) return;
    queued_[section] = 1;
    queue_.push_back(section);
}

bool Search::propagate() {
    for (size_t i = 0; i < queue_.size(); ++i) {
        const int s = queue_[i];
        queued_[s] = 0;
        if (!scan(s)) {
            ++failures_[s];
            return false;  // undo() empties the queue
        }
    }
    queue_.clear();
    return true;
}

// One section: its floor, whether everything above still fits, and which buffers cannot be the next one
// there.
bool Search::scan(int section) {
    const int* const list = members(section);
    Floor floor = {kNever, 0};
    int64_t end1 = kNever, end2 = kNever, highest = 0;  // the two lowest ends
    int lowest = kNone;
    for (int i = 0; i < alive_[section]; ++i) {
        const int b = list[i];
        const int64_t low = low_[b], end = low + problem_.size[b];
        if (low < floor.low) floor = {low, 0};
        floor.count += low == floor.low;
        highest = std::max(highest, low);
        if (end < end1) {
            end2 = end1;
            end1 = end;
            lowest = b;
        } else {
            end2 = std::min(end2, end);
        }
    }
    Floor& old = floor_[section];
    if (old.low != floor.low || old.count != floor.count) {
        changes_.push_back({Change::kFloor, section, old.count, old.low});
        old = floor;
    }
    if (floor.low == kNever) return true;
    // A buffer above `limit` cannot have everything else of the section on top of it.
    const int64_t limit = capacity_ - load_[section];
    if (floor.low > limit) return false;
    if (highest <= limit) return true;
    return strategy_.strong ? lift_strong(section, limit) : lift(section, limit, lowest, end1, end2);
}

// What cannot be the next one in a section lies above another one: at least at the lowest end of these.
bool Search::lift(int section, int64_t limit, int lowest, int64_t end1, int64_t end2) {
    for (int i = 0; i < alive_[section]; ++i) {
        const int b = members(section)[i];
        const int64_t low = b == lowest ? end2 : end1;
        if (low_[b] > limit && low > low_[b] && !raise(b, low)) return false;
    }
    return true;
}

// The same with the best choice of the others: those with the highest ends, as few as do not fit above the
// buffer. Before that, the section alone: one buffer after the other, each as soon as it may.
bool Search::lift_strong(int section, int64_t limit) {
    by_low_.clear();
    by_end_.clear();
    for (int i = 0; i < alive_[section]; ++i) {
        const int b = members(section)[i];
        by_low_.emplace_back(low_[b], b);
        by_end_.emplace_back(low_[b] + problem_.size[b], b);
    }
    std::sort(by_low_.begin(), by_low_.end());
    std::sort(by_end_.rbegin(), by_end_.rend());
    int64_t top = 0;
    for (const auto& [low, b] : by_low_) top = std::max(top, low) + problem_.size[b];
    if (top > capacity_) return false;
    for (const auto& [low, b] : by_low_) {
        if (low <= limit) continue;
        int64_t above = low + problem_.size[b], least = 0;
        for (auto other = by_end_.begin(); other != by_end_.end() && above <= capacity_; ++other) {
            if (other->second == b) continue;
            above += problem_.size[other->second];
            least = other->first;
        }
        if (above > capacity_ && least > low_[b] && !raise(b, least)) return false;
    }
    return true;
}

// The section to branch at: in a niche, with the fewest options.
int Search::niche(const Component& c) const {
    int best = kNone;
    for (int s = c.first, end; s < c.last; s = end) {
        const int64_t low = floor_[s].low;
        for (end = s; end < c.last && floor_[end].low == low;) ++end;
        const bool below_left = s == c.first || floor_[s - 1].low > low;
        const bool below_right = end == c.last || floor_[end].low > low;
        if (low == kNever || !below_left || !below_right) continue;
        for (int t = s; t < end; ++t) {
            if (best == kNone || better(t, best)) best = t;
        }
    }
    return best;
}

bool Search::better(int section, int best) const {
    const auto room = [&](int s) { return capacity_ - load_[s] - floor_[s].low; };
    const auto options = [&](int s) { return static_cast<uint64_t>(floor_[s].count + (room(s) > 0)); };
    const int64_t low = floor_[section].low, best_low = floor_[best].low;
    if (strategy_.niche == Strategy::kLowest && low != best_low) return low < best_low;
    uint64_t mine = options(section), others = options(best);
    if (strategy_.niche == Strategy::kFewestByFailures) {
        mine *= failures_[best];
        others *= failures_[section];
    }
    if (mine != others) return mine < others;
    return room(section) < room(best);
}

// Puts the components that a component has fallen into in front of `next`, the shortest first.
int Search::split(const Component& c, int parent, int next) {
    const size_t old = components_.size();
    int end = c.first;
    for (int b = begin_[c.first]; b < begin_[c.last]; ++b) {
        if (placed_[b]) continue;
        if (components_.size() == old || problem_.first[b] >= end) {
            components_.push_back({problem_.first[b], 0, parent, kNone});
        }
        end = std::max(end, problem_.last[b]);
        components_.back().last = end;
    }
    std::stable_sort(
        components_.begin() + old, components_.end(),
        [](const Component& x, const Component& y) { return x.last - x.first > y.last - y.first; });
    for (size_t i = old; i < components_.size(); ++i) {
        components_[i].next = next;
        next = static_cast<int>(i);
    }
    return next;
}

Search::Key Search::key(const Component& c) const {
    Key result = {0, 0};
    for (int b = begin_[c.first]; b < begin_[c.last]; ++b) {
        if (placed_[b]) continue;
        const uint64_t part =
            mix(static_cast<uint64_t>(twin_[b]) * kOdd + mix(static_cast<uint64_t>(low_[b]) + 1));
        result.a += part;
        result.b += mix(part + kOdd);
    }
    return result;
}

bool Search::known(const Key& key) const {
    return !memo_.empty() && memo_[key.a & (memo_.size() - 1)] == key;
}

// A table that grows up to a limit and then forgets.
void Search::remember(const Key& key) {
    if (memo_used_ * 2 >= memo_.size() && memo_.size() < kMostMemo) {
        std::vector<Key> old(std::max(kLeastMemo, memo_.size() * 2), Key{0, 0});
        old.swap(memo_);
        for (const Key& k : old) {
            if (!(k == Key{0, 0})) memo_[k.a & (memo_.size() - 1)] = k;
        }
    }
    Key& slot = memo_[key.a & (memo_.size() - 1)];
    memo_used_ += slot == Key{0, 0};
    slot = key;
}

}  // namespace dlavm::plan
