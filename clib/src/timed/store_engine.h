// store_engine.sv with store_walker.sv, row_mover.sv, gather_ids.sv and kv_quantize.sv.
#pragma once

#include "timed/ports.h"
#include "timed/queues.h"

namespace dlavm::timed {

// store_walker.sv: row (o, i) stands at base + o * so + i * si.
struct StoreWalker {
    uint64_t outer = 0, inner = 0, si = 0;
    uint32_t left_o = 0, left_i = 0, rows_i = 0;
    bool valid = false;

    void start(uint64_t base, uint64_t step, uint32_t rows_o, uint32_t inner_rows);
    bool outer_ends() const { return left_i == 1; }
    void next(uint64_t so);
};

class StoreEngine final : public Engine {
  public:
    StoreEngine(const Shape& shape, ReadPort& ids, ReadPort& data, WritePort& out);

    bool ready(uint64_t /*now*/) const override { return state_ == State::kIdle; }
    void begin(Clock& clock, const Command& command) override;
    Wait waits(uint64_t now) const override;
    void step(Clock& clock) {
        if (state_ != State::kIdle) step_busy(clock);
    }

  private:
    void step_busy(Clock& clock);
    enum class State { kIdle, kChoose, kIds, kSetup, kBegin, kRun, kTable };
    enum class Ids { kIdle, kAsk, kRead, kMultiply, kAdd, kGive };
    enum class Bytes { kCollect, kQuantize, kMantissas, kExponent };

    void decode();
    void begin_rows();
    void finish(Clock& clock);
    void step_ids(Clock& clock, bool give);
    void step_table(Clock& clock);
    void step_run(Clock& clock);
    bool ask_writes(Clock& clock);
    bool move(Clock& clock);
    bool step_bytes(Clock& clock, bool piece, bool last);
    uint32_t request_units() const;
    uint64_t request_address() const;

    const Shape* shape_;
    ReadPort *ids_port_, *data_port_;
    WritePort* out_;
    State state_ = State::kIdle;
    Command command_;

    // the command's fields, in bytes
    bool gather_ = false, append_ = false, table_ = false, bytes_ = false;
    uint64_t src_base_ = 0, src_so_ = 0, src_si_ = 0, dst_base_ = 0, dst_so_ = 0, dst_si_ = 0;
    uint64_t table_base_ = 0, table_so_ = 0;
    uint32_t rows_o_ = 0, rows_i_ = 0, row_bytes_ = 0, blocks_ = 0;
    uint64_t block_bytes_ = 0;

    StoreWalker src_, dst_;
    int32_t pending_ = 0;  // rows asked to be written whose data has not passed
    bool asked_table_ = false;
    uint32_t pair_ = 0;

    // writes of KV_APPEND
    uint32_t slot_ = 0, blocks_left_ = 0;
    bool in_row_ = false, exponent_ = false;
    uint64_t block_address_ = 0;

    // gather_ids
    Ids ids_ = Ids::kIdle;
    uint32_t ids_left_ = 0, ids_place_ = 0, id_ = 0;

    // row_mover
    bool moving_ = false;  // inside a row
    uint32_t row_left_ = 0, piece_place_ = 0;

    // kv_quantize
    Bytes byte_state_ = Bytes::kCollect;
    uint32_t byte_place_ = 0, byte_beats_ = 0;
    bool byte_last_ = false;
    uint64_t quantized_ = 0;
};

}  // namespace dlavm::timed
