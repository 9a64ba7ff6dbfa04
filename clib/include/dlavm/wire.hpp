// Bytes of the wire protocols (doc/protocol.md): little-endian whatever the machine, checked before they are
// read.
//
// A frame: u32 bytes of the payload, u16 number of the message, u16 zero, the payload. What a number means
// stands in chat_protocol.hpp and device_protocol.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace dlavm::wire {

constexpr std::size_t kHeaderBytes = 8;
constexpr std::size_t kMaxText = 0xffff;  // bytes; the length is a u16

// Bytes that are no message that may come.
struct Malformed : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A length above the protocol's limit.
struct TooLarge : Malformed {
    using Malformed::Malformed;
};

enum class Side { kClient, kServer };

struct Header {
    std::uint32_t length;  // bytes of the payload
    std::uint16_t number;
};

// What is known of a message before its payload is there; `least` and `most` bytes of a payload.
struct MessageInfo {
    std::uint16_t number;
    const char* name;
    bool from_client, from_server;
    std::uint32_t least, most;
};

// The messages of a protocol, to be walked at compile time.
template <typename... Messages>
struct Types {};

namespace detail {

template <typename T>
T load(const char* in) {
    static_assert(std::is_unsigned_v<T>);
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        value |= static_cast<std::uint64_t>(static_cast<unsigned char>(in[i])) << (8 * i);
    }
    return static_cast<T>(value);
}

template <typename T>
void store(T value, char* out) {
    static_assert(std::is_unsigned_v<T>);
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        out[i] = static_cast<char>(static_cast<unsigned char>(std::uint64_t{value} >> (8 * i)));
    }
}

// Bytes of the UTF-8 sequence at the start of `text`, which is not empty; 0 where there is none. Overlong
// forms, surrogates and numbers above 0x10ffff are none (Unicode, table 3-7).
inline std::size_t utf8_sequence(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t size = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (size == 0 || text.size() < size) return 0;
    const unsigned least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (byte(1) < least || byte(1) > most) return 0;
    for (std::size_t i = 2; i < size; ++i) {
        if ((byte(i) & 0xc0u) != 0x80) return 0;
    }
    return size;
}

}  // namespace detail

inline bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t size = detail::utf8_sequence(text);
        if (size == 0) return false;
        text.remove_prefix(size);
    }
    return true;
}

// `text` as a message can carry it: '?' for every byte that is no UTF-8, cut to kMaxText bytes. For what
// comes from elsewhere, such as the names of files in an error.
inline std::string fit_text(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const std::size_t size = detail::utf8_sequence(text);
        const std::string_view piece = size == 0 ? std::string_view("?") : text.substr(0, size);
        if (out.size() + piece.size() > kMaxText) break;
        out += piece;
        text.remove_prefix(size == 0 ? 1 : size);
    }
    return out;
}

// The first kHeaderBytes of a frame. Throws Malformed where the reserved bytes are not zero.
inline Header parse_header(const char* bytes) {
    const auto reserved = detail::load<std::uint16_t>(bytes + 6);
    if (reserved != 0) {
        throw Malformed("header: expected zero in the last two bytes, got " + std::to_string(reserved));
    }
    return {detail::load<std::uint32_t>(bytes), detail::load<std::uint16_t>(bytes + 4)};
}

// What the header announces, where `sender` may send it and its length can be right. Throws TooLarge or
// Malformed.
template <std::size_t kCount>
const MessageInfo& check_header(const Header& header, Side sender, const MessageInfo (&messages)[kCount],
                                std::uint32_t max_message) {
    if (header.length > max_message) {
        throw TooLarge("expected at most " + std::to_string(max_message) + " bytes, got " +
                       std::to_string(header.length));
    }
    for (const MessageInfo& info : messages) {
        const bool may_send = sender == Side::kClient ? info.from_client : info.from_server;
        if (info.number != header.number || !may_send) continue;
        if (header.length >= info.least && header.length <= info.most) return info;
        throw Malformed(std::string(info.name) + ": expected " + std::to_string(info.least) + ".." +
                        std::to_string(info.most) + " bytes, got " + std::to_string(header.length));
    }
    const std::string side = sender == Side::kClient ? "client" : "server";
    throw Malformed("expected the number of a message from the " + side + ", got " +
                    std::to_string(header.number));
}

// Takes the fields of a payload one after the other; every method throws Malformed where the bytes do not
// hold one. Views that it gives live as long as the payload.
class Reader {
  public:
    Reader(const char* message, std::string_view payload) : message_(message), payload_(payload) {}

    std::uint8_t u8(const char* field) { return number<std::uint8_t>(field); }
    std::uint16_t u16(const char* field) { return number<std::uint16_t>(field); }
    std::uint32_t u32(const char* field) { return number<std::uint32_t>(field); }
    std::uint64_t u64(const char* field) { return number<std::uint64_t>(field); }

    double f64(const char* field) {
        static_assert(sizeof(double) == sizeof(std::uint64_t) && std::numeric_limits<double>::is_iec559);
        const std::uint64_t bits = u64(field);
        double value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }

    std::string text(const char* field) {
        const std::string_view bytes = take(field, u16(field));
        if (!is_utf8(bytes)) fail(field, "UTF-8", "other bytes");
        return std::string(bytes);
    }

    std::vector<std::uint32_t> u32s(const char* field) { return numbers<std::uint32_t>(field); }
    std::vector<std::uint64_t> u64s(const char* field) { return numbers<std::uint64_t>(field); }

    // The rest of the payload.
    std::string_view bytes(const char*) { return payload_.substr(std::exchange(at_, payload_.size())); }

    // A value of an enum, for which label(value) gives a name or null.
    template <typename Enum>
    Enum known(const char* field, Enum value) const {
        if (label(value) == nullptr) {
            fail(field, "a known number", std::to_string(static_cast<std::uint16_t>(value)));
        }
        return value;
    }

    // To be called after the last field: nothing may be left over.
    void finish() const {
        if (at_ != payload_.size())
            fail("end", std::to_string(at_) + " bytes", std::to_string(payload_.size()));
    }

  private:
    [[noreturn]] void fail(const char* field, const std::string& expected, const std::string& got) const {
        throw Malformed(std::string(message_) + "." + field + ": expected " + expected + ", got " + got);
    }

    std::string_view take(const char* field, std::uint64_t size) {
        const std::size_t left = payload_.size() - at_;
        if (size > left) fail(field, std::to_string(size) + " bytes", std::to_string(left));
        const auto count = static_cast<std::size_t>(size);
        at_ += count;
        return payload_.substr(at_ - count, count);
    }

    template <typename T>
    T number(const char* field) {
        return detail::load<T>(take(field, sizeof(T)).data());
    }

    template <typename T>
    std::vector<T> numbers(const char* field) {
        const std::uint64_t count = u32(field);
        const std::string_view bytes = take(field, count * sizeof(T));  // before anything is allocated
        std::vector<T> values(static_cast<std::size_t>(count));
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = detail::load<T>(&bytes[i * sizeof(T)]);
        return values;
    }

    const char* message_;
    std::string_view payload_;
    std::size_t at_ = 0;
};

// Appends one frame to a string. Throws std::runtime_error for what a message cannot carry.
class Writer {
  public:
    Writer(std::string& out, std::uint16_t number) : out_(out), start_(out.size()) {
        put(std::uint32_t{0});  // the length, known at finish
        put(number);
        put(std::uint16_t{0});
    }

    void u8(std::uint8_t value) { put(value); }
    void u16(std::uint16_t value) { put(value); }
    void u32(std::uint32_t value) { put(value); }
    void u64(std::uint64_t value) { put(value); }

    void f64(double value) {
        std::uint64_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        put(bits);
    }

    void text(std::string_view value) {
        if (value.size() > kMaxText) {
            throw std::runtime_error("text: expected at most " + std::to_string(kMaxText) + " bytes, got " +
                                     std::to_string(value.size()));
        }
        if (!is_utf8(value)) throw std::runtime_error("text: expected UTF-8, got other bytes");
        put(static_cast<std::uint16_t>(value.size()));
        out_ += value;
    }

    void u32s(const std::vector<std::uint32_t>& values) { put_all(values); }
    void u64s(const std::vector<std::uint64_t>& values) { put_all(values); }
    void bytes(std::string_view value) { out_ += value; }

    // To be called after the last field.
    void finish(std::uint32_t max_message) {
        const std::size_t length = out_.size() - start_ - kHeaderBytes;
        if (length > max_message) {
            throw std::runtime_error("message: expected at most " + std::to_string(max_message) +
                                     " bytes, got " + std::to_string(length));
        }
        detail::store(static_cast<std::uint32_t>(length), &out_[start_]);
    }

  private:
    template <typename T>
    void put(T value) {
        char bytes[sizeof(T)];
        detail::store(value, bytes);
        out_.append(bytes, sizeof bytes);
    }

    template <typename T>
    void put_all(const std::vector<T>& values) {
        put(static_cast<std::uint32_t>(values.size()));  // finish refuses more than it can count
        for (const T value : values) put(value);
    }

    std::string& out_;
    std::size_t start_;
};

}  // namespace dlavm::wire
