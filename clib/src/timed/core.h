// The timed simulator as an engine: the functional core executes, the twin of the RTL says when. Registers
// take as many cycles as on the Verilated core (clib/src/rtl/core.cpp), so that memory is as far in its
// refreshes.
#pragma once

#include <fstream>
#include <memory>
#include <optional>
#include <vector>

#include "abi/engine.h"
#include "dlavm/memory_timing.h"
#include "sim/core.h"
#include "timed/memory.h"
#include "timed/recorder.h"
#include "timed/twin.h"

namespace dlavm::timed {

class Core final : public abi::Engine, private Source, private Trace {
  public:
    // `sizes`: shape_of. Throws Misuse.
    Core(const std::string& sizes, const dlavm_config& config);
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
    void request_stop() noexcept override;

  private:
    CommandPtr next() override;
    void command(const Command& command, const Span& span) override;
    void set_memory(const std::string& name, const std::string& value);
    void set_timing(const std::string& changes);
    void apply_memory();
    void make_twin();
    void reset();
    int launch(uint32_t opcode, std::string& error);
    void open_trace();
    void show_program(uint64_t from);
    void access(uint32_t count) const { host_ += kAccessCycles * count; }
    uint64_t profile(uint32_t offset) const;
    uint64_t channel_counter(uint32_t offset) const;

    static constexpr uint64_t kAccessCycles = 2;  // of a register, over AXI4-Lite
    static constexpr uint32_t kWatchReads = 2;    // of COMMANDS, when somebody begins to wait for a core

    dlavm_config config_;
    Shape shape_;
    sim::Core sim_;
    std::vector<std::optional<dlavm_memory_timing>> figures_;  // of each space
    std::optional<uint64_t> latency_;                          // instead of the board's timing
    Memories memories_;
    std::unique_ptr<Twin> twin_;
    std::atomic<bool> stop_{false};
    bool started_ = false, begun_ = false, skip_ = true;
    mutable uint64_t host_;  // the cycle in which the next access to a register would begin
    uint64_t begin_ = 0, executed_ = 0;
    RunCounters counters_;
    int code_ = 0;
    uint32_t launched_ = 0;  // opcode
    std::string error_, trace_path_;
    std::ofstream trace_;  // of the run, if the option `trace` names a file
    std::string profile_path_;
    uint64_t profile_least_ = 32;         // cycles of a wait that is written by itself
    std::unique_ptr<Recorder> recorder_;  // of the run, if the option `profile` names a file
};

}  // namespace dlavm::timed
