// What the parts wait for (wait.h). All of them are asked for registers as they are in cycle `now`.
#include "timed/wait.h"

#include "timed/front_end.h"
#include "timed/matrix_engine.h"
#include "timed/queues.h"
#include "timed/store_engine.h"
#include "timed/vector_engine.h"

namespace dlavm::timed {

// -- matrix engine ------------------------------------------------------------------------------------------

Wait ActivationFeed::waits(uint64_t now) const {
    if (units_.at(now) <= 0) return Wait::kWeights;
    return sets_.at(now) <= 0 ? Wait::kActivations : Wait::kPipeline;
}

Wait MatrixArray::waits(uint64_t now, const ActivationFeed& feed) const {
    const bool next = feed.valid(now);
    const bool works = running_ || (next && (!feed.tag().result || room_.at(now) != 0));
    if (!works && next) return Wait::kEpilogue;
    const Wait ahead = feed.active() ? feed.waits(now) : Wait::kPipeline;
    if (works) return !feed.ahead(now) && ahead == Wait::kWeights ? Wait::kStream : Wait::kWork;
    return ahead;
}

Wait Epilogue::waits(uint64_t now) const {
    const bool asked = job_ != nullptr && (state_ == State::kScales ? job_->c.use_row_scale != 0
                                           : state_ == State::kBias ? job_->c.use_bias != 0
                                                                    : job_->uses_aux());
    if (state_ == State::kRun) return Wait::kEpilogue;
    if (state_ == State::kRow && blocks_.at(now) == 0) return Wait::kPipeline;  // results of the array
    if (state_ == State::kRow && room_.at(now) == 0) return Wait::kWrite;
    if (state_ != State::kIdle) return asked && !port_->valid(now) ? Wait::kOperands : Wait::kEpilogue;
    if (unasked_.at(now) != 0 || unsent_.at(now) != 0) return Wait::kWrite;
    if (beats_.size() != 0) return Wait::kPipeline;
    return out_->idle(now) ? Wait::kPipeline : Wait::kAcknowledge;
}

Wait MatrixEngine::waits(uint64_t now) const {
    if (!running_) return Wait::kDecode;
    if (now <= last_took_) return Wait::kWork;  // feed and array have jumped
    Wait wait = array_.waits(now, feed_);
    if (wait == Wait::kPipeline && !feed_.active() && array_.idle(now)) wait = epilogue_.waits(now);
    if (wait == Wait::kEpilogue && epilogue_.waits(now) != Wait::kPipeline) wait = epilogue_.waits(now);
    if ((wait != Wait::kWeights && wait != Wait::kStream) || !job_.cache()) return wait;
    if (in_blocks() ? blocks_.turning() : kv_.turning()) return Wait::kTurn;
    return wait == Wait::kStream ? wait : Wait::kCache;
}

// -- vector engine ------------------------------------------------------------------------------------------

Wait VectorUnits::waits(uint64_t now, bool permute_job) const {
    if (permute_job) return permute_ == Permute::kIdle ? Wait::kPipeline : Wait::kSource;
    if (last_issue_ + 1 == static_cast<int64_t>(now)) return Wait::kWork;
    if (works.valid(now)) {
        const bool begins = !begun_ && chunk_ == 0 && works.front().loads;
        if (begins && !full_[work_bank_]) return Wait::kSource;
        return outs_due_.at(now) == kOuts || words_due_.at(now) == kAnswers ? Wait::kWrite : Wait::kPipeline;
    }
    if (outs_made_.size() != 0 || words_made_.size() != 0) return Wait::kPipeline;
    return storer_idle(now) ? Wait::kAcknowledge : Wait::kWrite;
}

Wait VectorEngine::waits(uint64_t now) const {
    if (state_ == State::kCheck && !job_.permute) return Wait::kDecode;
    const Wait wait = units_.waits(now, job_.permute);
    if (wait != Wait::kAcknowledge) return wait;
    if (state_ != State::kFinish) return Wait::kPipeline;  // the sequencer
    return out_->idle(now) ? Wait::kPipeline : wait;
}

// -- store engine -------------------------------------------------------------------------------------------

Wait StoreEngine::waits(uint64_t now) const {
    if (state_ == State::kTable) return data_port_->valid(now) ? Wait::kWork : Wait::kSource;
    if (state_ == State::kIds) return Wait::kSource;
    if (state_ != State::kRun) return Wait::kDecode;
    if (bytes_ && byte_state_ == Bytes::kQuantize) return Wait::kPipeline;
    const bool holds = bytes_ && byte_state_ != Bytes::kCollect;
    if (holds || data_port_->valid(now)) return out_->data_ready(now) ? Wait::kWork : Wait::kWrite;
    if (src_.valid || ids_ != Ids::kIdle || pending_ != 0) return Wait::kSource;
    return dst_.valid ? Wait::kWrite : Wait::kAcknowledge;
}

// -- queues, front end --------------------------------------------------------------------------------------

Wait EngineQueue::waits(uint64_t now) const {
    if (running_) return engine_->waits(now);
    if (!entries_.valid(now)) return Wait::kNothing;
    return entries_.front().kind == Entry::kWait ? Wait::kSemaphore : Wait::kHandOver;
}

Wait FrontEnd::waits() const {
    switch (state_) {
        case State::kOff:
            return Wait::kOff;
        case State::kRead:
        case State::kReading:
            return Wait::kFetch;
        case State::kPush:
            return Wait::kFull;
        case State::kDrain:
            return Wait::kFence;
        case State::kLoad:
        case State::kLoading:
            return Wait::kLoad;
        default:
            return Wait::kControl;
    }
}

}  // namespace dlavm::timed
