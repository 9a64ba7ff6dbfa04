// The C interface of the server.
#include "dlavm/device_server.h"

#include "abi/guard.h"
#include "remote/server.h"

using dlavm::abi::failed;
using dlavm::abi::guarded;
using dlavm::remote::read_secret;
using dlavm::remote::Server;

struct dlavm_server {
    Server server;
    std::string line;
};

namespace {

constexpr uint64_t kMaxMemory = uint64_t{1} << 37;
constexpr uint32_t kGreeting = 5000, kStall = 10000;  // milliseconds

template <class Value>
Value or_default(Value value, Value otherwise) {
    return value == 0 ? otherwise : value;
}

}  // namespace

int dlavm_server_open(const char* device_url, const char* listen, const dlavm_server_options* options,
                      dlavm_server** out) {
    if (out != nullptr) *out = nullptr;
    if (device_url == nullptr || listen == nullptr || out == nullptr)
        return failed(DLAVM_BAD_ARGUMENT, "device server: a null pointer was passed");
    const auto open = [&](std::string&) {
        const dlavm_server_options chosen = options == nullptr ? dlavm_server_options{} : *options;
        const std::string secret = read_secret(chosen.secret_file == nullptr ? "" : chosen.secret_file);
        const std::chrono::milliseconds greeting(or_default(chosen.greeting_ms, kGreeting));
        const std::chrono::milliseconds stall(or_default(chosen.stall_ms, kStall));
        *out = new dlavm_server{
            Server({device_url, listen, secret, or_default(chosen.max_memory, kMaxMemory), greeting, stall}),
            ""};
        return 0;
    };
    return guarded(open, failed);
}

uint16_t dlavm_server_port(const dlavm_server* server) {
    return server == nullptr ? 0 : server->server.port();
}

int dlavm_server_poll(dlavm_server* server, uint32_t timeout_ms) {
    if (server == nullptr) return failed(DLAVM_BAD_ARGUMENT, "device server: a null pointer was passed");
    const auto poll = [&](std::string&) {
        server->server.poll(std::chrono::milliseconds(timeout_ms));
        return 0;
    };
    return guarded(poll, failed);
}

const char* dlavm_server_log(dlavm_server* server) {
    const auto line = server == nullptr ? std::nullopt : server->server.take_log();
    if (!line) return nullptr;
    server->line = *line;
    return server->line.c_str();
}

void dlavm_server_close(dlavm_server* server) { delete server; }
