// What stands behind the C interface (include/dlavm/device.h), one class for each kind of engine. The
// functions throw Misuse where the call itself is wrong; a positive result is an error code of the
// instruction set, with its text.
#pragma once

#include <memory>
#include <string>

#include "abi/misuse.h"

namespace dlavm::abi {

class Engine {
  public:
    virtual ~Engine() = default;
    virtual dlavm_device_info info() const = 0;
    virtual void set_option(const std::string& name, const std::string& value) = 0;
    virtual void mem_read(uint64_t address, void* out, uint64_t bytes) = 0;
    virtual void mem_write(uint64_t address, const void* in, uint64_t bytes) = 0;
    virtual void mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) = 0;
    virtual uint32_t csr_read(uint32_t offset) = 0;
    virtual int csr_write(uint32_t offset, uint32_t value, std::string& error) = 0;
    virtual int run(uint64_t max_commands, uint64_t& executed, std::string& error) = 0;
    virtual dlavm_counters counters() const = 0;
    virtual void request_stop() noexcept = 0;  // from any thread: run() returns soon
};

// By URL scheme; both throw Misuse for a scheme that is not there.
std::unique_ptr<Engine> open_engine(const std::string& url, const dlavm_config& config);
void check_scheme(const std::string& url);

}  // namespace dlavm::abi
