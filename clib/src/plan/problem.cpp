#include "plan/problem.h"

#include <algorithm>
#include <numeric>

#include "abi/misuse.h"

namespace dlavm::plan {

namespace {

using abi::format;
using abi::Misuse;

constexpr int64_t kMostBytes = int64_t{1} << 62;  // sums of two offsets stay within 64 bits

int64_t rounded(uint64_t size, uint64_t align) {
    const uint64_t rest = size % align;
    return static_cast<int64_t>(rest == 0 ? size : size + (align - rest));
}

void check(const dlavm_plan_problem& p) {
    const auto bad = [](std::string text) { return Misuse{DLAVM_BAD_ARGUMENT, "plan: " + std::move(text)}; };
    if (p.count >= uint64_t{1} << 31)
        throw bad(format("expected below 2^31 buffers, got %llu", (unsigned long long)p.count));
    if (p.count != 0 && (p.lower == nullptr || p.upper == nullptr || p.size == nullptr)) {
        throw bad("expected arrays lower, upper and size, got a null pointer");
    }
    if (p.align == 0 || p.align >= static_cast<uint64_t>(kMostBytes)) {
        throw bad(format("align: expected 1 to 2^62 - 1, got %llu", (unsigned long long)p.align));
    }
    int64_t total = 0;
    for (uint64_t i = 0; i < p.count; ++i) {
        const auto at = (unsigned long long)i;
        if (p.lower[i] >= p.upper[i]) {
            throw bad(format("buffer %llu: expected lower < upper, got %llu and %llu", at,
                             (unsigned long long)p.lower[i], (unsigned long long)p.upper[i]));
        }
        const bool large = p.size[i] >= static_cast<uint64_t>(kMostBytes);
        if (!large) total += rounded(p.size[i], p.align);
        if (large || total >= kMostBytes) {
            throw bad(format("buffer %llu: expected sizes that sum up to less than 2^62, got %llu more", at,
                             (unsigned long long)p.size[i]));
        }
    }
}

// Sections of the buffers in `members`, which are sorted by `lower`.
void add_sections(const dlavm_plan_problem& p, Problem& part) {
    std::vector<uint64_t> ends;
    for (const uint32_t i : part.input) ends.push_back(p.upper[i]);
    std::sort(ends.begin(), ends.end());
    // A section is over at the first end that follows a beginning.
    std::vector<uint64_t> closing;
    size_t end = 0;
    for (size_t n = 0; n < part.input.size();) {
        while (ends[end] <= p.lower[part.input[n]]) ++end;
        closing.push_back(ends[end]);
        while (n < part.input.size() && p.lower[part.input[n]] < ends[end]) ++n;
    }
    part.sections = static_cast<int>(closing.size());
    for (const uint32_t i : part.input) {
        const auto from = std::upper_bound(closing.begin(), closing.end(), p.lower[i]);
        const auto to = std::upper_bound(from, closing.end(), p.upper[i]);
        part.first.push_back(static_cast<int>(from - closing.begin()));
        part.last.push_back(static_cast<int>(to - closing.begin()));
    }
}

void add_sizes(const dlavm_plan_problem& p, Problem& part) {
    part.unit = 0;
    for (const uint32_t i : part.input) part.unit = std::gcd(part.unit, rounded(p.size[i], p.align));
    for (const uint32_t i : part.input) {
        const int64_t bytes = rounded(p.size[i], p.align);
        part.size.push_back(bytes / part.unit);
        part.padding.push_back(bytes - static_cast<int64_t>(p.size[i]));
    }
    part.load.assign(static_cast<size_t>(part.sections), 0);
    std::vector<int64_t> spare(static_cast<size_t>(part.sections), 0);
    for (int b = 0; b < part.count(); ++b) {
        for (int s = part.first[b]; s < part.last[b]; ++s) {
            part.load[s] += part.size[b];
            spare[s] = std::max(spare[s], part.padding[b]);
        }
    }
    for (int s = 0; s < part.sections; ++s) {
        part.lower_bound = std::max(part.lower_bound, part.load[s] * part.unit - spare[s]);
    }
}

}  // namespace

int64_t Problem::peak(const std::vector<int64_t>& offsets) const {
    int64_t most = 0;
    for (int b = 0; b < count(); ++b) most = std::max(most, (offsets[b] + size[b]) * unit - padding[b]);
    return most;
}

int64_t Problem::next_peak(int64_t bytes) const {
    int64_t best = INT64_MAX;
    for (const int64_t spare : padding) best = std::min(best, ((bytes + spare) / unit + 1) * unit - spare);
    return best;
}

std::vector<int64_t> Problem::ends(int64_t bytes) const {
    std::vector<int64_t> result;
    for (const int64_t spare : padding) result.push_back((bytes + spare) / unit);
    return result;
}

std::vector<Problem> parts(const dlavm_plan_problem& problem) {
    check(problem);
    std::vector<uint32_t> order;
    for (uint64_t i = 0; i < problem.count; ++i) {
        if (problem.size[i] != 0) order.push_back(static_cast<uint32_t>(i));
    }
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        return problem.lower[a] != problem.lower[b] ? problem.lower[a] < problem.lower[b] : a < b;
    });
    std::vector<Problem> result;
    uint64_t end = 0;
    for (const uint32_t i : order) {
        if (result.empty() || problem.lower[i] >= end) result.emplace_back();
        result.back().input.push_back(i);
        end = std::max(end, problem.upper[i]);
    }
    for (Problem& part : result) {
        add_sections(problem, part);
        add_sizes(problem, part);
    }
    return result;
}

}  // namespace dlavm::plan
