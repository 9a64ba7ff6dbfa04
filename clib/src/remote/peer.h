// The server's end of a connection of the device protocol: frames in and out without ever waiting.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dlavm/device.h"
#include "dlavm/device_protocol.hpp"
#include "remote/socket.h"

namespace dlavm::remote {

class Peer {
  public:
    // `greeting`: how long the first message may take. `stall`: how long a half message, or an answer that is
    // not read, may make no progress.
    Peer(abi::Descriptor socket, std::chrono::milliseconds greeting, std::chrono::milliseconds stall);

    const std::string& name() const { return name_; }
    int socket() const { return socket_.get(); }
    bool gone() const { return state_ == State::kGone; }
    bool greeting() const { return state_ == State::kGreeting; }
    bool serving() const { return state_ == State::kServing; }

    // poll(2) events to wait for, and until when.
    short events() const;
    std::optional<Clock::time_point> deadline() const;

    // Takes what poll(2) and the clock bring. A message that is complete stays until drop_message().
    void advance(short events, Clock::time_point now);
    bool has_message() const { return (greeting() || serving()) && header_ != nullptr && filled_ == needed_; }
    const wire::MessageInfo& message() const { return *header_; }
    std::string_view payload() const;
    void drop_message();

    // The first message was good.
    void serve();

    void answer(std::string frame);

    // A last answer, then the end of the connection; the text is for the log too. What comes is thrown away:
    // to close at once would take the answer from the other side.
    void refuse(dlavm_status status, const std::string& text);

    // Why it ended, once.
    std::optional<std::string> take_reason();

  private:
    enum class State { kGreeting, kServing, kClosing, kGone };

    void receive();
    void discard();
    void flush();
    void check_header();
    void end(const std::string& reason);
    bool closing() const { return state_ == State::kClosing; }

    abi::Descriptor socket_;
    std::string name_;
    std::chrono::milliseconds stall_;
    State state_ = State::kGreeting;
    Clock::time_point greeting_over_;
    Clock::time_point progress_;  // the last byte of a half message or answer
    std::vector<char> in_;        // a frame, the first `filled_` bytes of `needed_`
    size_t filled_ = 0, needed_ = wire::kHeaderBytes;
    const wire::MessageInfo* header_ = nullptr;  // once its bytes are there
    std::string out_;
    size_t sent_ = 0;
    std::optional<std::string> reason_;
};

}  // namespace dlavm::remote
