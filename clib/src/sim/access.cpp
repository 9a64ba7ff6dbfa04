#include "sim/access.h"

#include "sim/fault.h"

namespace dlavm::sim {

namespace {

// Rows beyond this number are taken as one interval from the first to the last byte.
constexpr uint64_t kMaxIntervals = 1 << 20;

struct Level {
    uint64_t stride, count;
};

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

void AccessList::check(const char* field, uint64_t address, uint64_t bytes) const {
    if (memory_.find(address, bytes) == nullptr) {
        throw Fault{isa::Error::kBadAddress,
                    format("field %s: %llu bytes at 0x%llx are outside every memory space", field,
                           static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(address))};
    }
}

// Strides are not negative: if the first and the last byte are in one space, so is everything between them.
// Otherwise rows may still stand in several spaces.
void AccessList::check_rows(const char* field, const RowSet& r, uint64_t bytes) const {
    const uint64_t last = r.at(r.count_b - 1, r.count_o - 1, r.count_i - 1);
    if (memory_.find(r.base, last - r.base + bytes) != nullptr) return;
    check(field, last, bytes);
    const uint64_t count_b = r.stride_b == 0 ? 1 : r.count_b;
    const uint64_t count_o = r.stride_o == 0 ? 1 : r.count_o;
    const uint64_t count_i = r.stride_i == 0 ? 1 : r.count_i;
    for (uint64_t b = 0; b < count_b; ++b) {
        for (uint64_t o = 0; o < count_o; ++o) {
            for (uint64_t i = 0; i < count_i; ++i) check(field, r.at(b, o, i), bytes);
        }
    }
}

void AccessList::range(isa::Engine engine, bool write, const char* field, uint64_t address, uint64_t bytes) {
    range(engine, write, field, address, bytes, bytes);
}

void AccessList::range(isa::Engine engine, bool write, const char* field, uint64_t address, uint64_t bytes,
                       uint64_t counted) {
    check(field, address, bytes);
    count(write, counted);
    if (intervals_ && bytes != 0) items_.push_back({engine, write, address, address + bytes, field});
}

void AccessList::rows(isa::Engine engine, bool write, const char* field, const RowSet& r, uint64_t bytes) {
    if (r.count() == 0 || bytes == 0) return;
    check_rows(field, r, bytes);
    count(write, r.count() * bytes);
    if (!intervals_) return;
    if (r.count() > kMaxIntervals) {
        const uint64_t last = r.at(r.count_b - 1, r.count_o - 1, r.count_i - 1);
        items_.push_back({engine, write, r.base, last + bytes, field});
        return;
    }
    for (uint64_t b = 0; b < r.count_b; ++b) {
        for (uint64_t o = 0; o < r.count_o; ++o) {
            for (uint64_t i = 0; i < r.count_i; ++i) {
                const uint64_t begin = r.at(b, o, i);
                if (!items_.empty() && items_.back().end == begin && items_.back().field == field) {
                    items_.back().end = begin + bytes;
                } else {
                    items_.push_back({engine, write, begin, begin + bytes, field});
                }
            }
        }
    }
}

}  // namespace dlavm::sim
