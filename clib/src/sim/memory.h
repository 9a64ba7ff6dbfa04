// The memory spaces of a board, each channel in one piece of host memory.
#pragma once

#include <cstdint>
#include <vector>

#include "abi/space.h"

namespace dlavm::sim {

struct Space : abi::Space {
    uint64_t pitch;  // from channel to channel in host memory
    uint8_t* data;   // untouched pages cost nothing

    uint64_t host_bytes() const { return pitch * channels; }
    uint8_t* channel(uint32_t c) const { return data + c * pitch; }
    abi::Stripes stripes() const { return {data, pitch, channels, port_bytes}; }
};

class Memory {
  public:
    explicit Memory(const dlavm_config& config);  // throws Misuse
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // The space that holds all of [address, address + bytes), or null.
    const Space* find(uint64_t address, uint64_t bytes) const { return abi::find(spaces_, address, bytes); }

    const std::vector<Space>& spaces() const { return spaces_; }

    // Both need find(address, bytes) to have succeeded.
    void read(uint64_t address, void* out, uint64_t bytes) const;
    void write(uint64_t address, const void* in, uint64_t bytes);

    void map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes);  // throws Misuse

  private:
    void release();

    std::vector<Space> spaces_;
};

}  // namespace dlavm::sim
