#include "sim/access.h"

#include "sim/fault.h"

namespace dlavm::sim {

namespace {

// Rows beyond this number are taken as one interval from the first to the last byte.
constexpr uint64_t kMaxRows = 1 << 20;

}  // namespace

void AccessList::check(const char* field, uint64_t address, uint64_t bytes) const {
    if (memory_.find(address, bytes) == nullptr) {
        throw Fault{isa::Error::kBadAddress,
                    format("field %s: %llu bytes at 0x%llx are outside every memory space", field,
                           static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(address))};
    }
}

// Strides are not negative: everything lies between the first and the last byte, and that must be one space.
void AccessList::check_rows(const char* field, const RowSet& r, uint64_t bytes) const {
    check(field, r.base, r.at(r.count_b - 1, r.count_o - 1, r.count_i - 1) - r.base + bytes);
}

void AccessList::range(isa::Engine engine, bool write, const char* field, uint64_t address, uint64_t bytes) {
    range(engine, write, field, address, bytes, bytes);
}

void AccessList::range(isa::Engine engine, bool write, const char* field, uint64_t address, uint64_t bytes,
                       uint64_t counted) {
    check(field, address, bytes);
    count(write, counted);
    if (listed_ && bytes != 0) items_.push_back({engine, write, field, strided(address, address + bytes)});
}

void AccessList::rows(isa::Engine engine, bool write, const char* field, const RowSet& r, uint64_t bytes) {
    if (r.count() == 0 || bytes == 0) return;
    check_rows(field, r, bytes);
    count(write, r.count() * bytes);
    if (!listed_) return;
    Access access = {engine, write, field, strided(r, bytes)};
    if (r.count() > kMaxRows) access.bytes = strided(access.bytes.begin, access.bytes.end);
    items_.push_back(access);
}

}  // namespace dlavm::sim
