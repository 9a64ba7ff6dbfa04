// vector_engine.sv: the sequencer (vector_sequencer.sv, vector_rows.sv) and what it feeds (vector_units.h).
#pragma once

#include "timed/ports.h"
#include "timed/queues.h"
#include "timed/vector_program.h"
#include "timed/vector_units.h"

namespace dlavm::timed {

// vector_decode.sv: a command's fields under names that all commands share. Addresses and strides count
// units.
struct VectorJob {
    uint32_t row = 0;
    uint32_t group = 0;    // log2 of the rows that are worked on in turns
    bool stagger = false;  // an inner row sees one position more than the one before
    bool permute = false;
    uint32_t batch = 1, rows_o = 1, rows_i = 1, dim = 0;
    uint64_t src = 0, src_b = 0, src_so = 0, src_si = 0, dst = 0, dst_b = 0, dst_so = 0, dst_si = 0;
    uint64_t other = 0, other_so = 0, other_si = 0, vector0 = 0, vector1 = 0, first = 0, second = 0;
    uint32_t rot = 0, visible = 0, window = 0, k = 0;
};

VectorJob vector_job(const Command& command, uint32_t lanes);

// vector_rows.sv: groups of inner rows.
class VectorRows {
  public:
    void start(const VectorJob& job);
    void next(const VectorJob& job);
    bool last(const VectorJob& job) const;
    uint32_t group(const VectorJob& job) const;               // log2 of its rows
    uint64_t at(uint32_t which) const { return at_[which]; }  // src, dst, other
    uint32_t slope() const { return slope_; }
    uint32_t seen(const VectorJob& job) const;
    uint32_t first(const VectorJob& job) const;  // the first visible position

  private:
    uint64_t at_[3] = {}, outer_[3] = {}, batch_[3] = {};
    uint32_t inner_count_ = 0, outer_count_ = 0, batch_count_ = 0, slope_ = 0, batch_slope_ = 0, visible_ = 0;
};

class VectorEngine final : public Engine {
  public:
    VectorEngine(const Shape& shape, ReadPort& in, WritePort& out);

    bool ready(uint64_t /*now*/) const override { return state_ == State::kIdle; }
    void begin(Clock& clock, const Command& command) override;
    Wait waits(uint64_t now) const override;
    void step(Clock& clock) {
        if (state_ != State::kIdle) step_busy(clock);
    }

  private:
    void step_busy(Clock& clock);
    enum class State { kIdle, kCheck, kChecked, kBegin, kStrips, kNext, kFinish };

    bool idle(uint64_t now) const;
    void step_sequencer(Clock& clock);
    void begin_phase();
    void step_strips(Clock& clock);
    void next_strip(uint32_t count);
    void range(const vector::Phase& phase, uint32_t& from, uint32_t& to) const;
    VectorLoad load(uint32_t stream, uint32_t count) const;
    VectorWrite write(uint32_t count) const;
    bool stream_done(uint32_t stream) const;
    uint32_t share() const;  // elements of a row in a strip
    uint32_t count() const;

    const Shape* shape_;
    WritePort* out_;
    VectorUnits units_;
    State state_ = State::kIdle;
    VectorJob job_;
    VectorRows rows_;
    std::vector<uint32_t> indices_;
    uint32_t phase_ = 0, rank_ = 0, at_ = 0, end_ = 0, used_ = 0, loads_ = 0, writes_ = 0, idle_count_ = 0;
    uint32_t group_ = 0, load_row_ = 0, write_row_ = 0;
    bool work_ = false, first_ = false;
    uint64_t first_word_ = 0, second_word_ = 0;  // in halves
};

}  // namespace dlavm::timed
