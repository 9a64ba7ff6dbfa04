// The registers of a card: one page of its AXI4-Lite window, mapped.
#pragma once

#include <cstdint>
#include <string>

namespace dlavm::xdma {

class RegisterFile {
  public:
    // Maps the first page of PREFIX_user. Throws Misuse.
    explicit RegisterFile(const std::string& prefix);
    ~RegisterFile();
    RegisterFile(const RegisterFile&) = delete;
    RegisterFile& operator=(const RegisterFile&) = delete;

    const std::string& path() const { return path_; }

    // One access of 32 bits each, from any thread. What was written to memory before is there before it.
    uint32_t read(uint32_t offset) const { return __atomic_load_n(at(offset), __ATOMIC_SEQ_CST); }
    void write(uint32_t offset, uint32_t value) const {
        __atomic_store_n(at(offset), value, __ATOMIC_SEQ_CST);
    }

    // A counter of two registers, the low word first.
    uint64_t read_pair(uint32_t offset) const { return uint64_t{read(offset + 4)} << 32 | read(offset); }

  private:
    volatile uint32_t* at(uint32_t offset) const { return page_ + offset / 4; }

    std::string path_;
    volatile uint32_t* page_ = nullptr;
};

}  // namespace dlavm::xdma
