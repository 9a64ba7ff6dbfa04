// How a step is started on the device: program.cpp is written for this model and target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bus.hpp"

namespace host {

// Tokens of a step; tokens in the cache before it; positions that want logits; from the caches of the first
// sequence to those of this one, in units of model::kAddressUnit bytes.
struct Arguments {
    std::uint32_t token, kv_len, head_rows, kv_base;
};

class Program {
  public:
    // Puts what the device needs into its memory. A file that differs from the one this driver was written
    // for is refused.
    void load(const Bus& bus, const std::filesystem::path& artifact);

    // Runs a step to its end.
    void start(const Bus& bus, const Arguments& arguments, const std::string& what);

  private:
    static constexpr std::size_t kNone = ~std::size_t{0};

    std::vector<std::vector<std::uint32_t>> streams_;  // with words that change from step to step
    // The stream that the device's registers name; none after a step that failed, as that may have reset it.
    [[maybe_unused]] std::size_t selected_ = kNone;
};

}  // namespace host
