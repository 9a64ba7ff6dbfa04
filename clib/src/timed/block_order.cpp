#include "timed/block_order.h"

#include <algorithm>

namespace dlavm::timed {

void BlockOrder::start(const LinearJob& job) {
    job_ = &job;
    ordered_ = job.ordered;
    valid_ = taken_ = false;
    left_ = job.values ? job.k_blocks : job.n_blocks;
    batch_ = in_ = out_ = in_half_ = out_half_ = 0;
    full_.fill(0);
}

uint32_t BlockOrder::coming() const {
    const uint32_t block = kBlockUnits > shape_->row_units ? kBlockUnits / shape_->row_units : 1;
    const uint32_t blocks = job_->dim_blocks() * block;
    if (job_->values) return job_->heads_here(batch_) * std::min(kTogether, left_) * blocks;
    return std::min(shape_->sets(), left_) * blocks;
}

void BlockOrder::group_in() {
    full_[in_half_] = in_;
    in_ = 0;
    in_half_ ^= 1;
    const uint32_t most = job_->values ? kTogether : shape_->sets();
    if (left_ > most) {
        left_ -= most;
        return;
    }
    batch_ += job_->values ? job_->heads_here(batch_) : 1;
    left_ = job_->values ? job_->k_blocks : job_->n_blocks;
}

void BlockOrder::move(Clock& clock) {
    const bool give = full_[out_half_] != 0 && (!valid_ || taken_);
    const bool in = full_[in_half_] == 0 && port_->valid(clock.now());
    if (in || give || taken_) clock.act();
    valid_ = give || (valid_ && !taken_);
    taken_ = false;
    if (in) {
        port_->take(clock);
        if (++in_ == coming()) group_in();
    }
    if (give && ++out_ == full_[out_half_]) {
        full_[out_half_] = out_ = 0;
        out_half_ ^= 1;
    }
}

}  // namespace dlavm::timed
