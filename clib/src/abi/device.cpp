// The C interface: argument checks, one call at a time, exceptions turned into codes and texts.
#include "dlavm/device.h"

#include <cstring>
#include <mutex>
#include <string>

#include "abi/engine.h"
#include "abi/guard.h"
#include "abi/registers.h"
#include "remote/engine.h"
#include "rtl/core.h"
#include "sim/core.h"
#include "timed/core.h"
#include "xdma/card.h"

struct dlavm_device {
    std::unique_ptr<dlavm::abi::Engine> engine;
    mutable std::mutex mutex;  // one call at a time
    mutable std::mutex text_mutex;
    std::string error;
};

namespace dlavm::abi {

namespace {

struct Scheme {
    const char* prefix;
    std::unique_ptr<Engine> (*open)(const std::string& rest, const dlavm_config& config);
};

constexpr Scheme kSchemes[] = {
    {"sim:",
     [](const std::string&, const dlavm_config& config) -> std::unique_ptr<Engine> {
         return std::make_unique<sim::Core>(config);
     }},
    {"timed:",
     [](const std::string& rest, const dlavm_config& config) -> std::unique_ptr<Engine> {
         return std::make_unique<timed::Core>(rest, config);
     }},
    {"rtl:",
     [](const std::string& rest, const dlavm_config& config) -> std::unique_ptr<Engine> {
         return std::make_unique<rtl::Core>(rest, config);
     }},
    {"tcp:",
     [](const std::string& rest, const dlavm_config& config) -> std::unique_ptr<Engine> {
         return std::make_unique<remote::RemoteEngine>(rest, config);
     }},
    {"xdma:",
     [](const std::string& rest, const dlavm_config& config) -> std::unique_ptr<Engine> {
         return std::make_unique<xdma::Card>(rest, config);
     }},
};

const Scheme& scheme_of(const std::string& url) {
    std::string known;
    for (const Scheme& scheme : kSchemes) {
        if (url.compare(0, std::strlen(scheme.prefix), scheme.prefix) == 0) return scheme;
        known += (known.empty() ? "" : ", ") + std::string(scheme.prefix);
    }
    throw Misuse{DLAVM_NOT_FOUND, "open: expected a URL that starts with one of " + known + ", got '" +
                                      url.substr(0, 80) + "'"};
}

thread_local std::string last_error;

}  // namespace

std::unique_ptr<Engine> open_engine(const std::string& url, const dlavm_config& config) {
    const Scheme& scheme = scheme_of(url);
    return scheme.open(url.substr(std::strlen(scheme.prefix)), config);
}

void check_scheme(const std::string& url) { scheme_of(url); }

int failed(int status, const std::string& text) {
    last_error = text;
    return status;
}

namespace {

int failed_on(dlavm_device* device, int status, const std::string& text) {
    if (device != nullptr) {
        const std::lock_guard<std::mutex> lock(device->text_mutex);
        device->error = text;
    }
    return failed(status, text);
}

template <class Call>
int on_device(dlavm_device* device, bool arguments, Call call) {
    if (device == nullptr || !arguments)
        return failed_on(device, DLAVM_BAD_ARGUMENT, "a null pointer was passed");
    const std::lock_guard<std::mutex> lock(device->mutex);
    return guarded([&](std::string& text) { return call(*device->engine, text); },
                   [&](int status, const std::string& text) { return failed_on(device, status, text); });
}

}  // namespace

}  // namespace dlavm::abi

using dlavm::abi::Engine;
using dlavm::abi::failed;
using dlavm::abi::on_device;

int dlavm_open(const char* url, const dlavm_config* config, dlavm_device** out) {
    if (out != nullptr) *out = nullptr;
    if (url == nullptr || config == nullptr || out == nullptr) {
        return failed(DLAVM_BAD_ARGUMENT, "open: a null pointer was passed");
    }
    if (config->abi_version != DLAVM_ABI_VERSION) {
        return failed(DLAVM_BAD_ARGUMENT, "open: expected ABI version " + std::to_string(DLAVM_ABI_VERSION) +
                                              ", got " + std::to_string(config->abi_version));
    }
    const auto open = [&](std::string&) {
        auto device = std::make_unique<dlavm_device>();
        device->engine = dlavm::abi::open_engine(url, *config);
        *out = device.release();
        return 0;
    };
    return dlavm::abi::guarded(open, failed);
}

void dlavm_close(dlavm_device* device) { delete device; }

const char* dlavm_error(const dlavm_device* device) {
    if (device == nullptr) return dlavm::abi::last_error.c_str();
    // A copy of this thread's own: another thread may fail while the caller still reads.
    thread_local std::string text;
    const std::lock_guard<std::mutex> lock(const_cast<dlavm_device*>(device)->text_mutex);
    text = device->error;
    return text.c_str();
}

int dlavm_info(const dlavm_device* device, dlavm_device_info* out) {
    return on_device(const_cast<dlavm_device*>(device), out != nullptr, [&](Engine& engine, std::string&) {
        *out = engine.info();
        return 0;
    });
}

int dlavm_set_option(dlavm_device* device, const char* name, const char* value) {
    return on_device(device, name != nullptr && value != nullptr, [&](Engine& engine, std::string&) {
        engine.set_option(name, value);
        return 0;
    });
}

int dlavm_mem_read(dlavm_device* device, uint64_t address, void* buffer, uint64_t bytes) {
    return on_device(device, buffer != nullptr || bytes == 0, [&](Engine& engine, std::string&) {
        if (bytes != 0) engine.mem_read(address, buffer, bytes);
        return 0;
    });
}

int dlavm_mem_write(dlavm_device* device, uint64_t address, const void* buffer, uint64_t bytes) {
    return on_device(device, buffer != nullptr || bytes == 0, [&](Engine& engine, std::string&) {
        if (bytes != 0) engine.mem_write(address, buffer, bytes);
        return 0;
    });
}

int dlavm_mem_map(dlavm_device* device, uint64_t address, uint32_t channel, const char* path,
                  uint64_t bytes) {
    return on_device(device, path != nullptr, [&](Engine& engine, std::string&) {
        engine.mem_map(address, channel, path, bytes);
        return 0;
    });
}

int dlavm_csr_read(dlavm_device* device, uint32_t offset, uint32_t* value) {
    return on_device(device, value != nullptr, [&](Engine& engine, std::string&) {
        *value = engine.csr_read(offset);
        return 0;
    });
}

int dlavm_csr_write(dlavm_device* device, uint32_t offset, uint32_t value) {
    if (device != nullptr && offset == dlavm::isa::kRegControl && (value & dlavm::abi::kReset) != 0)
        device->engine->request_stop();
    return on_device(device, true, [&](Engine& engine, std::string& text) {
        return engine.csr_write(offset, value, text);
    });
}

int dlavm_run(dlavm_device* device, uint64_t max_commands, uint64_t* executed) {
    uint64_t done = 0;
    const int code = on_device(device, true, [&](Engine& engine, std::string& text) {
        return engine.run(max_commands, done, text);
    });
    if (executed != nullptr) *executed = done;
    return code;
}

int dlavm_counters_read(dlavm_device* device, dlavm_counters* out) {
    return on_device(device, out != nullptr, [&](Engine& engine, std::string&) {
        *out = engine.counters();
        return 0;
    });
}
