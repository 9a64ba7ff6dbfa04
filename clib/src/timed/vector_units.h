// What the sequencer of the vector engine feeds: vector_loader.sv, vector_issue.sv, the latencies of
// vector_lanes.sv, vector_storer.sv and vector_permute.sv.
#pragma once

#include <array>

#include "timed/ports.h"
#include "timed/vector_program.h"
#include "timed/wait.h"

namespace dlavm::timed {

struct VectorLoad {
    uint64_t address = 0;  // in halves
    uint32_t count = 0;
    bool last = false;  // of its strip
};

struct VectorWork {
    uint32_t start = 0;  // first step
    bool tree = false, loads = false, drain = false, first = false;
    uint32_t group = 0;  // log2 of the rows
    uint32_t count = 0;  // elements of a row
};

struct VectorWrite {
    bool word = false;  // 32 bits instead of elements
    uint64_t address = 0;
    uint32_t count = 0;
};

class VectorUnits {
  public:
    VectorUnits(const Shape& shape, ReadPort& in, WritePort& out);

    Fifo<VectorLoad, 8> loads;
    Fifo<VectorWork, 4> works;
    Fifo<VectorWrite, 4 * vector::kGroup> writes;

    // PERMUTE: a strip's indices, and its elements unless it is only a check. Taken at the end of the cycle.
    bool permute_ready() const { return permute_ == Permute::kIdle; }
    void permute(bool check, uint64_t index_unit, uint64_t src_unit, const uint32_t* indices, uint32_t count);

    bool lanes_idle(Clock& clock) const;
    bool storer_idle(uint64_t now) const { return !writes.valid(now) && !beat_; }
    void step(Clock& clock, bool permute_job);
    Wait waits(uint64_t now, bool permute_job) const;

  private:
    enum class Permute { kIdle, kAsk, kIndices, kElements };
    struct Flight {
        uint32_t offset = 0, count = 0;
        bool last = false;
    };
    static constexpr int32_t kOuts = 32, kAnswers = 8;  // chunks, words on their way to memory

    void step_loader(Clock& clock, bool bank_full);
    void load_words(Clock& clock, bool bank_full);
    void step_issue(Clock& clock, bool strip_ready);
    uint32_t slot(const VectorWork& work) const;
    bool fresh(const VectorWork& work) const;
    uint64_t gap(const VectorWork& work, const vector::Step& step, uint32_t columns) const;
    vector::Step next_step(const VectorWork& work, uint32_t& columns) const;
    uint64_t issue_from(const VectorWork& work, const vector::Step& step, uint32_t columns,
                        uint64_t from) const;
    void issued(uint64_t now, uint64_t cycle, const VectorWork& work, const vector::Step& step,
                uint32_t last);
    void step_lanes(Clock& clock);
    void step_storer(Clock& clock);
    void step_permute(Clock& clock);
    void permute_elements(Clock& clock);
    bool permute_take(Clock& clock);

    const Shape* shape_;
    ReadPort* in_;
    WritePort* out_;

    // loader
    Fifo<Flight, 16> flights_;
    uint32_t word_ = 0, words_taken_ = 0;
    bool full_[2] = {}, strip_loaded_ = false, strip_done_ = false;
    uint32_t load_bank_ = 0, work_bank_ = 0;

    // issue
    bool begun_ = false;
    uint32_t step_at_ = 0, level_ = 0, chunk_ = 0;
    int64_t last_issue_ = -1000;
    uint64_t issue_at_ = 0;                       // nothing is issued before
    std::array<int64_t, vector::kStrip> summed_;  // when something was last added to an accumulator

    // lanes, and what comes out of them
    Pipeline<64> outs_made_, words_made_;
    Count outs_, answers_;        // in their queues
    Count outs_due_, words_due_;  // issued and not stored

    // storer
    bool asked_ = false, beat_ = false;
    uint32_t stored_ = 0, store_word_ = 0;

    // permute
    struct PermuteJob {
        bool check = false;
        uint64_t index_unit = 0, src_unit = 0;
        const uint32_t* indices = nullptr;
        uint32_t count = 0;
    };
    Permute permute_ = Permute::kIdle;
    PermuteJob job_, next_job_;
    bool has_next_job_ = false, chunk_full_ = false;
    uint32_t asked_elements_ = 0, came_ = 0;
    Count places_;
};

}  // namespace dlavm::timed
