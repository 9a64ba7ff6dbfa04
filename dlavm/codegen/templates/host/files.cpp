#include "files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <utility>

namespace host {

using std::to_string;
using std::filesystem::path;

namespace {

std::uint32_t crc_of(const char* bytes, std::size_t count) {
    std::uint32_t crc = ~0u;
    for (std::size_t i = 0; i < count; ++i) {
        crc ^= static_cast<unsigned char>(bytes[i]);
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
    }
    return ~crc;
}

}  // namespace

void fail(const std::string& where, const std::string& expected, const std::string& got) {
    throw std::runtime_error(where + ": expected " + expected + ", got " + got);
}

std::string hex(std::uint32_t value) {
    constexpr char digits[] = "0123456789abcdef";
    std::string text = "0x";
    for (int shift = 28; shift >= 0; shift -= 4) text += digits[value >> shift & 15];
    return text;
}

void check_size(const path& file, std::uint64_t bytes) {
    std::error_code error;
    const std::uint64_t got = std::filesystem::file_size(file, error);
    if (error) fail(file.string(), "a file of the artifact", error.message());
    if (got != bytes) fail(file.string(), to_string(bytes) + " bytes", to_string(got));
}

std::vector<char> read_file(const path& file, std::uint64_t bytes) {
    check_size(file, bytes);
    std::vector<char> content(bytes);
    std::ifstream stream(file, std::ios::binary);
    if (!stream.read(content.data(), static_cast<std::streamsize>(bytes)))
        fail(file.string(), "a readable file", "an error after " + to_string(stream.gcount()) + " bytes");
    return content;
}

std::vector<std::uint32_t> read_words(const path& file, std::uint32_t words, std::uint32_t crc32) {
    const std::vector<char> content = read_file(file, 4 * std::uint64_t{words});
    const std::uint32_t crc = crc_of(content.data(), content.size());
    if (crc != crc32)
        fail(file.string(), "CRC-32 " + hex(crc32),
             hex(crc) + ": this driver was written for another artifact");
    std::vector<std::uint32_t> numbers(words);
    std::memcpy(numbers.data(), content.data(), content.size());
    return numbers;
}

MappedFile::MappedFile(const path& file, std::uint64_t bytes) : bytes_(static_cast<std::size_t>(bytes)) {
    check_size(file, bytes);
    const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    void* const data =
        descriptor < 0 ? MAP_FAILED : mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    const std::string reason = std::strerror(errno);
    if (descriptor >= 0) close(descriptor);
    if (data == MAP_FAILED) fail(file.string(), "a readable file", reason);
    data_ = static_cast<const char*>(data);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) munmap(const_cast<char*>(data_), bytes_);
}

}  // namespace host
