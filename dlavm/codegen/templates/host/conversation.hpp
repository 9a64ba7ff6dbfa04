// What the server knows of one client and of the request that it answers now.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>

#include "connection.hpp"
#include "dlavm/chat_protocol.hpp"
#include "driver.hpp"
#include "sampling.hpp"
#include "turn.hpp"

namespace host {

// Bytes of a state that one turn moves.
constexpr std::size_t kPieceBytes = 256 << 10;

// With as many bytes waiting for a client, nothing more is read from it and nothing computed for it.
constexpr std::size_t kUnreadBytes = 64 << 10;

// Why a request or a connection is refused; it becomes the message `error`.
struct Refusal : std::runtime_error {
    Refusal(dlavm::chat::Error error, const std::string& text, bool is_fatal = false, Milliseconds wait = 0)
        : std::runtime_error(text), code(error), fatal(is_fatal), retry(wait) {}

    dlavm::chat::Error code;
    bool fatal;
    Milliseconds retry;
};

// A generate.
struct Answer {
    Tokens prompt;
    std::size_t fed = 0;  // of the prompt
    std::uint32_t last_token = 0;
    std::uint32_t max_tokens = 0;
    bool ignore_end = false;
    std::unique_ptr<Sampler> sampler;  // null: the likeliest token. With the turn while that is in flight
    Milliseconds begin = 0;
    std::optional<dlavm::chat::StopReason> stop;  // asked for while a turn is in flight
    dlavm::chat::Done done;                       // what it will say, as far as it is known
};

struct Saving {
    std::uint64_t bytes = 0;
    std::uint64_t offset = 0;  // of the next piece
};

struct Loading {
    std::uint32_t kv_len = 0;
    std::uint64_t bytes = 0;
    std::uint64_t received = 0;
    std::uint64_t written = 0;
    std::string pending;             // received and not with the device
    std::optional<Refusal> refusal;  // the answer when all bytes have come; none of them is written any more
    Milliseconds since = 0;          // of the last progress
};

struct Conversation {
    ConversationId id = 0;
    Input input;
    Output output;
    bool greeted = false;
    bool in_flight = false;                     // the device works on it
    bool closing = false;                       // nothing follows what waits in `output`
    bool abandoned = false;                     // and nobody waits for that
    Milliseconds since = 0;                     // open and silent, idle, or closing
    std::optional<Milliseconds> message_since;  // the first byte of a message that is not whole
    std::optional<Sequence> sequence;           // its cache
    std::variant<std::monostate, Answer, Saving, Loading> request;
    std::uint64_t requests = 0;
    std::uint64_t tokens = 0;
    std::string client;
    std::string reason;  // why it was closed

    bool idle() const { return std::holds_alternative<std::monostate>(request); }
    std::uint32_t kv_len() const { return sequence ? sequence->cached : 0; }
};

}  // namespace host
