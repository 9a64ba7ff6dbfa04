// Files and devices that are closed again.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace dlavm::abi {

// Owns a descriptor; -1: none.
class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor();

    int get() const { return number_; }
    explicit operator bool() const { return number_ >= 0; }

  private:
    int number_ = -1;
};

// A device file, opened with `flags`. Throws Misuse.
Descriptor open_device(const std::string& path, int flags);

// The file of mem_map, opened to be read. Throws Misuse where it is not there or has less than `bytes`.
Descriptor open_image(const std::string& path, uint64_t bytes);

// The first `bytes` of such a file, for engines that cannot map it: piece(offset, data, length) of at most
// `most` bytes at a time. Throws as open_image.
void read_image(const std::string& path, uint64_t bytes, uint64_t most,
                const std::function<void(uint64_t, const uint8_t*, uint64_t)>& piece);

}  // namespace dlavm::abi
