#include "abi/space.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "abi/misuse.h"

namespace dlavm::abi {

namespace {

void check_memory(const dlavm_memory_config& m) {
    const bool port = m.port_bytes >= 16 && m.port_bytes <= 1024 && (m.port_bytes & (m.port_bytes - 1)) == 0;
    if (!port || m.channels == 0 || m.channels > 4096) {
        throw Misuse{DLAVM_BAD_ARGUMENT, format("memory: expected 1..4096 channels and a port of 16..1024 "
                                                "bytes (a power of two), got %u and %u",
                                                m.channels, m.port_bytes)};
    }
    const uint64_t row = static_cast<uint64_t>(m.channels) * m.port_bytes;
    const uint64_t limit = uint64_t{1} << 40;
    if (m.capacity == 0 || m.capacity > limit || m.capacity % row != 0 || m.base > limit ||
        m.base % row != 0) {
        throw Misuse{
            DLAVM_BAD_ARGUMENT,
            format("memory: base 0x%llx and capacity 0x%llx must be multiples of %llu bytes below 2^40",
                   static_cast<unsigned long long>(m.base), static_cast<unsigned long long>(m.capacity),
                   static_cast<unsigned long long>(row))};
    }
}

struct ToBuffer {
    uint8_t* buffer;
    void piece(uint8_t* beat, uint64_t bytes) const { std::memcpy(buffer, beat, bytes); }
    void advance(uint64_t bytes) { buffer += bytes; }
};

struct FromBuffer {
    const uint8_t* buffer;
    void piece(uint8_t* beat, uint64_t bytes) const { std::memcpy(beat, buffer, bytes); }
    void advance(uint64_t bytes) { buffer += bytes; }
};

// Which beat of which channel a beat of the space is. Dividing by a variable takes as long as copying a short
// row; of most boards the channels are a power of two.
struct Place {
    uint64_t row, channel;
};

inline Place place_of(const Stripes& s, uint64_t beat) {
    if ((s.channels & (s.channels - 1)) == 0) {
        return {beat >> __builtin_ctz(s.channels), beat & (s.channels - 1)};
    }
    return {beat / s.channels, beat % s.channels};
}

// Whole beats from `beat` on; kPort 0: the port width is not known to the compiler.
template <unsigned kPort, class Copy>
inline void whole_beats(const Stripes& s, uint64_t beat, uint64_t count, Copy& copy) {
    const uint64_t port = kPort != 0 ? kPort : s.port_bytes;
    auto [row, channel] = place_of(s, beat);
    while (count != 0) {
        const uint64_t end = std::min<uint64_t>(s.channels, channel + count);
        uint8_t* at = s.data + row * port + channel * s.pitch;
        count -= end - channel;
        for (; channel < end; ++channel, at += s.pitch) {
            copy.piece(at, port);
            copy.advance(port);
        }
        channel = 0;
        ++row;
    }
}

template <class Copy>
inline void copy_range(const Stripes& s, uint64_t offset, uint64_t bytes, Copy copy) {
    if (s.channels == 1) return copy.piece(s.data + offset, bytes);
    const uint64_t port = s.port_bytes, within = offset & (port - 1);
    const int port_bits = __builtin_ctz(s.port_bytes);  // a power of two
    uint64_t beat = offset >> port_bits;
    const auto partial = [&](uint64_t from, uint64_t length) {
        const Place place = place_of(s, beat);
        copy.piece(s.data + place.channel * s.pitch + place.row * port + from, length);
        copy.advance(length);
    };
    if (within != 0) {
        const uint64_t length = std::min(port - within, bytes);
        partial(within, length);
        bytes -= length;
        ++beat;
    }
    const uint64_t whole = bytes >> port_bits;
    if (port == 32) {
        whole_beats<32>(s, beat, whole, copy);
    } else if (port == 16) {
        whole_beats<16>(s, beat, whole, copy);
    } else {
        whole_beats<0>(s, beat, whole, copy);
    }
    beat += whole;
    const uint64_t rest = bytes & (port - 1);
    if (rest != 0) partial(0, rest);
}

}  // namespace

std::vector<Space> spaces_of(const dlavm_config& config) {
    if (config.memory_count == 0 || config.memory_count > DLAVM_MAX_MEMORIES) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     format("memory_count: expected 1..%d, got %u", DLAVM_MAX_MEMORIES, config.memory_count)};
    }
    std::vector<Space> spaces;
    for (uint32_t i = 0; i < config.memory_count; ++i) {
        const dlavm_memory_config& m = config.memories[i];
        check_memory(m);
        spaces.push_back({m.base, m.capacity, m.capacity / m.channels, m.channels, m.port_bytes});
    }
    return spaces;
}

void throw_outside(const char* call, uint64_t address, uint64_t bytes) {
    throw Misuse{DLAVM_BAD_ADDRESS,
                 format("%s: %llu bytes at 0x%llx are outside every memory space", call,
                        static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(address))};
}

uint64_t page_size() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

uint64_t image_offset(const Space* space, uint64_t address, uint32_t channel, uint64_t bytes) {
    if (space == nullptr || channel >= space->channels || (address - space->base) % space->beat_row() != 0) {
        throw Misuse{DLAVM_BAD_ADDRESS,
                     format("mem_map: 0x%llx, channel %u: not a beat of a channel that exists",
                            static_cast<unsigned long long>(address), channel)};
    }
    const uint64_t offset = (address - space->base) / space->channels;
    if (bytes > space->channel_bytes - offset || offset % page_size() != 0) {
        throw Misuse{
            DLAVM_BAD_ADDRESS,
            format(
                "mem_map: offset 0x%llx in channel %u: expected a multiple of %llu with room for %llu bytes",
                static_cast<unsigned long long>(offset), channel,
                static_cast<unsigned long long>(page_size()), static_cast<unsigned long long>(bytes))};
    }
    return offset;
}

void gather(const Stripes& from, uint64_t offset, void* out, uint64_t bytes) {
    copy_range(from, offset, bytes, ToBuffer{static_cast<uint8_t*>(out)});
}

void scatter(const Stripes& to, uint64_t offset, const void* in, uint64_t bytes) {
    copy_range(to, offset, bytes, FromBuffer{static_cast<const uint8_t*>(in)});
}

ChannelRange channel_range(const Space& space, uint64_t offset, uint64_t bytes, uint32_t channel) {
    const uint64_t port = space.port_bytes, last = offset + bytes - 1;
    const uint64_t first_beat = offset / port, last_beat = last / port;
    // Beats of the channel before the first one touched, and before the end of the last one.
    const auto beats_below = [&](uint64_t beat) {
        return beat / space.channels + (beat % space.channels > channel ? 1 : 0);
    };
    const uint64_t begin = beats_below(first_beat), end = beats_below(last_beat + 1);
    if (begin == end) return {0, 0};
    const bool starts = first_beat % space.channels == channel, ends = last_beat % space.channels == channel;
    return {begin * port + (starts ? offset % port : 0), end * port - (ends ? port - 1 - last % port : 0)};
}

}  // namespace dlavm::abi
