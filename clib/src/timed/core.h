// The timed simulator as an engine: the functional core executes, the twin of the RTL says when.
#pragma once

#include <memory>
#include <vector>

#include "abi/engine.h"
#include "sim/core.h"
#include "timed/twin.h"

namespace dlavm::timed {

class Core final : public abi::Engine, private Source {
  public:
    // `lanes`: of the vector engine, as text. Throws Misuse.
    Core(const std::string& lanes, const dlavm_config& config);

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
    CommandPtr next() override;
    void reset_twin();

    Shape shape_;
    sim::Core sim_;
    std::unique_ptr<Twin> twin_;
    std::atomic<bool> stop_{false};
    bool started_ = false, begun_ = false, skip_ = true;
    uint64_t cycles_ = 0, executed_ = 0;
    int code_ = 0;
    std::string error_;
};

}  // namespace dlavm::timed
