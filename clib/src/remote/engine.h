// A device on another machine, behind `dlavm device-server` (doc/protocol.md, "A device on another machine").
#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "abi/engine.h"
#include "abi/space.h"
#include "remote/connection.h"

namespace dlavm::remote {

class RemoteEngine final : public abi::Engine {
  public:
    // `address`: HOST:PORT. The file that DLAVM_DEVICE_SECRET_FILE names holds the server's secret. Throws
    // Misuse.
    RemoteEngine(const std::string& address, const dlavm_config& config);

    dlavm_device_info info() const override;
    void set_option(const std::string& name, const std::string& value) override;
    void mem_read(uint64_t address, void* out, uint64_t bytes) override;
    void mem_write(uint64_t address, const void* in, uint64_t bytes) override;
    void mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) override;
    uint32_t csr_read(uint32_t offset) override;
    int csr_write(uint32_t offset, uint32_t value, std::string& error) override;
    int run(uint64_t max_commands, uint64_t& executed, std::string& error) override;
    dlavm_counters counters() const override;
    void request_stop() noexcept override;

  private:
    class Running;

    // One answer: the message that the request names, or result. Throws the Misuse of a call that failed.
    template <class Answer, class Request>
    Answer ask(const Request& request, std::optional<Clock::time_point> deadline) const;
    template <class Answer>
    Answer receive(std::optional<Clock::time_point> deadline) const;
    template <class Message>
    Message decoded(std::string_view payload) const;
    template <class Request>
    uint64_t call(const Request& request);
    device_protocol::Result checked(device_protocol::Result result) const;
    void send(const std::string& frame) const;

    std::vector<abi::Space> spaces_;
    std::unique_ptr<Connection> connection_;
    mutable std::mutex send_mutex_;        // one frame at a time; and:
    bool running_ = false;                 // run was sent, its result has not come
    bool stop_ = false;                    // until the reset that follows
    mutable std::set<std::string> names_;  // that info() gave out
};

}  // namespace dlavm::remote
