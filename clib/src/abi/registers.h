// The registers of targets/isa/registers.yaml that a target has, and the bits of STATUS and CONTROL.
#pragma once

#include <cstdint>

#include "dlavm/device.h"
#include "dlavm_isa.h"

namespace dlavm::abi {

enum : uint32_t { kBusy = 1, kDone = 2, kFailed = 4 };  // STATUS
enum : uint32_t { kStart = 1, kReset = 2 };             // CONTROL
constexpr uint32_t kArgs = 8, kOps = 32;                // registers of ARG and OP

inline bool has_stream(const dlavm_config& config) { return config.header_words != 0; }

// Throw Misuse where the target has no such register, or not in this direction.
void check_readable(const dlavm_config& config, uint32_t offset);
void check_writable(const dlavm_config& config, uint32_t offset);

}  // namespace dlavm::abi
