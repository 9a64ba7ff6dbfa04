#include "bus.hpp"

#include <stdexcept>

#include "files.hpp"
#include "model.hpp"

namespace host {

std::string error_name(int code) {
    for (const model::ErrorName& error : model::kErrorNames)
        if (error.code == code) return error.name;
    return "error " + std::to_string(code);
}

Bus::Bus(const std::string& url, const DeviceOptions& options) {
    const dlavm_config config = model::device_config();
    dlavm_device* device = nullptr;
    if (dlavm_open(url.c_str(), &config, &device) != DLAVM_OK)
        throw std::runtime_error("device '" + url + "': " + dlavm_error(nullptr));
    device_.reset(device);
    for (const auto& [name, value] : options)
        check(dlavm_set_option(device, name.c_str(), value.c_str()), "device option " + name);
    const std::uint32_t id = read_register(model::kRegisterId, "register ID");
    if (id != model::kTargetId)
        fail("register ID", hex(model::kTargetId) + " (" + model::kTarget + ")",
             hex(id) + ": a device of another target or version");
}

void Bus::read(std::uint64_t address, void* out, std::uint64_t bytes, const std::string& what) const {
    check(dlavm_mem_read(device_.get(), address, out, bytes), what);
}

void Bus::write(std::uint64_t address, const void* in, std::uint64_t bytes, const std::string& what) const {
    check(dlavm_mem_write(device_.get(), address, in, bytes), what);
}

void Bus::map(std::uint64_t address, std::uint32_t channel, const std::filesystem::path& file,
              std::uint64_t bytes) const {
    check(dlavm_mem_map(device_.get(), address, channel, file.c_str(), bytes), file.string());
}

std::uint32_t Bus::read_register(std::uint32_t offset, const std::string& what) const {
    std::uint32_t value = 0;
    check(dlavm_csr_read(device_.get(), offset, &value), what);
    return value;
}

void Bus::write_register(std::uint32_t offset, std::uint32_t value, const std::string& what) const {
    check(dlavm_csr_write(device_.get(), offset, value), what);
}

void Bus::run(const std::string& what) const { check(dlavm_run(device_.get(), 0, nullptr), what); }

dlavm_counters Bus::counters() const {
    dlavm_counters counters = {};
    check(dlavm_counters_read(device_.get(), &counters), "counters");
    return counters;
}

void Bus::check(int status, const std::string& what) const {
    if (status == DLAVM_OK) return;
    const std::string stopped = status > 0 ? "the device stopped: " + error_name(status) + ": " : "";
    throw std::runtime_error(what + ": " + stopped + dlavm_error(device_.get()));
}

}  // namespace host
