// The functional core: registers, and the front end that fetches, decodes and orders commands.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "abi/engine.h"
#include "abi/registers.h"
#include "sim/fault.h"
#include "sim/hazard.h"
#include "sim/machine.h"

namespace dlavm::sim {

// A command that was executed, for who wants to know when it would be (timed/core.h).
struct Executed {
    const isa::CommandInfo* info = nullptr;
    uint64_t at = 0;            // word offset
    uint32_t words[32] = {};    // of the payload, scalars in place of their numbers
    bool skipped = false;       // by its predicate
    bool jumped = false;        // what follows does not come from the words behind it
    uint64_t load_address = 0;  // of SCALAR load: the first byte of the unit
};

class Core final : public abi::Engine {
  public:
    explicit Core(const dlavm_config& config);  // throws Misuse

    dlavm_device_info info() const override;
    void set_option(const std::string& name, const std::string& value) override;
    void mem_read(uint64_t address, void* out, uint64_t bytes) override;
    void mem_write(uint64_t address, const void* in, uint64_t bytes) override;
    void mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) override;
    uint32_t csr_read(uint32_t offset) override;
    int csr_write(uint32_t offset, uint32_t value, std::string& error) override;
    int run(uint64_t max_commands, uint64_t& executed, std::string& error) override;
    dlavm_counters counters() const override { return counters_; }
    void request_stop() noexcept override { machine_.stop = true; }

    uint32_t channel() const { return channel_; }
    // The command that run() executed last; without a fault.
    const Executed& last() const { return last_; }
    // The indices that it read, of GATHER and PERMUTE; else none.
    void read_indices(std::vector<uint32_t>& out) const;
    // Without kernels commands are checked and counted, and write nothing.
    void set_kernels(bool kernels) { kernels_ = kernels; }

  private:
    struct Fetched {
        const isa::CommandInfo* info;
        uint64_t at, next;  // word offsets
        uint32_t predicate;
        uint32_t mask;
        uint32_t words[32];
    };
    struct OpenLoop {
        uint64_t body;
        uint32_t rd, count, index;
    };

    void reset();
    void start();
    int launch(uint32_t opcode, std::string& error);
    int stopped(const Fault& fault, const std::string& where, std::string& error);

    void step();
    void note(const Fetched& f, bool skipped);
    Fetched fetch() const;
    void check_header(const Fetched& f, uint32_t header) const;
    uint32_t program_word(uint64_t at) const;
    uint32_t memory_word(uint32_t base, uint32_t index) const;
    void substitute(Fetched& f) const;
    void execute(const isa::CommandInfo& info, const uint32_t* words);
    void control(const isa::CommandInfo& info, const uint32_t* words);

    void do_end();
    void do_signal(const isa::Signal& c);
    void do_wait(const isa::Wait& c);
    void do_scalar(const isa::Scalar& c);
    void do_loop(const isa::Loop& c);
    void do_endloop();
    void do_call(const isa::Call& c);
    void do_ret();
    void set_scalar(uint32_t index, uint32_t value);
    void check_register(const char* field, uint32_t index) const;
    void check_semaphore(uint32_t index) const;

    template <class Command>
    void engine_command(const isa::CommandInfo& info, const uint32_t* words);
    uint32_t& writable(uint32_t offset);  // checked before to be PROGRAM, PROGRAM_WORDS, ARG or OP

    dlavm_config config_;
    Machine machine_;
    Hazards hazards_;
    bool check_hazards_ = true, kernels_ = true;
    Executed last_;

    uint32_t status_ = 0, error_ = 0, error_pc_ = 0, program_ = 0, program_words_ = 0, channel_ = 0;
    uint32_t args_[abi::kArgs] = {}, op_[abi::kOps] = {};
    std::string error_text_;
    dlavm_counters counters_ = {};

    uint64_t pc_ = 0;    // word offset of the next command
    uint64_t next_ = 0;  // where it continues
    uint32_t scalars_[32] = {};
    std::vector<OpenLoop> loops_;
    std::vector<uint64_t> calls_;
};

}  // namespace dlavm::sim
