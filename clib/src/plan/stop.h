// A limit of time, and a wish of the caller's.
#pragma once

#include <chrono>
#include <cstdint>

namespace dlavm::plan {

// What ends a search besides its nodes.
class Stop {
  public:
    // Milliseconds from now on, 0: no limit; `cancel` may be null.
    Stop(uint64_t milliseconds, const uint32_t* cancel)
        : limited_(milliseconds != 0 && milliseconds < uint64_t{1} << 40),
          deadline_(std::chrono::steady_clock::now() +
                    std::chrono::milliseconds(limited_ ? milliseconds : 0)),
          cancel_(cancel) {}

    bool now() const { return late() || cancelled(); }
    bool late() const { return limited_ && std::chrono::steady_clock::now() >= deadline_; }
    bool cancelled() const { return cancel_ != nullptr && __atomic_load_n(cancel_, __ATOMIC_RELAXED) != 0; }

  private:
    bool limited_;
    std::chrono::steady_clock::time_point deadline_;
    const uint32_t* cancel_;
};

}  // namespace dlavm::plan
