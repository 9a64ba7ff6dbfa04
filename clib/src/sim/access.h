// The bytes that a command touches: one list serves the bounds check, the byte counters and the hazard check.
#pragma once

#include <cstdint>
#include <vector>

#include "dlavm_isa.h"
#include "sim/memory.h"
#include "sim/strided.h"

namespace dlavm::sim {

struct Access {
    isa::Engine engine;
    bool write;
    const char* field;
    Strided bytes;
};

class AccessList {
  public:
    AccessList(const Memory& memory, bool listed) : memory_(memory), listed_(listed) {
        if (listed) items_.reserve(8);
    }

    // Each checks bounds (throws Fault bad_address) and counts bytes; `counted` where it differs from the
    // length.
    void range(isa::Engine engine, bool write, const char* field, uint64_t address, uint64_t bytes);
    void range(isa::Engine engine, bool write, const char* field, uint64_t address, uint64_t bytes,
               uint64_t counted);
    void rows(isa::Engine engine, bool write, const char* field, const RowSet& rows, uint64_t bytes);

    const std::vector<Access>& items() const { return items_; }
    uint64_t bytes_read() const { return bytes_read_; }
    uint64_t bytes_written() const { return bytes_written_; }

  private:
    void check(const char* field, uint64_t address, uint64_t bytes) const;
    void check_rows(const char* field, const RowSet& rows, uint64_t bytes) const;
    void count(bool write, uint64_t bytes) { (write ? bytes_written_ : bytes_read_) += bytes; }

    const Memory& memory_;
    bool listed_;
    std::vector<Access> items_;
    uint64_t bytes_read_ = 0, bytes_written_ = 0;
};

}  // namespace dlavm::sim
