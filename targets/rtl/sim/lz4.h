// The two functions of LZ4 that Verilator's FST writer calls, so that waves need no library beside zlib:
// greedy matches of a hash table, in the LZ4 block format.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace dlavm_lz4 {

constexpr int kLeastMatch = 4, kMatchMargin = 12, kLastLiterals = 5, kMostOffset = 65535, kHashBits = 14;

class Writer {
  public:
    Writer(uint8_t* out, int capacity) : begin_(out), at_(out), end_(out + capacity) {}

    // Literals, and a match behind them unless its length is 0.
    void sequence(const uint8_t* literals, int count, int offset, int length) {
        const int extra = length == 0 ? 0 : length - kLeastMatch;
        put(static_cast<uint8_t>(std::min(count, 15) << 4 | std::min(extra, 15)));
        more(count);
        for (int i = 0; i < count; ++i) put(literals[i]);
        if (length == 0) return;
        put(static_cast<uint8_t>(offset));
        put(static_cast<uint8_t>(offset >> 8));
        more(extra);
    }

    int size() const { return full_ ? 0 : static_cast<int>(at_ - begin_); }

  private:
    void put(uint8_t byte) {
        if (at_ == end_)
            full_ = true;
        else
            *at_++ = byte;
    }

    void more(int length) {
        if (length < 15) return;
        for (length -= 15; length >= 255; length -= 255) put(255);
        put(static_cast<uint8_t>(length));
    }

    uint8_t* begin_;
    uint8_t* at_;
    uint8_t* end_;
    bool full_ = false;
};

inline uint32_t word(const uint8_t* at) {
    uint32_t value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
}

}  // namespace dlavm_lz4

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

// Returns the length of the block, or 0 where it does not fit.
inline int LZ4_compress_default(const char* in, char* out, int size, int capacity) {
    using namespace dlavm_lz4;
    const uint8_t* const data = reinterpret_cast<const uint8_t*>(in);
    Writer writer(reinterpret_cast<uint8_t*>(out), capacity);
    std::array<int, 1 << kHashBits> last;
    last.fill(-1);
    int literals = 0, at = 0;
    while (at < size - kMatchMargin) {
        int& slot = last[word(data + at) * 2654435761u >> (32 - kHashBits)];
        const int from = slot;
        slot = at;
        if (from < 0 || at - from > kMostOffset || word(data + from) != word(data + at)) {
            ++at;
            continue;
        }
        int length = kLeastMatch;
        while (at + length < size - kLastLiterals && data[from + length] == data[at + length]) ++length;
        writer.sequence(data + literals, at - literals, at - from, length);
        literals = at += length;
    }
    writer.sequence(data + literals, size - literals, 0, 0);
    return writer.size();
}
