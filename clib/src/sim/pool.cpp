#include "sim/pool.h"

#include <algorithm>
#include <cfenv>

namespace dlavm::sim {

namespace {

constexpr int kSpins =
    1500;  // about 50 us: commands of one step follow each other faster, an idle device sleeps

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

}  // namespace

void Pool::resize(unsigned threads) {
    if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        quit_ = true;
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
    threads_.clear();
    quit_ = false;
    for (unsigned i = 1; i < threads; ++i) threads_.emplace_back([this, i] { work(i); });
}

void Pool::share(size_t count, size_t cost, void* body, Call call) {
    count_ = count;
    chunk_ = std::max<size_t>({1, kChunk / std::max<size_t>(cost, 1), count / (size() * 16)});
    body_ = body;
    call_ = call;
    next_ = 0;
    const uint64_t job = issued_ + 1;
    open_ = job;
    issued_ = job;
    if (sleepers_ != 0) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
        }
        wake_.notify_all();
    }
    take(0);
    open_ = 0;
    // A worker that enters from here on sees that the job is closed; those inside finish their items.
    for (int spins = 0; inside_ != 0; ++spins) {
        if (spins < kSpins) {
            relax();
        } else {
            std::this_thread::yield();
        }
    }
}

void Pool::take(unsigned worker) {
    for (;;) {
        const size_t begin = next_.fetch_add(chunk_);
        if (begin >= count_) return;
        call_(body_, begin, std::min(count_, begin + chunk_), worker);
    }
}

bool Pool::wait_for_job(uint64_t seen) {
    for (int spins = 0; spins < kSpins; ++spins) {
        if (issued_ != seen || quit_) return !quit_;
        relax();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, [&] { return issued_ != seen || quit_; });
    --sleepers_;
    return !quit_;
}

void Pool::work(unsigned worker) {
    std::fesetenv(FE_DFL_ENV);
    uint64_t seen = 0;
    while (wait_for_job(seen)) {
        seen = issued_;
        ++inside_;
        if (open_ != 0) take(worker);
        --inside_;
    }
}

}  // namespace dlavm::sim
