#include "sim/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "abi/file.h"
#include "sim/fault.h"

namespace dlavm::sim {

Memory::Memory(const dlavm_config& config) {
    const uint64_t page = abi::page_size();
    for (const abi::Space& shape : abi::spaces_of(config)) {
        // Beats in two channels are a power of two apart, which one set of a cache or TLB would have to hold:
        // skewed by a page, they spread. Whole pages, since channel images are mapped.
        const uint64_t skew = shape.channels > 1 ? page : 0;
        Space s = {shape, (shape.channel_bytes + page - 1) / page * page + skew, nullptr};
        void* data = mmap(nullptr, s.host_bytes(), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (data == MAP_FAILED) {
            const std::string reason = system_text(errno);
            release();
            throw Misuse{DLAVM_SYSTEM, format("memory: cannot reserve %llu bytes: %s",
                                              static_cast<unsigned long long>(s.capacity), reason.c_str())};
        }
        s.data = static_cast<uint8_t*>(data);
        spaces_.push_back(s);
    }
}

void Memory::release() {
    for (const Space& s : spaces_) munmap(s.data, s.host_bytes());
}

Memory::~Memory() { release(); }

void Memory::read(uint64_t address, void* out, uint64_t bytes) const {
    const Space& s = *find(address, bytes);
    abi::gather(s.stripes(), address - s.base, out, bytes);
}

void Memory::write(uint64_t address, const void* in, uint64_t bytes) {
    const Space& s = *find(address, bytes);
    abi::scatter(s.stripes(), address - s.base, in, bytes);
}

void Memory::map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    const uint64_t page = abi::page_size();
    const Space* s = find(address, bytes);
    const uint64_t offset = abi::image_offset(s, address, channel, bytes);
    if (bytes == 0) return;
    const abi::Descriptor file = abi::open_image(path, bytes);
    uint8_t* to = s->channel(channel) + offset;
    // Behind the image, the rest of its last page keeps what was there.
    const uint64_t rest = std::min((page - bytes % page) % page, s->channel_bytes - offset - bytes);
    const std::vector<uint8_t> kept(to + bytes, to + bytes + rest);
    if (mmap(to, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file.get(), 0) == MAP_FAILED) {
        throw Misuse{DLAVM_SYSTEM, format("mem_map: %s: %s", path, system_text(errno).c_str())};
    }
    if (rest != 0 && std::memcmp(to + bytes, kept.data(), rest) != 0)
        std::memcpy(to + bytes, kept.data(), rest);
}

}  // namespace dlavm::sim
