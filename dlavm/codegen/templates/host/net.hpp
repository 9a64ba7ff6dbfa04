// Sockets: where the server listens, and the loop that moves bytes between the clients and the service.
#pragma once

#include <poll.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "service.hpp"

namespace host {

// The time by the clock that the service is told.
Milliseconds steady_now();

// A file descriptor, closed with its owner.
class Descriptor {
  public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor() { close(); }

    int get() const { return fd_; }
    void close();

  private:
    int fd_;
};

// A TCP socket bound to HOST:PORT or [IPV6]:PORT; port 0 is any free one. Throws std::runtime_error where it
// cannot be.
class Listener {
  public:
    explicit Listener(const std::string& address);

    void listen() const;
    int fd() const { return socket_.get(); }
    void close() { socket_.close(); }

    // Where it is bound, in numbers.
    std::string address() const;

    // Whether only this machine can reach it.
    bool is_loopback() const;

  private:
    Descriptor socket_;
};

// Ends the wait of a loop, from other threads and signal handlers. Call wake() with the mutex locked that the
// loop locks after drain(): then it finds what was done before.
class Wake {
  public:
    Wake();

    void wake();
    void stop();  // safe in a signal handler

    int fd() const { return read_.get(); }

    // Takes what has come; whether stop() was called.
    bool drain();

  private:
    Descriptor read_, write_;
    std::atomic<bool> pending_{false};
};

// A service for two threads: the one that holds `mutex` may use it. `work` tells that there may be turns.
struct SharedService {
    Service service;
    std::mutex mutex = {};
    std::condition_variable work = {};
};

// Serves the clients of a listener.
class Loop {
  public:
    // `log` gets a line for each connection that opens or closes.
    Loop(Listener listener, SharedService& shared, Wake& wake, std::size_t max_connections,
         std::function<void(const std::string&)> log);

    // Until wake.stop() was called and everyone has left.
    void run();

  private:
    struct Peer {
        Descriptor socket;
        std::string name;
        bool shut = false;  // nothing more will be sent
    };
    using Peers = std::map<ConversationId, Peer>;

    bool prepare();
    bool flush(ConversationId id, Peer& peer);
    void wait();
    void dispatch();
    void accept_some();
    void admit(Descriptor socket, const std::string& name);
    void read(Peers::iterator peer, const pollfd& polled);
    void drop(Peers::iterator peer, const std::string& reason);
    void write_log();

    Listener listener_;
    SharedService& shared_;
    Wake& wake_;
    std::size_t max_connections_;
    std::function<void(const std::string&)> log_;
    Peers peers_;
    std::vector<std::string> lines_;  // written while nobody waits for the mutex
    std::vector<char> buffer_;
    std::vector<pollfd> polled_;  // wake, listener, peers in their order
    std::optional<Milliseconds> wake_at_;
    Milliseconds accept_at_ = 0;  // after the system refused
    bool stopping_ = false;
};

}  // namespace host
