#include "remote/connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "abi/misuse.h"

namespace dlavm::remote {

using abi::Misuse;

namespace {

// Without one byte taken: the server reads whenever it has nothing to answer.
constexpr std::chrono::seconds kSendStall(60);

}  // namespace

Connection::Connection(std::string name, abi::Descriptor socket)
    : name_(std::move(name)), socket_(std::move(socket)) {}

void Connection::check() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!lost_.empty()) throw Misuse{DLAVM_SYSTEM, lost_};
}

void Connection::lost(const std::string& reason) {
    shutdown(socket_.get(), SHUT_RDWR);  // what another thread waits for ends too
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lost_.empty()) lost_ = name_ + ": the connection is lost: " + reason;
    throw Misuse{DLAVM_SYSTEM, lost_};
}

void Connection::refuse(const std::string& reason) { lost("not what a device server sends: " + reason); }

void Connection::send(std::string_view frame) {
    check();
    while (!frame.empty()) {
        const ssize_t sent = ::send(socket_.get(), frame.data(), frame.size(), MSG_NOSIGNAL);
        if (sent >= 0) {
            frame.remove_prefix(static_cast<size_t>(sent));
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (!wait_for(socket_.get(), POLLOUT, Clock::now() + kSendStall)) lost("it takes no more bytes");
        } else if (errno != EINTR) {
            lost(abi::system_text(errno));
        }
    }
}

void Connection::receive_bytes(char* out, size_t bytes, std::optional<Clock::time_point> deadline) {
    while (bytes != 0) {
        const ssize_t got = recv(socket_.get(), out, bytes, 0);
        if (got > 0) {
            out += got;
            bytes -= static_cast<size_t>(got);
        } else if (got == 0) {
            lost("the server closed it");
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (!wait_for(socket_.get(), POLLIN, deadline)) lost("no answer in time");
        } else if (errno != EINTR) {
            lost(abi::system_text(errno));
        }
    }
}

Received Connection::receive(std::optional<Clock::time_point> deadline) {
    check();
    char header_bytes[wire::kHeaderBytes];
    receive_bytes(header_bytes, sizeof header_bytes, deadline);
    wire::Header header = {};
    try {
        header = wire::parse_header(header_bytes);
        device_protocol::check_header(header, wire::Side::kServer);
    } catch (const wire::Malformed& malformed) {
        refuse(malformed.what());
    }
    if (buffer_.size() < header.length) buffer_.resize(header.length);
    receive_bytes(buffer_.data(), header.length, deadline);
    return {header.number, std::string_view(buffer_.data(), header.length)};
}

}  // namespace dlavm::remote
