// Transfers between host and card through the character devices of the public XDMA driver: the file offset is
// the address on the card.
#pragma once

#include <cstdint>
#include <string>

#include "abi/file.h"

namespace dlavm::xdma {

class Dma {
  public:
    // Opens PREFIX_h2c_0 and PREFIX_c2h_0. Throws Misuse.
    explicit Dma(const std::string& prefix);

    // All of the bytes, or Misuse with device, address and reason.
    void write(uint64_t physical, const void* in, uint64_t bytes) const;
    void read(uint64_t physical, void* out, uint64_t bytes) const;

  private:
    struct Device {
        std::string path;
        abi::Descriptor file;
    };

    Device to_card_, from_card_;
};

}  // namespace dlavm::xdma
