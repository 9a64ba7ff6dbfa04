#include "remote/peer.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "abi/misuse.h"

namespace dlavm::remote {

namespace {

constexpr size_t kReceive = size_t{1} << 20;  // bytes a turn, so that others get theirs
constexpr size_t kGreetingBytes = 128 << 10;  // the longest open: secret, registers, memories
constexpr std::chrono::seconds kLinger(2);    // for the other side to read the last answer

}  // namespace

Peer::Peer(abi::Descriptor socket, std::chrono::milliseconds greeting, std::chrono::milliseconds stall)
    : socket_(std::move(socket)),
      name_(peer_name(socket_.get())),
      stall_(stall),
      greeting_over_(Clock::now() + greeting),
      progress_(Clock::now()),
      in_(wire::kHeaderBytes) {}

short Peer::events() const {
    short events = 0;
    if (sent_ < out_.size()) events |= POLLOUT;
    // One message at a time: what follows stays with the sender.
    if (state_ == State::kClosing || (!has_message() && sent_ == out_.size())) events |= POLLIN;
    return events;
}

std::optional<Clock::time_point> Peer::deadline() const {
    switch (state_) {
        case State::kGreeting:
            return greeting_over_;
        case State::kServing:
            if (sent_ < out_.size() || (filled_ != 0 && !has_message())) return progress_ + stall_;
            return std::nullopt;
        case State::kClosing:
            return progress_ + kLinger;
        case State::kGone:
            break;
    }
    return std::nullopt;
}

void Peer::advance(short events, Clock::time_point now) {
    if ((events & POLLOUT) != 0) flush();
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && !gone()) {
        closing() ? discard() : receive();
    }
    const auto last = deadline();
    if (last && now >= *last) end(greeting() ? "no first message in time" : "stalled");
}

std::string_view Peer::payload() const {
    return {in_.data() + wire::kHeaderBytes, filled_ - wire::kHeaderBytes};
}

void Peer::drop_message() {
    filled_ = 0;
    needed_ = wire::kHeaderBytes;
    header_ = nullptr;
}

void Peer::serve() { state_ = State::kServing; }

void Peer::answer(std::string frame) {
    if (sent_ == out_.size()) {
        out_ = std::move(frame);
        sent_ = 0;
        progress_ = Clock::now();
    } else {
        out_ += frame;
    }
    flush();
}

void Peer::refuse(dlavm_status status, const std::string& text) {
    if (gone() || closing()) return;
    device_protocol::Result result;
    result.status = static_cast<uint32_t>(status);
    result.text = wire::fit_text(text);
    reason_ = text;
    state_ = State::kClosing;
    answer(result.frame());
}

std::optional<std::string> Peer::take_reason() { return std::exchange(reason_, std::nullopt); }

void Peer::receive() {
    while (!has_message() && !closing()) {
        const size_t room = std::min(needed_ - filled_, kReceive);
        const ssize_t got = recv(socket_.get(), in_.data() + filled_, room, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (got <= 0) return end(got == 0 ? "left" : abi::system_text(errno));
        filled_ += static_cast<size_t>(got);
        progress_ = Clock::now();
        if (filled_ == wire::kHeaderBytes && header_ == nullptr) check_header();
    }
}

// A header that cannot be right ends the connection before a byte of its payload is waited for.
void Peer::check_header() {
    try {
        const wire::Header header = wire::parse_header(in_.data());
        const wire::MessageInfo& info = device_protocol::check_header(header, wire::Side::kClient);
        if (greeting() && header.length > kGreetingBytes)
            throw wire::TooLarge("expected a first message of at most " + std::to_string(kGreetingBytes) +
                                 " bytes, got " + std::to_string(header.length));
        header_ = &info;
        needed_ = wire::kHeaderBytes + header.length;
        if (in_.size() < needed_) in_.resize(needed_);
    } catch (const wire::Malformed& malformed) {
        refuse(DLAVM_BAD_ARGUMENT, std::string("malformed: ") + malformed.what());
    }
}

void Peer::discard() {
    char bytes[65536];
    const ssize_t got = recv(socket_.get(), bytes, sizeof bytes, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) end("");
}

void Peer::flush() {
    while (sent_ < out_.size()) {
        const ssize_t sent = send(socket_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (sent < 0) return end(abi::system_text(errno));
        sent_ += static_cast<size_t>(sent);
        if (!closing()) progress_ = Clock::now();
    }
    if (closing()) shutdown(socket_.get(), SHUT_WR);
}

void Peer::end(const std::string& reason) {
    if (!closing()) reason_ = reason;
    state_ = State::kGone;
}

}  // namespace dlavm::remote
