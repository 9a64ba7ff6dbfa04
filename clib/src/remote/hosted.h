// The device of the client that a server serves: requests in, answers out.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "abi/file.h"
#include "dlavm/device.h"
#include "dlavm/device_protocol.hpp"

namespace dlavm::remote {

class Hosted {
  public:
    // Opens the device at `url` with a client's configuration. A call that takes long goes on in a thread,
    // which then writes to the eventfd `wake`. Throws Misuse.
    Hosted(const std::string& url, const device_protocol::Open& open, int wake);
    ~Hosted();
    Hosted(const Hosted&) = delete;
    Hosted& operator=(const Hosted&) = delete;

    // The answer; none: it will be finish(). Not while busy. Throws wire::Malformed.
    std::optional<std::string> handle(uint16_t number, std::string_view payload);

    bool busy() const { return job_.joinable(); }
    bool ready() const { return ready_; }
    std::string finish();

    // Stops the call that goes on, and waits for its end.
    void stop();

    std::string opened() const;

  private:
    struct Close {
        void operator()(dlavm_device* device) const { dlavm_close(device); }
    };
    struct Upload {
        device_protocol::Map map;
        abi::Descriptor file;
        uint64_t received = 0;
    };

    std::string on(const device_protocol::Option& option);
    std::string on(const device_protocol::Read& read);
    std::string on(const device_protocol::Write& write);
    std::string on(const device_protocol::Map& map);
    std::string on(const device_protocol::Image& image);
    std::string on(const device_protocol::CsrRead& read);
    std::string on(const device_protocol::Counters& counters);
    std::optional<std::string> on(const device_protocol::CsrWrite& write);
    std::optional<std::string> on(const device_protocol::Run& run);
    std::string map_upload();
    template <class Call>
    void start(Call call);

    std::unique_ptr<dlavm_device, Close> device_;
    uint64_t mappable_ = 0;  // bytes of images that may still come
    std::optional<Upload> upload_;
    int wake_;
    std::thread job_;
    std::string job_answer_;
    std::atomic<bool> ready_{false};
};

}  // namespace dlavm::remote
