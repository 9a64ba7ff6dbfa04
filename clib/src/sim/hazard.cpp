#include "sim/hazard.h"

#include <algorithm>
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
    for (auto& maps : owned_) {
        for (Map& map : maps) map.clear();
    }
    for (auto& queue : queues_) queue.clear();
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
    for (auto& maps : owned_) {
        for (Map& map : maps) map.clear();
    }
}

// Adjacent and overlapping intervals of one engine and direction become one.
std::vector<Access> Hazards::merged(const std::vector<Access>& accesses) const {
    std::vector<Access> sorted(accesses);
    std::sort(sorted.begin(), sorted.end(), [](const Access& a, const Access& b) {
        return std::tie(a.engine, a.write, a.begin) < std::tie(b.engine, b.write, b.begin);
    });
    std::vector<Access> out;
    for (const Access& a : sorted) {
        if (!out.empty() && out.back().engine == a.engine && out.back().write == a.write &&
            a.begin <= out.back().end) {
            out.back().end = std::max(out.back().end, a.end);
        } else {
            out.push_back(a);
        }
    }
    return out;
}

void Hazards::command(isa::Engine engine, const std::vector<Access>& accesses) {
    const std::vector<Access> list = merged(accesses);
    for (const Access& access : list) check(access);
    const unsigned own = index(engine), load = index(isa::Engine::kLoad);
    if (engine == isa::Engine::kMatrix) ++clocks_[load][load];
    ++clocks_[own][own];
    for (const Access& access : list) record(access);
    // The product is complete only when its weights have come: what follows in the matrix engine knows what
    // load knew.
    if (engine == isa::Engine::kMatrix) {
        for (unsigned e = 0; e < kEngines; ++e) clocks_[own][e] = std::max(clocks_[own][e], clocks_[load][e]);
    }
    if (++commands_ % kPruneEvery == 0) prune();
}

void Hazards::check(const Access& access) const {
    for (unsigned owner = 0; owner < kEngines; ++owner) {
        if (owner == index(access.engine)) continue;
        check_map(access, owner, true);
        if (access.write) check_map(access, owner, false);
    }
}

void Hazards::check_map(const Access& access, unsigned owner, bool written) const {
    const Map& map = owned_[owner][written ? 1 : 0];
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

// A later access of the same kind by the same engine takes the place of an earlier one: who knows the later
// one knows both.
void Hazards::record(const Access& access) {
    Map& map = owned_[index(access.engine)][access.write ? 1 : 0];
    const uint64_t time = clocks_[index(access.engine)][index(access.engine)];
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

void Hazards::prune() {
    for (unsigned owner = 0; owner < kEngines; ++owner) {
        uint64_t known = clocks_[owner][owner];
        for (const Clock& clock : clocks_) known = std::min(known, clock[owner]);
        for (Map& map : owned_[owner]) {
            for (auto it = map.begin(); it != map.end();)
                it = it->second.time <= known ? map.erase(it) : std::next(it);
        }
    }
}

}  // namespace dlavm::sim
