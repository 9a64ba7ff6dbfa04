// Threads that share the items of one command. Which thread takes an item never changes a result.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace dlavm::sim {

class Pool {
  public:
    Pool() = default;
    ~Pool() { resize(1); }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    void resize(unsigned threads);  // the caller's thread counts as one; 0: one per processor
    unsigned size() const { return static_cast<unsigned>(threads_.size()) + 1; }

    // Calls body(begin, end, worker) for ranges that cover 0..count-1 once; worker < size(). `cost` is a
    // guess of the nanoseconds of one item: little work stays on the caller's thread.
    template <class Body>
    void run(size_t count, size_t cost, Body&& body) {
        if (threads_.empty() || count < 2 || count * cost < kWorthSharing) {
            if (count != 0) body(size_t{0}, count, 0u);
            return;
        }
        using Plain = std::remove_reference_t<Body>;
        share(count, cost, const_cast<void*>(static_cast<const void*>(&body)),
              [](void* b, size_t begin, size_t end, unsigned worker) {
                  (*static_cast<Plain*>(b))(begin, end, worker);
              });
    }

  private:
    using Call = void (*)(void* body, size_t begin, size_t end, unsigned worker);
    static constexpr size_t kWorthSharing = 6000;  // ns; waking a spinning thread takes about one thousand
    static constexpr size_t kChunk = 1500;         // ns

    void share(size_t count, size_t cost, void* body, Call call);
    void take(unsigned worker);
    void work(unsigned worker);
    bool wait_for_job(uint64_t seen);

    std::vector<std::thread> threads_;
    std::atomic<uint64_t> open_{0};    // number of the job that accepts workers, 0: none
    std::atomic<uint64_t> issued_{0};  // number of the newest job
    std::atomic<unsigned> inside_{0};  // workers that may hold items of the open job
    std::atomic<size_t> next_{0};
    std::atomic<unsigned> sleepers_{0};
    std::atomic<bool> quit_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    size_t count_ = 0, chunk_ = 1;
    void* body_ = nullptr;
    Call call_ = nullptr;
};

}  // namespace dlavm::sim
