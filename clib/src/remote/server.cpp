#include "remote/server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "abi/engine.h"
#include "abi/misuse.h"

namespace dlavm::remote {

namespace protocol = device_protocol;

using abi::Misuse;

namespace {

constexpr size_t kMaxPeers = 64;  // the client, and those that are being told that it is not them
constexpr size_t kMaxLog = 1000;  // lines that nobody took
constexpr std::chrono::milliseconds kAcceptPause(100);

// In a time that does not depend on where they differ. `b` is not empty.
bool equal(const std::string& a, const std::string& b) {
    unsigned different = a.size() == b.size() ? 0 : 1;
    for (size_t i = 0; i < a.size(); ++i) different |= static_cast<unsigned char>(a[i] ^ b[i % b.size()]);
    return different == 0;
}

}  // namespace

Server::Server(ServerOptions options)
    : options_(std::move(options)),
      listener_(listen_on("listen: " + options_.listen, parse_address("listen", options_.listen))),
      wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (!wake_) throw Misuse{DLAVM_SYSTEM, "eventfd: " + abi::system_text(errno)};
    abi::check_scheme(options_.device_url);
}

void Server::poll(std::chrono::milliseconds longest) {
    const Clock::time_point end = Clock::now() + longest;
    while (turn(end) && log_.empty() && Clock::now() < end) {
    }
}

std::optional<std::string> Server::take_log() {
    if (log_.empty()) return std::nullopt;
    std::string line = std::move(log_.front());
    log_.pop_front();
    return line;
}

// One wait, and what it brings; false: a signal came.
bool Server::turn(Clock::time_point end) {
    const bool accepting = Clock::now() >= accept_from_;
    std::vector<pollfd> entries = {{accepting ? listener_.get() : -1, POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    for (const Peer& peer : peers_) entries.push_back({peer.socket(), peer.events(), 0});
    const int ready = wait(entries, end);
    if (ready < 0) return false;
    const Clock::time_point now = Clock::now();
    auto entry = entries.begin() + 2;
    for (Peer& peer : peers_) {
        peer.advance((entry++)->revents, now);
        if (!peer.gone() && peer.has_message()) handle(peer);
    }
    if ((entries[1].revents & POLLIN) != 0) finish_job();
    if ((entries[0].revents & POLLIN) != 0) accept_some();
    sweep();
    return true;
}

// Until `end`, or the deadline of a peer.
int Server::wait(std::vector<pollfd>& entries, Clock::time_point end) const {
    if (entries[0].fd < 0) end = std::min(end, accept_from_);
    for (const Peer& peer : peers_) end = std::min(end, peer.deadline().value_or(end));
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
    const int timeout = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
    return ::poll(entries.data(), entries.size(), timeout);
}

void Server::accept_some() {
    for (size_t i = 0; i < kMaxPeers; ++i) {
        abi::Descriptor socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                accept_from_ = Clock::now() + kAcceptPause;
            if (errno != EINTR && errno != ECONNABORTED) return;
            continue;
        }
        configure(socket.get());
        if (peers_.size() >= kMaxPeers) make_room();
        peers_.emplace_back(std::move(socket), options_.greeting, options_.stall);
    }
}

// The oldest that has no device goes: an honest client says open at once.
void Server::make_room() {
    const auto oldest =
        std::find_if(peers_.begin(), peers_.end(), [this](const Peer& p) { return &p != client_; });
    if (oldest != peers_.end()) peers_.erase(oldest);
}

void Server::handle(Peer& peer) {
    try {
        peer.greeting() ? greet(peer) : serve(peer);
        peer.drop_message();
    } catch (const wire::Malformed& malformed) {
        peer.refuse(DLAVM_BAD_ARGUMENT, std::string("malformed: ") + malformed.what());
    } catch (const Misuse& misuse) {
        peer.refuse(misuse.status, misuse.text);
    } catch (const std::exception& error) {  // no memory, no thread: for this client only
        peer.refuse(DLAVM_SYSTEM, error.what());
    }
}

void Server::greet(Peer& peer) {
    if (peer.message().number != protocol::Open::kNumber)
        throw wire::Malformed(std::string("expected open first, got ") + peer.message().name);
    const auto open = protocol::Open::decode(peer.payload());
    if (open.magic != protocol::kMagic) throw wire::Malformed("open.magic: not that of this protocol");
    if (open.version == 0) throw Misuse{DLAVM_BAD_ARGUMENT, "open: this server speaks version 1 and above"};
    if (!options_.secret.empty() && !equal(open.secret, options_.secret))
        throw Misuse{DLAVM_SYSTEM, "open: the secret is not the server's"};
    if (client_ != nullptr) throw Misuse{DLAVM_SYSTEM, "open: busy: the device serves another client"};
    this->open(peer, open);
}

void Server::open(Peer& peer, const protocol::Open& open) {
    uint64_t left = options_.max_memory;
    for (size_t i = 1; i < open.memories.size(); i += 4) {
        if (open.memories[i] > left) {
            throw Misuse{DLAVM_BAD_ARGUMENT, "open: expected memories of at most " +
                                                 std::to_string(options_.max_memory) +
                                                 " bytes together, which is this server's limit"};
        }
        left -= open.memories[i];
    }
    hosted_ = std::make_unique<Hosted>(options_.device_url, open, wake_.get());
    client_ = &peer;
    peer.serve();
    peer.answer(hosted_->opened());
    log(peer.name() + ": opened " + options_.device_url);
}

void Server::serve(Peer& peer) {
    const uint16_t number = peer.message().number;
    if (number == protocol::Stop::kNumber) {
        if (hosted_->busy()) hosted_->stop();
    } else if (hosted_->busy()) {
        throw wire::Malformed(std::string("expected stop while a run goes on, got ") + peer.message().name);
    } else if (auto answer = hosted_->handle(number, peer.payload())) {
        peer.answer(std::move(*answer));
    }
}

void Server::finish_job() {
    eventfd_t count = 0;
    eventfd_read(wake_.get(), &count);
    if (!hosted_ || !hosted_->busy() || !hosted_->ready()) return;
    std::string answer = hosted_->finish();
    if (client_->serving()) client_->answer(std::move(answer));
}

// Peers that are gone, and the device of a client that is.
void Server::sweep() {
    for (auto peer = peers_.begin(); peer != peers_.end();) {
        if (const auto reason = peer->take_reason()) log(peer->name() + ": " + *reason);
        if (&*peer == client_ && !peer->serving()) {
            hosted_.reset();
            client_ = nullptr;
        }
        peer = peer->gone() ? peers_.erase(peer) : std::next(peer);
    }
}

void Server::log(const std::string& line) {
    if (log_.size() >= kMaxLog) log_.pop_front();
    log_.push_back(line);
}

}  // namespace dlavm::remote
