// State of the engines, and what each command does with it. A command is planned first: its fields are
// checked and its accesses listed; then, if the core lets it pass, it runs. Nothing is written while
// planning.
#pragma once

#include <atomic>
#include <vector>

#include "dlavm_formats.h"
#include "dlavm_isa.h"
#include "sim/access.h"
#include "sim/kernels.h"
#include "sim/memory.h"
#include "sim/pool.h"

namespace dlavm::sim {

// Memory of one thread that grows to the largest use and is used again.
class Scratch {
  public:
    template <class T>
    T* get(unsigned slot, size_t count) {
        std::vector<uint64_t>& v = slots_[slot];
        const size_t words = (count * sizeof(T) + 7) / 8;
        if (v.size() < words) v.resize(words);
        return reinterpret_cast<T*>(v.data());
    }

  private:
    std::vector<uint64_t> slots_[8];
};

class Machine {
  public:
    explicit Machine(const dlavm_config& config);

    void reset();                        // everything but memory
    void set_threads(unsigned threads);  // 0: one per processor

    // False: the command has nothing to do. Throws Fault.
    bool plan(const isa::Linear& c, AccessList& list) const;
    bool plan(const isa::Norm& c, AccessList& list) const;
    bool plan(const isa::Softmax& c, AccessList& list) const;
    bool plan(const isa::Rope& c, AccessList& list) const;
    bool plan(const isa::Act& c, AccessList& list) const;
    bool plan(const isa::Eltwise& c, AccessList& list) const;
    bool plan(const isa::Argmax& c, AccessList& list) const;
    bool plan(const isa::Permute& c, AccessList& list) const;
    bool plan(const isa::Topk& c, AccessList& list) const;
    bool plan(const isa::KvAppend& c, AccessList& list) const;
    bool plan(const isa::Gather& c, AccessList& list) const;
    bool plan(const isa::Copy& c, AccessList& list) const;
    bool plan(const isa::LoadTable& c, AccessList& list) const;

    void run(const isa::Linear& c);
    void run(const isa::Norm& c);
    void run(const isa::Softmax& c);
    void run(const isa::Rope& c);
    void run(const isa::Act& c);
    void run(const isa::Eltwise& c);
    void run(const isa::Argmax& c);
    void run(const isa::Permute& c);
    void run(const isa::Topk& c);
    void run(const isa::KvAppend& c);
    void run(const isa::Gather& c);
    void run(const isa::Copy& c);
    void run(const isa::LoadTable& c);

    // Behind a command, whether it was run or only planned: the shape of the accumulators that it leaves.
    void ended(const isa::Linear& c);
    template <class Command>
    void ended(const Command&) {}

    Memory memory;
    Pool pool;
    const Kernels* kernels;
    std::atomic<bool> stop{false};  // set from another thread: commands of many rows give up

  private:
    struct TileItems;

    static TileItems tile_items(const isa::Linear& c, const formats::Format& form, const Space& space,
                                uint64_t tokens, unsigned threads);
    void plan_epilogue(const isa::Linear& c, AccessList& list) const;
    void check_linear(const isa::Linear& c) const;
    void check_slot(uint32_t slot) const;
    void linear_packed(const isa::Linear& c, const formats::Format& form, uint64_t batch);
    void quantize_rows(const isa::Linear& c, const formats::Format& form, uint64_t batch);
    void packed_item(const isa::Linear& c, const formats::Format& form, uint64_t batch, const Space& space,
                     const TileItems& items, uint64_t item, Scratch& scratch);
    void linear_keys(const isa::Linear& c);
    void linear_values(const isa::Linear& c);
    // One row into its block of the cache.
    void append_halves(const isa::KvAppend& c, const uint16_t* row, uint64_t block, uint64_t slot);
    void append_bytes(const isa::KvAppend& c, const uint16_t* row, uint64_t block, uint64_t slot);
    void quantize_queries(const isa::Linear& c, uint64_t batch, MantissaBlock* out, Scratch& scratch) const;
    // Epilogue and store of some columns of all rows of a batch; acc is [rows][pitch].
    void finish(const isa::Linear& c, uint64_t batch, uint64_t column, uint32_t columns, uint32_t pitch,
                float* acc, Scratch& scratch);

    // Calls body(b, o, i, scratch) for every row; in order on one thread where destination rows overlap.
    template <class Body>
    void for_rows(const RowSet& dst, uint64_t bytes, size_t cost, Body body) {
        const uint64_t per_batch = dst.count_o * dst.count_i;
        const auto range = [&](size_t begin, size_t end, unsigned worker) {
            uint64_t b = begin / per_batch, o = begin % per_batch / dst.count_i, i = begin % dst.count_i;
            for (size_t row = begin; row < end && !stop.load(std::memory_order_relaxed); ++row) {
                body(b, o, i, scratch_[worker]);
                if (++i < dst.count_i) continue;
                i = 0;
                if (++o < dst.count_o) continue;
                o = 0;
                ++b;
            }
        };
        if (dst.overlaps_itself(bytes)) {
            range(0, dst.count(), 0);
        } else {
            pool.run(dst.count(), cost, range);
        }
    }

    dlavm_config config_;
    std::vector<Scratch> scratch_;     // one per thread
    std::vector<float> accumulators_;  // [acc_rows_][acc_n_], left by the last K tile
    uint64_t acc_rows_ = 0, acc_n_ = 0;
    std::vector<Segment> tables_[4];
    std::vector<ActBlock> acts_;
    std::vector<WideBlock> wide_acts_;
};

}  // namespace dlavm::sim
