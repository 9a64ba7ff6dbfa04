// Serves a device to one client at a time, in whatever thread calls poll().
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "remote/hosted.h"
#include "remote/peer.h"

struct pollfd;

namespace dlavm::remote {

struct ServerOptions {
    std::string device_url, listen, secret;
    uint64_t max_memory;  // bytes that the memories of a client's configuration may have together
    std::chrono::milliseconds greeting, stall;
};

class Server {
  public:
    explicit Server(ServerOptions options);  // throws Misuse

    uint16_t port() const { return local_port(listener_.get()); }
    std::string name() const { return local_name(listener_.get()); }

    // Handles what comes, until the time is over, a signal came, or there is something to log.
    void poll(std::chrono::milliseconds longest);

    std::optional<std::string> take_log();

  private:
    bool turn(Clock::time_point end);
    int wait(std::vector<pollfd>& entries, Clock::time_point end) const;
    void accept_some();
    void make_room();
    void greet(Peer& peer);
    void open(Peer& peer, const device_protocol::Open& open);
    void serve(Peer& peer);
    void handle(Peer& peer);
    void finish_job();
    void sweep();
    void log(const std::string& line);

    ServerOptions options_;
    abi::Descriptor listener_, wake_;
    Clock::time_point accept_from_ = Clock::now();  // later while descriptors are short
    std::list<Peer> peers_;
    Peer* client_ = nullptr;  // whose device it is
    std::unique_ptr<Hosted> hosted_;
    std::deque<std::string> log_;
};

}  // namespace dlavm::remote
