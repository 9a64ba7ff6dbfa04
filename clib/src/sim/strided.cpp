#include "sim/strided.h"

#include <algorithm>

namespace dlavm::sim {

namespace {

// Describes the same bytes with as few levels as it can find; returns how many are left.
unsigned simplify(Level* level, unsigned levels, uint64_t& bytes) {
    for (unsigned j = 1; j < levels; ++j) {
        const Level moved = level[j];
        unsigned to = j;
        for (; to > 0 && level[to - 1].stride > moved.stride; --to) level[to] = level[to - 1];
        level[to] = moved;
    }
    unsigned left = 0;
    for (unsigned j = 0; j < levels; ++j) {
        const Level& l = level[j];
        if (l.count <= 1 || l.stride == 0) continue;
        if (left == 0 && l.stride <= bytes) {  // rows that touch are one row
            bytes += l.stride * (l.count - 1);
            continue;
        }
        if (left != 0) {
            Level& inner = level[left - 1];
            const uint64_t steps = l.stride / inner.stride;
            if (steps <= inner.count && steps * inner.stride == l.stride) {  // one progression goes on
                inner.count += steps * (l.count - 1);
                continue;
            }
        }
        level[left++] = l;
    }
    return left;
}

uint64_t extent(const Level* level, unsigned levels, uint64_t bytes) {
    for (unsigned j = 0; j < levels; ++j) bytes += level[j].stride * (level[j].count - 1);
    return bytes;
}

// Whether byte x is in the rows that begin at byte 0.
bool contains(const Level* level, unsigned levels, uint64_t bytes, uint64_t x, uint64_t& budget) {
    if (levels == 0) return x < bytes;
    if (budget == 0) return true;
    --budget;
    const Level& outer = level[levels - 1];
    const uint64_t inner = extent(level, levels - 1, bytes),
                   last = std::min(x / outer.stride, outer.count - 1);
    for (uint64_t k = last;; --k) {
        const uint64_t rest = x - k * outer.stride;
        if (rest >= inner) return false;
        if (contains(level, levels - 1, bytes, rest, budget)) return true;
        if (k == 0 || levels == 1) return false;
    }
}

}  // namespace

bool RowSet::overlaps_itself(uint64_t bytes) const {
    // Exact for the nested strides of real programs; says yes where strides interleave.
    uint64_t extent = bytes;
    Level levels[3] = {{stride_i, count_i}, {stride_o, count_o}, {stride_b, count_b}};
    for (int done = 0; done < 3; ++done) {
        int smallest = -1;
        for (int j = 0; j < 3; ++j) {
            if (levels[j].count > 1 && (smallest < 0 || levels[j].stride < levels[smallest].stride))
                smallest = j;
        }
        if (smallest < 0) return false;
        Level& level = levels[smallest];
        if (level.stride < extent) return true;
        extent += level.stride * (level.count - 1);
        level.count = 1;
    }
    return false;
}

uint64_t Strided::rows() const {
    uint64_t rows = 1;
    for (unsigned j = 0; j < levels; ++j) rows *= level[j].count;
    return rows;
}

Strided strided(const RowSet& r, uint64_t bytes) {
    Strided s = {
        r.base, 0, bytes, 0, {{r.stride_i, r.count_i}, {r.stride_o, r.count_o}, {r.stride_b, r.count_b}}};
    s.end = r.base + extent(s.level, 3, bytes);
    s.levels = simplify(s.level, 3, s.bytes);
    return s;
}

Strided strided(uint64_t begin, uint64_t end) { return {begin, end, end - begin, 0, {}}; }

// Row [x, x + m) of a and row [y, y + n) of b meet where -m < x - y < n. The differences x - y are points at
// regular distances themselves: the levels of both sets, those of b counted from the last row. Each point
// stands for the m + n - 1 bytes around it, and the question is whether byte 0 is among them.
bool meet(const Strided& a, const Strided& b, uint64_t& budget) {
    if (a.begin >= b.end || b.begin >= a.end) return false;
    if (a.levels == 0 && b.levels == 0) return true;
    Level level[6];
    std::copy(a.level, a.level + a.levels, level);
    std::copy(b.level, b.level + b.levels, level + a.levels);
    uint64_t bytes = a.bytes + b.bytes - 1;
    const unsigned levels = simplify(level, a.levels + b.levels, bytes);
    return contains(level, levels, bytes, b.end - 1 - a.begin, budget);
}

}  // namespace dlavm::sim
