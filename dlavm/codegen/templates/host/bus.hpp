// The C interface of the devices (dlavm/device.h) with exceptions: what fails throws std::runtime_error with
// one line that begins with `what`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dlavm/device.h"

namespace host {

// Names and values for dlavm_set_option.
using DeviceOptions = std::vector<std::pair<std::string, std::string>>;

class Bus {
  public:
    // Opens the device at `url`. A device of another target than model.hpp's is refused.
    Bus(const std::string& url, const DeviceOptions& options);

    void read(std::uint64_t address, void* out, std::uint64_t bytes, const std::string& what) const;
    void write(std::uint64_t address, const void* in, std::uint64_t bytes, const std::string& what) const;
    void map(std::uint64_t address, std::uint32_t channel, const std::filesystem::path& file,
             std::uint64_t bytes) const;
    std::uint32_t read_register(std::uint32_t offset, const std::string& what) const;
    void write_register(std::uint32_t offset, std::uint32_t value, const std::string& what) const;

    // Runs what a write to CONTROL has started, to its end.
    void run(const std::string& what) const;

    dlavm_counters counters() const;

  private:
    struct Close {
        void operator()(dlavm_device* device) const { dlavm_close(device); }
    };

    void check(int status, const std::string& what) const;

    std::unique_ptr<dlavm_device, Close> device_;
};

// The name of an error of the core (register ERROR).
std::string error_name(int code);

}  // namespace host
