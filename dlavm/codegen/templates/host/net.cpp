#include "net.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#include "files.hpp"

namespace host {

namespace {

constexpr std::size_t kReadBytes = 64 << 10;
constexpr int kBacklog = 512;
constexpr int kAcceptsAtOnce = 64;
constexpr std::size_t kRefusedAtOnce = 64;  // connections above the limit that are told so
constexpr Milliseconds kAcceptPause = 500;  // where the system has no descriptor left
constexpr int kUnsentBytes = 128 << 10;     // that the system holds for a client

std::string system_error() { return std::strerror(errno); }

void prepare_descriptor(int fd) {
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        fail("descriptor", "to set its flags", system_error());
}

// What a system lacks is done without.
void set_option(int fd, int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);
}

// Tokens leave at once; a client that is gone without a word is noticed after a minute.
void tune(int fd) {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
#endif
#ifdef TCP_NOTSENT_LOWAT
    set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, kUnsentBytes);
#endif
}

std::string numeric(const sockaddr_storage& address, socklen_t length) {
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return "unknown";
    const std::string name = host;
    return (name.find(':') == std::string::npos ? name : "[" + name + "]") + ":" + port;
}

sockaddr_storage local_address(int fd, socklen_t& length) {
    sockaddr_storage address = {};
    length = sizeof address;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0)
        fail("listen", "the address of a socket", system_error());
    return address;
}

// Host and port of HOST:PORT or [HOST]:PORT.
std::pair<std::string, std::string> split(const std::string& address) {
    const std::size_t colon = address.rfind(':');
    const bool bracketed = address.size() > 1 && address.front() == '[' && colon != std::string::npos &&
                           colon > 0 && address[colon - 1] == ']';
    std::string host = address.substr(0, colon == std::string::npos ? 0 : colon);
    if (bracketed) host = host.substr(1, host.size() - 2);
    const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
    const bool numeric =
        !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    if (host.empty() || !numeric || std::stoul(port) > 65535 ||
        (!bracketed && host.find(':') != std::string::npos))
        fail("--listen", "HOST:PORT or [IPV6]:PORT", "'" + address + "'");
    return {host, port};
}

}  // namespace

Milliseconds steady_now() {
    using std::chrono::milliseconds;
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<Milliseconds>(std::chrono::duration_cast<milliseconds>(now).count());
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    if (this != &other) {
        close();
        fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
}

void Descriptor::close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

Listener::Listener(const std::string& address) {
    const auto [host, port] = split(address);
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int status = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
    if (status != 0) fail("--listen " + address, "an address of this machine", gai_strerror(status));
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
    std::string error = "none";
    for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
        Descriptor socket(::socket(each->ai_family, each->ai_socktype, each->ai_protocol));
        if (socket.get() >= 0) {
            prepare_descriptor(socket.get());
            set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
            if (bind(socket.get(), each->ai_addr, each->ai_addrlen) == 0) {
                socket_ = std::move(socket);
                return;
            }
        }
        error = system_error();
    }
    fail("--listen " + address, "a free address of this machine", error);
}

void Listener::listen() const {
    if (::listen(fd(), kBacklog) != 0)
        fail("--listen " + address(), "a free address of this machine", system_error());
}

std::string Listener::address() const {
    socklen_t length = 0;
    const sockaddr_storage address = local_address(fd(), length);
    return numeric(address, length);
}

bool Listener::is_loopback() const {
    socklen_t length = 0;
    const sockaddr_storage address = local_address(fd(), length);
    if (address.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
    return ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24 == 127;
}

Wake::Wake() {
    int ends[2];
    if (pipe(ends) != 0) fail("pipe", "two descriptors", system_error());
    read_ = Descriptor(ends[0]);
    write_ = Descriptor(ends[1]);
    prepare_descriptor(ends[0]);
    prepare_descriptor(ends[1]);
}

// Few bytes are on their way, so that there is always room for that of stop().
void Wake::wake() {
    if (!pending_.exchange(true) && write(write_.get(), "w", 1) != 1) pending_ = false;
}

void Wake::stop() {
    const int saved = errno;
    if (write(write_.get(), "s", 1) != 1) _exit(1);
    errno = saved;
}

// `pending_` falls when the pipe is empty, not before: it would stay true above a byte that was taken here,
// and no wake would come again. One that finds it true until then has done its work before this returns.
bool Wake::drain() {
    char bytes[16];
    bool stop = false;
    for (ssize_t count; (count = ::read(fd(), bytes, sizeof bytes)) > 0;)
        stop = stop || std::memchr(bytes, 's', static_cast<std::size_t>(count)) != nullptr;
    pending_ = false;
    return stop;
}

Loop::Loop(Listener listener, SharedService& shared, Wake& wake, std::size_t max_connections,
           std::function<void(const std::string&)> log)
    : listener_(std::move(listener)),
      shared_(shared),
      wake_(wake),
      max_connections_(max_connections),
      log_(std::move(log)),
      buffer_(kReadBytes) {}

void Loop::run() {
    while (prepare()) {
        shared_.work.notify_one();  // what came, and room for output, can make turns
        write_log();
        wait();
        dispatch();
    }
    write_log();
}

// Sends what can be sent, and gathers what to wait for. Whether there is anything.
bool Loop::prepare() {
    const std::lock_guard<std::mutex> lock(shared_.mutex);
    for (auto next = peers_.begin(); next != peers_.end();) {
        const auto peer = next++;
        if (!flush(peer->first, peer->second)) drop(peer, system_error());
    }
    Service& service = shared_.service;
    wake_at_ = service.tick(steady_now());
    const Milliseconds now = steady_now();
    polled_.assign(1, {wake_.fd(), POLLIN, 0});
    polled_.push_back({now < accept_at_ ? -1 : listener_.fd(), POLLIN, 0});
    if (now < accept_at_) wake_at_ = std::min(wake_at_.value_or(accept_at_), accept_at_);
    for (auto next = peers_.begin(); next != peers_.end();) {
        const auto peer = next++;
        if (service.abandoned(peer->first)) {
            drop(peer, "abandoned");
            continue;
        }
        short events = service.reads(peer->first) ? POLLIN : 0;
        if (!service.output(peer->first).empty()) events |= POLLOUT;
        polled_.push_back({peer->second.socket.get(), events, 0});
    }
    return !(stopping_ && service.empty());
}

// Whether the connection still holds.
bool Loop::flush(ConversationId id, Peer& peer) {
    Service& service = shared_.service;
    for (;;) {
        const std::string_view output = service.output(id);
        if (output.empty()) break;
        const ssize_t count = send(peer.socket.get(), output.data(), output.size(), MSG_NOSIGNAL);
        if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
        service.sent(id, static_cast<std::size_t>(count), steady_now());
    }
    if (service.closing(id) && !peer.shut) {
        shutdown(peer.socket.get(), SHUT_WR);
        peer.shut = true;
    }
    return true;
}

void Loop::wait() {
    int timeout = -1;
    if (wake_at_) {
        const Milliseconds now = steady_now();
        const Milliseconds left = *wake_at_ > now ? *wake_at_ - now : 0;
        timeout = static_cast<int>(std::min<Milliseconds>(left, std::numeric_limits<int>::max()));
    }
    if (poll(polled_.data(), polled_.size(), timeout) < 0) {
        if (errno != EINTR && errno != EAGAIN && errno != ENOMEM) fail("poll", "to wait", system_error());
        for (pollfd& each : polled_) each.revents = 0;
    }
}

void Loop::dispatch() {
    auto next = peers_.begin();
    for (std::size_t i = 2; i < polled_.size(); ++i) {
        const auto peer = next++;
        if (polled_[i].revents != 0) read(peer, polled_[i]);
    }
    if (polled_[1].revents != 0) accept_some();
    if (polled_[0].revents != 0 && wake_.drain() && !stopping_) {
        stopping_ = true;
        listener_.close();
        const std::lock_guard<std::mutex> lock(shared_.mutex);
        shared_.service.shutdown(steady_now());
    }
}

void Loop::accept_some() {
    for (int i = 0; i < kAcceptsAtOnce; ++i) {
        sockaddr_storage address = {};
        socklen_t length = sizeof address;
        Descriptor socket(accept(listener_.fd(), reinterpret_cast<sockaddr*>(&address), &length));
        if (socket.get() >= 0) {
            admit(std::move(socket), numeric(address, length));
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            // The connection stays in the queue; asking for it again at once would only keep the machine
            // busy.
            lines_.push_back("accept: " + system_error());
            accept_at_ = steady_now() + kAcceptPause;
            return;
        }  // otherwise it was the connection that failed
    }
}

void Loop::admit(Descriptor socket, const std::string& name) {
    if (peers_.size() >= max_connections_ + kRefusedAtOnce) {
        lines_.push_back(name + " refused: too many connections");
        return;
    }
    prepare_descriptor(socket.get());
    tune(socket.get());
    const std::lock_guard<std::mutex> lock(shared_.mutex);
    const ConversationId id = shared_.service.open(steady_now());
    peers_.emplace(id, Peer{std::move(socket), name});
    lines_.push_back(name + " opened");
}

void Loop::read(Peers::iterator peer, const pollfd& polled) {
    if ((polled.events & POLLIN) == 0) {  // nothing can be read now, so only the end is news
        if ((polled.revents & (POLLERR | POLLHUP)) == 0) return;
        const std::lock_guard<std::mutex> lock(shared_.mutex);
        return drop(peer, "the connection broke");
    }
    if ((polled.revents & ~POLLOUT) == 0) return;
    const ssize_t count = recv(peer->second.socket.get(), buffer_.data(), buffer_.size(), 0);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
    const std::string reason = count < 0 ? system_error() : "the client closed the connection";
    const std::lock_guard<std::mutex> lock(shared_.mutex);
    if (count > 0)
        shared_.service.receive(peer->first, {buffer_.data(), static_cast<std::size_t>(count)}, steady_now());
    else
        drop(peer, reason);
}

void Loop::drop(Peers::iterator peer, const std::string& reason) {
    lines_.push_back(peer->second.name + " closed: " + shared_.service.close(peer->first, reason));
    peers_.erase(peer);
}

void Loop::write_log() {
    for (const std::string& line : lines_) log_(line);
    lines_.clear();
}

}  // namespace host
