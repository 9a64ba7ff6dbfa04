// Files of the artifact, checked. What is wrong throws std::runtime_error with one line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace host {

[[noreturn]] void fail(const std::string& where, const std::string& expected, const std::string& got);

std::string hex(std::uint32_t value);

void check_size(const std::filesystem::path& file, std::uint64_t bytes);

std::vector<char> read_file(const std::filesystem::path& file, std::uint64_t bytes);

// The words of a file that this driver was written for, by the CRC of Ethernet and zip.
std::vector<std::uint32_t> read_words(const std::filesystem::path& file, std::uint32_t words,
                                      std::uint32_t crc32);

// A file in memory, read as it is needed. Nothing until it is opened.
class MappedFile {
  public:
    MappedFile() = default;
    MappedFile(const std::filesystem::path& file, std::uint64_t bytes);
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    ~MappedFile();

    const char* data() const { return data_; }

  private:
    const char* data_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace host
