// The memory spaces of a board, and how linear bytes are striped over the channels of one: beat i stands in
// channel i % channels (doc/architecture.md, "Layouts").
#pragma once

#include <cstdint>
#include <vector>

#include "dlavm/device.h"

namespace dlavm::abi {

struct Space {
    uint64_t base, capacity, channel_bytes;
    uint32_t channels, port_bytes;

    uint64_t beat_row() const { return static_cast<uint64_t>(channels) * port_bytes; }
    bool holds(uint64_t address, uint64_t bytes) const {
        return address >= base && bytes <= capacity && address - base <= capacity - bytes;
    }
};

// The spaces of a configuration. Throws Misuse for shapes that no memory has.
std::vector<Space> spaces_of(const dlavm_config& config);

// The space that holds all of [address, address + bytes), or null.
template <class AnySpace>
const AnySpace* find(const std::vector<AnySpace>& spaces, uint64_t address, uint64_t bytes) {
    for (const AnySpace& s : spaces) {
        if (s.holds(address, bytes)) return &s;
    }
    return nullptr;
}

// Throws the Misuse of bytes that no space holds; `call` is the function's name.
[[noreturn]] void throw_outside(const char* call, uint64_t address, uint64_t bytes);

template <class AnySpace>
const AnySpace& find_or_throw(const std::vector<AnySpace>& spaces, const char* call, uint64_t address,
                              uint64_t bytes) {
    const AnySpace* space = find(spaces, address, bytes);
    if (space == nullptr) throw_outside(call, address, bytes);
    return *space;
}

// Where an image goes: the offset in the channel of `space`, which find(address, bytes) gave. Throws Misuse
// for a null space, and for a place that is no page of a channel with room for the image.
uint64_t image_offset(const Space* space, uint64_t address, uint32_t channel, uint64_t bytes);

uint64_t page_size();

// Host memory that holds channels of a space, `pitch` bytes apart.
struct Stripes {
    uint8_t* data;
    uint64_t pitch;
    uint32_t channels, port_bytes;
};

// Copies linear bytes from and to stripes; `offset` counts linear bytes from the first beat row.
void gather(const Stripes& from, uint64_t offset, void* out, uint64_t bytes);
void scatter(const Stripes& to, uint64_t offset, const void* in, uint64_t bytes);

// Bytes [begin, end) of a channel.
struct ChannelRange {
    uint64_t begin, end;
};

// What linear bytes [offset, offset + bytes) occupy of a channel; bytes > 0. Without a hole, so that one
// transfer moves them.
ChannelRange channel_range(const Space& space, uint64_t offset, uint64_t bytes, uint32_t channel);

}  // namespace dlavm::abi
