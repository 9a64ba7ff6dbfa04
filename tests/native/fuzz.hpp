// What the fuzz targets share. An input is a sequence of operations, each with four bytes in front: its code,
// the connection that it is about, and a number; scripts/fuzz.py writes such inputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

// Ends the process, which is what a fuzzer takes for a finding.
inline void check(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::abort();
}

// How often inputs came to each thing that they should come to.
inline std::map<std::string, std::uint64_t>& reached() {
    static std::map<std::string, std::uint64_t> counts;
    return counts;
}

// The bytes of an input; zeros behind its end.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size)
        : left_(size == 0 ? std::string_view()
                          : std::string_view(reinterpret_cast<const char*>(data), size)) {}

    bool empty() const { return left_.empty(); }
    std::uint8_t u8() {
        const std::string_view byte = take(1);
        return byte.empty() ? 0 : static_cast<std::uint8_t>(byte[0]);
    }
    std::uint16_t u16() {
        const std::uint16_t low = u8();
        return static_cast<std::uint16_t>(low | u8() << 8);
    }
    std::string_view take(std::size_t size) {
        const std::string_view taken = left_.substr(0, size);
        left_.remove_prefix(taken.size());
        return taken;
    }

  private:
    std::string_view left_;
};

// A frame whose header is right, whatever its payload is.
inline std::string frame(std::uint8_t number, std::string_view payload) {
    const auto size = static_cast<std::uint32_t>(payload.size());
    std::string bytes;
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(size >> shift & 255);
    bytes += static_cast<char>(number);
    bytes.append(3, '\0');
    return bytes.append(payload);
}

}  // namespace fuzz
