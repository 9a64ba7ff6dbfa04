#include "abi/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

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

}  // namespace dlavm::abi
