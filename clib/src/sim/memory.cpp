#include "sim/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "sim/fault.h"

namespace dlavm::sim {

std::string format(const char* pattern, ...) {
    char text[512];
    va_list args;
    va_start(args, pattern);
    std::vsnprintf(text, sizeof text, pattern, args);
    va_end(args);
    return text;
}

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

// Beats in two channels are a power of two apart, which one set of a cache or TLB would have to hold: skewed
// by a page, they spread. Whole pages, since channel images are mapped.
uint64_t page_size() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

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

// Whole beats from `beat` on; kPort 0: the port width is not known to the compiler.
template <unsigned kPort, class Copy>
inline void whole_beats(const Space& s, uint64_t beat, uint64_t count, Copy& copy) {
    const uint64_t port = kPort != 0 ? kPort : s.port_bytes;
    uint64_t channel = beat % s.channels, row = beat / s.channels;
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
inline void copy_range(const Space& s, uint64_t offset, uint64_t bytes, Copy copy) {
    if (s.channels == 1) return copy.piece(s.data + offset, bytes);
    const uint64_t port = s.port_bytes, within = offset & (port - 1);
    uint64_t beat = offset / port;
    const auto partial = [&](uint64_t from, uint64_t length) {
        copy.piece(s.channel(static_cast<uint32_t>(beat % s.channels)) + beat / s.channels * port + from,
                   length);
        copy.advance(length);
    };
    if (within != 0) {
        const uint64_t length = std::min(port - within, bytes);
        partial(within, length);
        bytes -= length;
        ++beat;
    }
    const uint64_t whole = bytes / port;
    if (port == 32) {
        whole_beats<32>(s, beat, whole, copy);
    } else if (port == 16) {
        whole_beats<16>(s, beat, whole, copy);
    } else {
        whole_beats<0>(s, beat, whole, copy);
    }
    beat += whole;
    if (bytes % port != 0) partial(0, bytes % port);
}

struct File {
    int fd;
    explicit File(const char* path) : fd(open(path, O_RDONLY | O_CLOEXEC)) {}
    ~File() {
        if (fd >= 0) close(fd);
    }
};

}  // namespace

Memory::Memory(const dlavm_config& config) {
    if (config.memory_count == 0 || config.memory_count > DLAVM_MAX_MEMORIES) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     format("memory_count: expected 1..%d, got %u", DLAVM_MAX_MEMORIES, config.memory_count)};
    }
    for (uint32_t i = 0; i < config.memory_count; ++i) check_memory(config.memories[i]);
    for (uint32_t i = 0; i < config.memory_count; ++i) {
        const dlavm_memory_config& m = config.memories[i];
        Space s = {m.base, m.capacity, m.capacity / m.channels, 0, m.channels, m.port_bytes, nullptr};
        s.pitch = s.channel_bytes + (m.channels > 1 ? page_size() : 0);
        void* data = mmap(nullptr, s.host_bytes(), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (data == MAP_FAILED) {
            const std::string reason = std::strerror(errno);
            release();
            throw Misuse{DLAVM_SYSTEM, format("memory: cannot reserve %llu bytes: %s",
                                              static_cast<unsigned long long>(m.capacity), reason.c_str())};
        }
        s.data = static_cast<uint8_t*>(data);
        spaces_.push_back(s);
    }
}

void Memory::release() {
    for (const Space& s : spaces_) munmap(s.data, s.host_bytes());
}

Memory::~Memory() { release(); }

const Space* Memory::find(uint64_t address, uint64_t bytes) const {
    for (const Space& s : spaces_) {
        if (address >= s.base && bytes <= s.capacity && address - s.base <= s.capacity - bytes) return &s;
    }
    return nullptr;
}

void Memory::read(uint64_t address, void* out, uint64_t bytes) const {
    const Space& s = *find(address, bytes);
    copy_range(s, address - s.base, bytes, ToBuffer{static_cast<uint8_t*>(out)});
}

void Memory::write(uint64_t address, const void* in, uint64_t bytes) {
    const Space& s = *find(address, bytes);
    copy_range(s, address - s.base, bytes, FromBuffer{static_cast<const uint8_t*>(in)});
}

void Memory::map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    const uint64_t page = page_size();
    const Space* s = find(address, bytes);
    if (s == nullptr || channel >= s->channels || (address - s->base) % s->beat_row() != 0) {
        throw Misuse{DLAVM_BAD_ADDRESS,
                     format("mem_map: 0x%llx, channel %u: not a beat of a channel that exists",
                            static_cast<unsigned long long>(address), channel)};
    }
    const uint64_t offset = (address - s->base) / s->channels;
    uint8_t* to = s->channel(channel) + offset;
    if (bytes > s->channel_bytes - offset || reinterpret_cast<uintptr_t>(to) % page != 0) {
        throw Misuse{
            DLAVM_BAD_ADDRESS,
            format(
                "mem_map: offset 0x%llx in channel %u: expected a multiple of %llu with room for %llu bytes",
                static_cast<unsigned long long>(offset), channel, static_cast<unsigned long long>(page),
                static_cast<unsigned long long>(bytes))};
    }
    if (bytes == 0) return;
    const File file(path);
    struct stat info;
    if (file.fd < 0 || fstat(file.fd, &info) != 0) {
        throw Misuse{DLAVM_NOT_FOUND, format("mem_map: %s: %s", path, std::strerror(errno))};
    }
    if (static_cast<uint64_t>(info.st_size) < bytes) {
        throw Misuse{DLAVM_BAD_ARGUMENT, format("mem_map: %s: expected at least %llu bytes, got %llu", path,
                                                static_cast<unsigned long long>(bytes),
                                                static_cast<unsigned long long>(info.st_size))};
    }
    // Behind the image, the rest of its last page keeps what was there.
    const uint64_t rest = std::min((page - bytes % page) % page, s->channel_bytes - offset - bytes);
    const std::vector<uint8_t> kept(to + bytes, to + bytes + rest);
    if (mmap(to, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file.fd, 0) == MAP_FAILED) {
        throw Misuse{DLAVM_SYSTEM, format("mem_map: %s: %s", path, std::strerror(errno))};
    }
    if (rest != 0 && std::memcmp(to + bytes, kept.data(), rest) != 0)
        std::memcpy(to + bytes, kept.data(), rest);
}

}  // namespace dlavm::sim
