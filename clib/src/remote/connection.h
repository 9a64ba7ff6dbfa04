// The client's end of a connection of the device protocol.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dlavm/device_protocol.hpp"
#include "remote/socket.h"

namespace dlavm::remote {

// What came, until the next message.
struct Received {
    uint16_t number;
    std::string_view payload;
};

// Whatever goes wrong ends the connection: each later call throws the same Misuse, with `name` in front.
class Connection {
  public:
    Connection(std::string name, abi::Descriptor socket);

    void send(std::string_view frame);

    // The next message, whose header is one of a server's; without a deadline only the other end's death ends
    // the wait.
    Received receive(std::optional<Clock::time_point> deadline);

    // Ends the connection for a message that may not come here.
    [[noreturn]] void refuse(const std::string& reason);

  private:
    void check() const;
    [[noreturn]] void lost(const std::string& reason);
    void receive_bytes(char* out, size_t bytes, std::optional<Clock::time_point> deadline);

    std::string name_;
    abi::Descriptor socket_;
    std::vector<char> buffer_;
    mutable std::mutex mutex_;  // of lost_: stop is sent by another thread
    std::string lost_;          // why, in full
};

}  // namespace dlavm::remote
