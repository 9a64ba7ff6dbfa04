// TCP sockets of the device protocol: never blocking, without Nagle's delay, with keepalive.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "abi/file.h"

namespace dlavm::remote {

using Clock = std::chrono::steady_clock;

struct Address {
    std::string host, port;
};

// "host:port"; an IPv6 host stands in brackets. Throws Misuse with `what` in front.
Address parse_address(const std::string& what, const std::string& text);

// A connection to the first of the host's addresses that takes it. Throws Misuse with `what` in front.
abi::Descriptor connect_to(const std::string& what, const Address& address,
                           std::chrono::milliseconds longest);

// A socket that listens; port 0: any free one. Throws Misuse with `what` in front.
abi::Descriptor listen_on(const std::string& what, const Address& address);

// "192.0.2.1:8124", "[::1]:8124": this end of a socket, and the other one.
std::string local_name(int socket);
std::string peer_name(int socket);
uint16_t local_port(int socket);

// Makes an accepted or connected socket one of this protocol.
void configure(int socket);

// Waits until the socket has one of the poll(2) events or an error; false: not before the deadline, which may
// be missing.
bool wait_for(int socket, short events, std::optional<Clock::time_point> deadline);

// One shared secret: the text of a file without the end of its line, or none where the path is empty. Throws
// Misuse.
std::string read_secret(const std::string& path);

}  // namespace dlavm::remote
