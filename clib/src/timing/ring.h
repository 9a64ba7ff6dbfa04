// A queue in a ring that grows: what std::deque does, without its blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dlavm::timing {

template <class T>
class Ring {
  public:
    bool empty() const { return in_ == out_; }
    size_t size() const { return in_ - out_; }
    T& front() { return items_[out_ & mask_]; }
    const T& front() const { return items_[out_ & mask_]; }
    T& back() { return items_[(in_ - 1) & mask_]; }
    const T& operator[](size_t place) const { return items_[(out_ + place) & mask_]; }
    void push_back(const T& item) { push() = item; }
    T& push() {  // a place behind the others, with whatever was there
        if (in_ - out_ > mask_) grow();
        return items_[in_++ & mask_];
    }
    void pop_front() { ++out_; }

  private:
    [[gnu::noinline]] void grow() {  // out of the way of those who push
        std::vector<T> larger(2 * items_.size());
        for (size_t i = 0; i < items_.size(); ++i) larger[i] = (*this)[i];
        in_ = size();
        out_ = 0;
        items_.swap(larger);
        mask_ = items_.size() - 1;
    }

    std::vector<T> items_ = std::vector<T>(16);
    size_t mask_ = 15, in_ = 0, out_ = 0;
};

}  // namespace dlavm::timing
