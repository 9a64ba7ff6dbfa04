// Decodes byte streams with the generated structs and encodes their messages again, for comparison with the
// Python codec: `wire chat client` takes what a client sends. `wire text client` judges texts.
//
// In: u32 length and bytes of each stream. Out: a line each. "complete", "partial" (the last frame is not
// whole), "malformed" or "too_large", and the frames before that in hexadecimal; for a text "complete" where
// a message can carry it, "malformed" where not, and what fit_text makes of it.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "dlavm/chat_protocol.hpp"
#include "dlavm/device_protocol.hpp"

namespace {

namespace wire = dlavm::wire;

template <typename Message>
bool repeat_as(std::uint16_t number, std::string_view payload, std::string& out) {
    if (number != Message::kNumber) return false;
    out += Message::decode(payload).frame();
    return true;
}

template <typename... Messages>
void repeat(wire::Types<Messages...>, std::uint16_t number, std::string_view payload, std::string& out) {
    const bool found = (repeat_as<Messages>(number, payload, out) || ...);
    if (!found) throw std::logic_error("a message that check_header knows is not in Messages");
}

struct Chat {
    using Messages = dlavm::chat::Messages;
    static void check(const wire::Header& header, wire::Side sender) {
        dlavm::chat::check_header(header, sender);
    }
};

struct Device {
    using Messages = dlavm::device_protocol::Messages;
    static void check(const wire::Header& header, wire::Side sender) {
        dlavm::device_protocol::check_header(header, sender);
    }
};

template <typename Protocol>
const char* verdict(std::string_view stream, wire::Side sender, std::string& out) {
    while (!stream.empty()) {
        if (stream.size() < wire::kHeaderBytes) return "partial";
        const wire::Header header = wire::parse_header(stream.data());
        Protocol::check(header, sender);
        stream.remove_prefix(wire::kHeaderBytes);
        if (stream.size() < header.length) return "partial";
        // Memory of its own for each payload: the sanitizer sees a step past its end.
        const auto payload = std::make_unique<char[]>(header.length);
        std::memcpy(payload.get(), stream.data(), header.length);
        repeat(typename Protocol::Messages{}, header.number, {payload.get(), header.length}, out);
        stream.remove_prefix(header.length);
    }
    return "complete";
}

const char* judge_text(std::string_view text, wire::Side, std::string& out) {
    out = wire::fit_text(text);
    try {
        dlavm::chat::Farewell{std::string(text)}.frame();
    } catch (const std::runtime_error&) {
        return "malformed";
    }
    return "complete";
}

template <typename Protocol>
const char* judge_stream(std::string_view stream, wire::Side sender, std::string& out) {
    try {
        return verdict<Protocol>(stream, sender, out);
    } catch (const wire::TooLarge&) {
        return "too_large";
    } catch (const wire::Malformed&) {
        return "malformed";
    }
}

bool read_all(char* out, std::size_t bytes) { return std::fread(out, 1, bytes, stdin) == bytes; }

void print(const char* status, std::string_view bytes) {
    static const char* const kDigits = "0123456789abcdef";
    std::string line = std::string(status) + " ";
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        line += kDigits[byte >> 4];
        line += kDigits[byte & 15];
    }
    std::puts(line.c_str());
}

using Judge = const char* (*)(std::string_view, wire::Side, std::string&);

int judge_all(Judge judge, wire::Side sender) {
    char length[4];
    while (read_all(length, sizeof length)) {
        std::string stream(wire::detail::load<std::uint32_t>(length), '\0');
        if (!read_all(stream.data(), stream.size())) return 1;
        std::string out;
        const char* status = judge(stream, sender, out);
        print(status, out);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const std::string_view kind = argv[1];
    const Judge judge = kind == "text"     ? judge_text
                        : kind == "device" ? judge_stream<Device>
                                           : judge_stream<Chat>;
    return judge_all(judge,
                     std::string_view(argv[2]) == "client" ? wire::Side::kClient : wire::Side::kServer);
}
