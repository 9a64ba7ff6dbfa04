#include "xdma/register_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "abi/file.h"
#include "abi/misuse.h"

namespace dlavm::xdma {

using abi::Misuse;

namespace {

constexpr uint64_t kWindow = 4096;

// A file that stands in for a card must have the page that is mapped: an access behind its end kills the
// process.
void check_size(const std::string& path, const abi::Descriptor& file) {
    struct stat info;
    if (fstat(file.get(), &info) != 0) throw Misuse{DLAVM_SYSTEM, path + ": " + abi::system_text(errno)};
    if (S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) < kWindow) {
        throw Misuse{DLAVM_SYSTEM, path + ": expected at least " + std::to_string(kWindow) +
                                       " bytes of registers, got " + std::to_string(info.st_size)};
    }
}

}  // namespace

RegisterFile::RegisterFile(const std::string& prefix) : path_(prefix + "_user") {
    const abi::Descriptor file = abi::open_device(path_, O_RDWR);
    check_size(path_, file);
    void* const page = mmap(nullptr, kWindow, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (page == MAP_FAILED)
        throw Misuse{DLAVM_SYSTEM, path_ + ": cannot map the registers: " + abi::system_text(errno)};
    page_ = static_cast<volatile uint32_t*>(page);
}

RegisterFile::~RegisterFile() { munmap(const_cast<uint32_t*>(page_), kWindow); }

}  // namespace dlavm::xdma
