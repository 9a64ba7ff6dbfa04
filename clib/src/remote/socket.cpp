#include "remote/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <memory>

#include "abi/misuse.h"
#include "dlavm/wire.hpp"

namespace dlavm::remote {

using abi::Descriptor;
using abi::Misuse;
using abi::system_text;

namespace {

// A peer that is gone without a word is noticed after 5 + 4 * 2 seconds, whether bytes are on their way or
// not.
constexpr int kKeepaliveIdle = 5, kKeepaliveInterval = 2, kKeepaliveProbes = 4;  // seconds, seconds, probes
constexpr unsigned kUnacknowledged = 13000;                                      // milliseconds
constexpr size_t kMaxSecret = 1024;

template <class Value>
void set(int socket, int level, int option, Value value) {
    setsockopt(socket, level, option, &value, sizeof value);
}

using Resolved = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Resolved resolve(const std::string& what, const Address& address, int flags) {
    addrinfo hints = {};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
    if (error != 0) {
        const std::string reason = error == EAI_SYSTEM ? system_text(errno) : gai_strerror(error);
        throw Misuse{DLAVM_NOT_FOUND, what + ": host '" + address.host + "': " + reason};
    }
    return {found, freeaddrinfo};
}

Descriptor new_socket(const addrinfo& info) {
    return Descriptor(
        socket(info.ai_family, info.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, info.ai_protocol));
}

// 0, or the errno.
int connect_one(int socket, const addrinfo& info, Clock::time_point deadline) {
    if (connect(socket, info.ai_addr, info.ai_addrlen) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    if (!wait_for(socket, POLLOUT, deadline)) return ETIMEDOUT;
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

bool is_port(const std::string& text) {
    const bool digits = std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    return digits && !text.empty() && text.size() <= 5 && std::stoul(text) <= 65535;
}

using NameOf = int (*)(int, sockaddr*, socklen_t*);

std::string name(int socket, NameOf name_of) {
    sockaddr_storage storage = {};
    socklen_t size = sizeof storage;
    auto* const address = reinterpret_cast<sockaddr*>(&storage);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (name_of(socket, address, &size) != 0 ||
        getnameinfo(address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) !=
            0)
        return "?";
    const std::string shown = storage.ss_family == AF_INET6 ? "[" + std::string(host) + "]" : host;
    return shown + ":" + port;
}

}  // namespace

Address parse_address(const std::string& what, const std::string& text) {
    const size_t colon = text.rfind(':');
    if (colon != std::string::npos) {
        std::string host = text.substr(0, colon);
        const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
        if (bracketed) host = host.substr(1, host.size() - 2);
        const bool plain = !host.empty() && host.find_first_of("[]") == std::string::npos &&
                           (bracketed || host.find(':') == std::string::npos);
        if (plain && is_port(text.substr(colon + 1))) return {host, text.substr(colon + 1)};
    }
    throw Misuse{DLAVM_BAD_ARGUMENT,
                 what + ": expected HOST:PORT (IPv6 in brackets), got '" + text.substr(0, 80) + "'"};
}

Descriptor connect_to(const std::string& what, const Address& address, std::chrono::milliseconds longest) {
    const Clock::time_point deadline = Clock::now() + longest;
    const Resolved found = resolve(what, address, 0);
    int error = ETIMEDOUT;
    for (const addrinfo* info = found.get(); info != nullptr; info = info->ai_next) {
        Descriptor socket = new_socket(*info);
        error = socket ? connect_one(socket.get(), *info, deadline) : errno;
        if (error != 0) continue;
        configure(socket.get());
        return socket;
    }
    throw Misuse{DLAVM_SYSTEM, what + ": cannot connect: " + system_text(error)};
}

Descriptor listen_on(const std::string& what, const Address& address) {
    const Resolved found = resolve(what, address, AI_PASSIVE);
    int error = EADDRNOTAVAIL;
    for (const addrinfo* info = found.get(); info != nullptr; info = info->ai_next) {
        Descriptor socket = new_socket(*info);
        if (!socket) {
            error = errno;
            continue;
        }
        set(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
        if (bind(socket.get(), info->ai_addr, info->ai_addrlen) == 0 && listen(socket.get(), SOMAXCONN) == 0)
            return socket;
        error = errno;
    }
    throw Misuse{DLAVM_SYSTEM, what + ": cannot listen: " + system_text(error)};
}

std::string local_name(int socket) { return name(socket, getsockname); }

std::string peer_name(int socket) { return name(socket, getpeername); }

uint16_t local_port(int socket) {
    const std::string shown = local_name(socket);
    return shown == "?" ? 0 : static_cast<uint16_t>(std::stoul(shown.substr(shown.rfind(':') + 1)));
}

void configure(int socket) {
    fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
    set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(socket, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdle);
    set(socket, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveInterval);
    set(socket, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
    set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledged);
}

bool wait_for(int socket, short events, std::optional<Clock::time_point> deadline) {
    for (;;) {
        int timeout = -1;
        if (deadline) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
            timeout = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
        }
        pollfd entry = {socket, events, 0};
        const int ready = poll(&entry, 1, timeout);
        if (ready > 0) return true;
        if (ready == 0 || errno != EINTR) return false;
    }
}

std::string read_secret(const std::string& path) {
    if (path.empty()) return "";
    std::ifstream file(path, std::ios::binary);
    std::string secret(kMaxSecret + 3, '\0');  // with the end of a line, and one byte that is too many
    file.read(secret.data(), static_cast<std::streamsize>(secret.size()));
    if (!file && !file.eof())
        throw Misuse{DLAVM_NOT_FOUND, "secret: " + path + ": expected a file that can be read"};
    secret.resize(static_cast<std::size_t>(file.gcount()));
    while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
    if (secret.empty() || secret.size() > kMaxSecret || !wire::is_utf8(secret)) {
        throw Misuse{DLAVM_BAD_ARGUMENT, "secret: " + path + ": expected 1.." + std::to_string(kMaxSecret) +
                                             " bytes of UTF-8, got " + std::to_string(secret.size())};
    }
    return secret;
}

}  // namespace dlavm::remote
