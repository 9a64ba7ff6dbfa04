// A Verilated core (dlavm/rtl_model.h) as an engine: memory here, registers and cycles there.
#pragma once

#include <atomic>
#include <string>

#include "abi/engine.h"
#include "dlavm/rtl_model.h"
#include "rtl/library.h"
#include "sim/memory.h"

namespace dlavm::rtl {

class Core final : public abi::Engine {
  public:
    // `path`: the shared library. Throws Misuse where it is none, or one for another target or board.
    Core(const std::string& path, const dlavm_config& config);
    ~Core() override;
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;

    dlavm_device_info info() const override;
    void set_option(const std::string& name, const std::string& value) override;
    void mem_read(uint64_t address, void* out, uint64_t bytes) override;
    void mem_write(uint64_t address, const void* in, uint64_t bytes) override;
    void mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) override;
    uint32_t csr_read(uint32_t offset) override;
    int csr_write(uint32_t offset, uint32_t value, std::string& error) override;
    int run(uint64_t max_commands, uint64_t& executed, std::string& error) override;
    dlavm_counters counters() const override;
    void request_stop() noexcept override { stop_ = true; }

  private:
    uint64_t pair(uint32_t offset) const;
    int stopped(std::string& error) const;

    dlavm_config config_;
    sim::Memory memory_;
    Library library_;
    dlavm_rtl_model* model_;
    dlavm_rtl_memory timing_{DLAVM_RTL_BOARD_TIMING, 0, 1, DLAVM_RTL_NO_FAULT};
    uint64_t max_cycles_ = uint64_t{1} << 40;
    bool started_ = false;           // and its run() has not returned yet
    std::atomic<bool> stop_{false};  // until the reset that follows
};

}  // namespace dlavm::rtl
