// A board behind the public XDMA driver. Channel c of a memory is contiguous on the card, from base +
// c * capacity / channels on (doc/devices.md).
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include "abi/engine.h"
#include "abi/space.h"
#include "xdma/dma.h"
#include "xdma/register_file.h"

namespace dlavm::xdma {

class Card final : public abi::Engine {
  public:
    // `prefix`: what the names of its devices begin with, "/dev/xdma0". Throws Misuse.
    Card(const std::string& prefix, const dlavm_config& config);

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
    template <class Piece>
    void each_piece(const abi::Space& space, uint64_t address, uint64_t bytes, Piece piece);
    template <class Transfer>
    void each_channel(const abi::Space& space, uint64_t offset, uint64_t bytes, const abi::Stripes& bounce,
                      Transfer transfer) const;
    abi::Stripes bounce(const abi::Space& space, uint64_t offset, uint64_t bytes);

    void take(uint32_t offset, const char* name, uint32_t value);
    int finish(const char* call, std::string& error);
    int stopped(const char* call, std::string& error) const;
    uint32_t answer(uint32_t offset, const char* name) const;
    template <class Condition>
    bool wait(std::chrono::milliseconds longest, Condition over) const;

    dlavm_config config_;
    std::vector<abi::Space> spaces_;
    Dma dma_;
    RegisterFile registers_;
    std::chrono::milliseconds timeout_{10000};
    std::vector<uint8_t> buffer_;
    bool started_ = false;           // and its run() has not returned yet
    std::atomic<bool> stop_{false};  // until the reset that follows
};

}  // namespace dlavm::xdma
