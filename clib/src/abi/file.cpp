#include "abi/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "abi/misuse.h"

namespace dlavm::abi {

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
}

Descriptor::~Descriptor() {
    if (number_ >= 0) close(number_);
}

Descriptor open_device(const std::string& path, int flags) {
    Descriptor device(open(path.c_str(), flags | O_CLOEXEC));
    if (!device) {
        throw Misuse{errno == ENOENT ? DLAVM_NOT_FOUND : DLAVM_SYSTEM,
                     "open: " + path + ": " + system_text(errno)};
    }
    return device;
}

Descriptor open_image(const std::string& path, uint64_t bytes) {
    Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info;
    if (!file || fstat(file.get(), &info) != 0) {
        throw Misuse{DLAVM_NOT_FOUND, "mem_map: " + path + ": " + system_text(errno)};
    }
    if (static_cast<uint64_t>(info.st_size) < bytes) {
        throw Misuse{DLAVM_BAD_ARGUMENT, "mem_map: " + path + ": expected at least " + std::to_string(bytes) +
                                             " bytes, got " + std::to_string(info.st_size)};
    }
    return file;
}

void read_image(const std::string& path, uint64_t bytes, uint64_t most,
                const std::function<void(uint64_t, const uint8_t*, uint64_t)>& piece) {
    const Descriptor file = open_image(path, bytes);
    std::vector<uint8_t> buffer(std::min(bytes, most));
    for (uint64_t done = 0; done < bytes;) {
        const uint64_t length = std::min<uint64_t>(buffer.size(), bytes - done);
        const ssize_t got = pread(file.get(), buffer.data(), length, static_cast<off_t>(done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            const std::string reason = got < 0 ? system_text(errno) : "it became shorter";
            throw Misuse{DLAVM_SYSTEM, "mem_map: " + path + ": " + reason};
        }
        piece(done, buffer.data(), static_cast<uint64_t>(got));
        done += static_cast<uint64_t>(got);
    }
}

}  // namespace dlavm::abi
