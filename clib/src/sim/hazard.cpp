#include "sim/hazard.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <tuple>

#include "sim/fault.h"

namespace dlavm::sim {

namespace {

constexpr const char* kEngineNames[kEngines] = {"load", "matrix", "vector", "store"};
constexpr uint64_t kPruneEvery = 256;  // commands

unsigned index(isa::Engine engine) { return static_cast<unsigned>(engine); }

}  // namespace

void Hazards::reset() {
    clocks_ = {};
    forget();
    written_.clear();
    for (auto& queue : queues_) queue.clear();
}

void Hazards::forget() {
    for (auto& books : books_) {
        for (Book& book : books) {
            book.kept.clear();
            book.cut.clear();
            book.cut_time = 0;
        }
    }
    kept_ = 0;
}

void Hazards::drain() {
    fence();
    written_.clear();
}

void Hazards::note_written(uint64_t begin, uint64_t end) {
    auto next = written_.upper_bound(begin);
    if (next != written_.begin() && std::prev(next)->second >= begin) {
        --next;
        begin = next->first;
    }
    while (next != written_.end() && next->first <= end) {
        end = std::max(end, next->second);
        next = written_.erase(next);
    }
    written_.emplace_hint(next, begin, end);
}

void Hazards::front_end_read(uint64_t begin, uint64_t end) const {
    const auto next = written_.lower_bound(end);
    if (next == written_.begin() || std::prev(next)->second <= begin) return;
    throw Fault{isa::Error::kHazard,
                format("field ra: reads bytes 0x%llx..0x%llx, which an engine wrote since the last FENCE",
                       static_cast<unsigned long long>(begin), static_cast<unsigned long long>(end))};
}

void Hazards::signal(isa::Engine engine, uint32_t semaphore) {
    auto& queue = queues_[semaphore];
    const Clock& clock = clocks_[index(engine)];
    if (!queue.empty() && queue.back().clock == clock) {
        ++queue.back().count;
    } else {
        queue.push_back({clock, 1});
    }
}

bool Hazards::wait(isa::Engine engine, uint32_t semaphore) {
    auto& queue = queues_[semaphore];
    if (queue.empty()) return false;
    Clock& clock = clocks_[index(engine)];
    for (unsigned e = 0; e < kEngines; ++e) clock[e] = std::max(clock[e], queue.front().clock[e]);
    if (--queue.front().count == 0) queue.pop_front();
    return true;
}

void Hazards::fence() {
    Clock all{};
    for (unsigned e = 0; e < kEngines; ++e) all[e] = clocks_[e][e];
    clocks_.fill(all);
    forget();
}

void Hazards::command(isa::Engine engine, const std::vector<Access>& accesses) {
    if (suspicious(accesses)) check_intervals(accesses);
    const unsigned own = index(engine), load = index(isa::Engine::kLoad);
    if (engine == isa::Engine::kMatrix) ++clocks_[load][load];
    ++clocks_[own][own];
    for (const Access& a : accesses) {
        const uint64_t time = clocks_[index(a.engine)][index(a.engine)];
        books_[index(a.engine)][a.write].kept.push_back({a.bytes, time, a.field});
        if (a.write) note_written(a.bytes.begin, a.bytes.end);
    }
    kept_ += accesses.size();
    // The product is complete only when its weights have come: what follows in the matrix engine knows what
    // load knew.
    if (engine == isa::Engine::kMatrix) {
        for (unsigned e = 0; e < kEngines; ++e) clocks_[own][e] = std::max(clocks_[own][e], clocks_[load][e]);
    }
    if (++commands_ % kPruneEvery == 0 || kept_ > effort_.kept) tidy();
}

// False: no access meets bytes that its engine must not touch. True: one does, or it would take long to say.
bool Hazards::suspicious(const std::vector<Access>& accesses) const {
    uint64_t budget = effort_.steps;
    for (const Access& a : accesses) budget += effort_.steps_per_row * a.bytes.rows();
    for (const Access& a : accesses) {
        const Clock& clock = clocks_[index(a.engine)];
        for (unsigned owner = 0; owner < kEngines; ++owner) {
            if (owner == index(a.engine)) continue;
            if (meets(a, books_[owner][1], clock[owner], budget)) return true;
            if (a.write && meets(a, books_[owner][0], clock[owner], budget)) return true;
        }
    }
    return false;
}

bool Hazards::meets(const Access& access, const Book& book, uint64_t known, uint64_t& budget) {
    for (auto it = book.kept.rbegin(); it != book.kept.rend() && it->time > known; ++it) {
        if (budget == 0 || meet(access.bytes, it->bytes, budget)) return true;
        --budget;
    }
    if (book.cut_time <= known) return false;
    auto it = book.cut.upper_bound(access.bytes.begin);
    if (it != book.cut.begin()) --it;
    for (; it != book.cut.end() && it->first < access.bytes.end; ++it) {
        if (budget == 0) return true;
        --budget;
        const Owned& owned = it->second;
        if (owned.time > known && meet(access.bytes, strided(it->first, owned.end), budget)) return true;
    }
    return false;
}

// The exact check, and the words for what it finds.
void Hazards::check_intervals(const std::vector<Access>& accesses) {
    cut();
    std::vector<Interval> intervals;
    for (const Access& a : accesses) {
        for_each_row(a.bytes, [&](uint64_t begin, uint64_t end) {
            intervals.push_back({a.engine, a.write, begin, end, a.field});
        });
    }
    for (const Interval& interval : merged(std::move(intervals))) check(interval);
}

// Adjacent and overlapping intervals of one engine and direction become one.
std::vector<Hazards::Interval> Hazards::merged(std::vector<Interval> intervals) {
    std::sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) {
        return std::tie(a.engine, a.write, a.begin) < std::tie(b.engine, b.write, b.begin);
    });
    std::vector<Interval> out;
    for (const Interval& a : intervals) {
        if (!out.empty() && out.back().engine == a.engine && out.back().write == a.write &&
            a.begin <= out.back().end) {
            out.back().end = std::max(out.back().end, a.end);
        } else {
            out.push_back(a);
        }
    }
    return out;
}

void Hazards::check(const Interval& access) const {
    for (unsigned owner = 0; owner < kEngines; ++owner) {
        if (owner == index(access.engine)) continue;
        check_map(access, owner, true);
        if (access.write) check_map(access, owner, false);
    }
}

void Hazards::check_map(const Interval& access, unsigned owner, bool written) const {
    const Map& map = books_[owner][written ? 1 : 0].cut;
    const uint64_t known = clocks_[index(access.engine)][owner];
    auto it = map.upper_bound(access.begin);
    if (it != map.begin() && std::prev(it)->second.end > access.begin) --it;
    for (; it != map.end() && it->first < access.end; ++it) {
        if (it->second.time <= known) continue;
        throw Fault{
            isa::Error::kHazard,
            format("field %s: engine %s %s 0x%llx..0x%llx, which engine %s %s (field %s) without a semaphore "
                   "between",
                   access.field, kEngineNames[index(access.engine)], access.write ? "writes" : "reads",
                   static_cast<unsigned long long>(access.begin), static_cast<unsigned long long>(access.end),
                   kEngineNames[owner], written ? "wrote" : "read", it->second.field)};
    }
}

// Drops what every engine knows and, where much is left, cuts it.
void Hazards::tidy() {
    prune();
    if (kept_ > effort_.kept / 2) drop_repeated();
    if (kept_ > effort_.kept / 2) cut();
}

// Of accesses to the very same rows, as loops make them, the last one serves.
void Hazards::drop_repeated() {
    kept_ = 0;
    for (auto& books : books_) {
        for (Book& book : books) {
            std::set<std::array<uint64_t, 9>> seen;
            const auto first = std::remove_if(book.kept.rbegin(), book.kept.rend(), [&seen](const Kept& k) {
                std::array<uint64_t, 9> key = {k.bytes.begin, k.bytes.end, k.bytes.bytes};
                for (unsigned j = 0; j < k.bytes.levels; ++j) {
                    key[3 + 2 * j] = k.bytes.level[j].stride;
                    key[4 + 2 * j] = k.bytes.level[j].count;
                }
                return !seen.insert(key).second;
            });
            book.kept.erase(book.kept.begin(), first.base());
            kept_ += book.kept.size();
        }
    }
}

void Hazards::prune() {
    kept_ = 0;
    for (unsigned owner = 0; owner < kEngines; ++owner) {
        uint64_t known = clocks_[owner][owner];
        for (const Clock& clock : clocks_) known = std::min(known, clock[owner]);
        for (Book& book : books_[owner]) {
            const auto unknown = std::find_if(book.kept.begin(), book.kept.end(),
                                              [known](const Kept& k) { return k.time > known; });
            book.kept.erase(book.kept.begin(), unknown);
            kept_ += book.kept.size();
            for (auto it = book.cut.begin(); it != book.cut.end();)
                it = it->second.time <= known ? book.cut.erase(it) : std::next(it);
        }
    }
}

void Hazards::cut() {
    for (auto& books : books_) {
        for (Book& book : books) cut(book);
    }
    kept_ = 0;
}

void Hazards::cut(Book& book) {
    std::vector<Interval> intervals;
    for (size_t k = 0; k < book.kept.size(); ++k) {
        const Kept& kept = book.kept[k];
        for_each_row(kept.bytes, [&](uint64_t begin, uint64_t end) {
            intervals.push_back({isa::Engine{}, false, begin, end, kept.field});
        });
        if (k + 1 < book.kept.size() && book.kept[k + 1].time == kept.time) continue;  // of the same command
        for (const Interval& interval : merged(std::move(intervals))) insert(book.cut, interval, kept.time);
        intervals.clear();
        book.cut_time = kept.time;
    }
    book.kept.clear();
}

// A later access of the same kind by the same engine takes the place of an earlier one: who knows the later
// one knows both.
void Hazards::insert(Map& map, const Interval& access, uint64_t time) {
    auto it = map.upper_bound(access.begin);
    if (it != map.begin() && std::prev(it)->second.end > access.begin) --it;
    while (it != map.end() && it->first < access.end) {
        const uint64_t begin = it->first;
        const Owned old = it->second;
        it = map.erase(it);
        if (begin < access.begin) map.emplace(begin, Owned{access.begin, old.time, old.field});
        if (old.end > access.end) map.emplace(access.end, old);
    }
    map.emplace(access.begin, Owned{access.end, time, access.field});
}

}  // namespace dlavm::sim
