#include "xdma/dma.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "abi/misuse.h"

namespace dlavm::xdma {

using abi::format;
using abi::Misuse;

namespace {

// Several transfers for what is longer: a driver's limits stay away, and so do its timeouts.
constexpr uint64_t kTransfer = uint64_t{8} << 20;

// The driver hands out this kernel-internal number where a transfer timed out.
constexpr int kRestartSystemCall = 512;

// The driver refuses a transfer whose places in host memory and on the card differ modulo its engine's
// alignment, which is at most the 64 bytes of its widest data path.
constexpr uint64_t kAlignment = 64, kStaged = uint64_t{1} << 20;

// Host memory with a place for each address on the card.
class Staging {
  public:
    static bool helps(const void* host, uint64_t physical) {
        return reinterpret_cast<uintptr_t>(host) % kAlignment != physical % kAlignment;
    }

    uint8_t* place(uint64_t physical) {
        bytes_.resize(kStaged + 2 * kAlignment);
        const uint64_t past = reinterpret_cast<uintptr_t>(bytes_.data()) % kAlignment;
        return bytes_.data() + (kAlignment - past) + physical % kAlignment;
    }

  private:
    std::vector<uint8_t> bytes_;
};

[[noreturn]] void fail(const std::string& path, const char* verb, uint64_t physical, uint64_t bytes,
                       const std::string& reason) {
    throw Misuse{DLAVM_SYSTEM,
                 path +
                     format(": %s %llu bytes at 0x%llx: ", verb, static_cast<unsigned long long>(bytes),
                            static_cast<unsigned long long>(physical)) +
                     reason};
}

// `once(bytes, physical)` is pread or pwrite from the current place.
template <class Once>
void transfer(const std::string& path, const char* verb, uint64_t physical, uint64_t bytes, Once once) {
    while (bytes != 0) {
        const uint64_t length = bytes < kTransfer ? bytes : kTransfer;
        const ssize_t done = once(length, physical);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == kRestartSystemCall)
            fail(path, verb, physical, length, "the driver gave the transfer up, the kernel log says why");
        if (done < 0) fail(path, verb, physical, length, abi::system_text(errno));
        if (done == 0) fail(path, verb, physical, length, "the device has no more bytes");
        physical += static_cast<uint64_t>(done);
        bytes -= static_cast<uint64_t>(done);
    }
}

}  // namespace

Dma::Dma(const std::string& prefix)
    : to_card_{prefix + "_h2c_0", abi::open_device(prefix + "_h2c_0", O_WRONLY)},
      from_card_{prefix + "_c2h_0", abi::open_device(prefix + "_c2h_0", O_RDONLY)} {}

void Dma::write(uint64_t physical, const void* in, uint64_t bytes) const {
    const uint8_t* from = static_cast<const uint8_t*>(in);
    Staging staging;
    transfer(to_card_.path, "writing", physical, bytes, [&](uint64_t length, uint64_t address) {
        ssize_t done = pwrite(to_card_.file.get(), from, length, static_cast<off_t>(address));
        if (done < 0 && errno == EINVAL && Staging::helps(from, address)) {
            length = std::min(length, kStaged);
            uint8_t* const place = staging.place(address);
            std::memcpy(place, from, length);
            done = pwrite(to_card_.file.get(), place, length, static_cast<off_t>(address));
        }
        if (done > 0) from += done;
        return done;
    });
}

void Dma::read(uint64_t physical, void* out, uint64_t bytes) const {
    uint8_t* to = static_cast<uint8_t*>(out);
    Staging staging;
    transfer(from_card_.path, "reading", physical, bytes, [&](uint64_t length, uint64_t address) {
        ssize_t done = pread(from_card_.file.get(), to, length, static_cast<off_t>(address));
        if (done < 0 && errno == EINVAL && Staging::helps(to, address)) {
            uint8_t* const place = staging.place(address);
            done =
                pread(from_card_.file.get(), place, std::min(length, kStaged), static_cast<off_t>(address));
            if (done > 0) std::memcpy(to, place, static_cast<size_t>(done));
        }
        if (done > 0) to += done;
        return done;
    });
}

}  // namespace dlavm::xdma
