// LINEAR with the KV cache as its weights.
#include <algorithm>
#include <cstring>

#include "sim/machine.h"
#include "sim/rows.h"

namespace dlavm::sim {

namespace {

enum : unsigned {
    kAcc,
    kRow,
    kQueries,
    kUnits,
    kWeights,
    kRowScale
};  // kRowScale is also used by Machine::finish

constexpr uint64_t kNone = ~uint64_t{0};

int mantissa_bits(const isa::Linear& c) { return c.act_bits == isa::ActBits::kB8 ? 8 : 12; }

}  // namespace

void Machine::quantize_queries(const isa::Linear& c, uint64_t batch, MantissaBlock* out,
                               Scratch& scratch) const {
    const RowSet src = src_batches(c);
    const uint64_t blocks = divide_up(c.k, kBlock), rows = static_cast<uint64_t>(c.rows_o) * c.rows_i;
    uint16_t* row = scratch.get<uint16_t>(kRow, c.k);
    for (uint64_t r = 0; r < rows; ++r) {
        memory.read(src.at(batch, r / c.rows_i, r % c.rows_i), row, uint64_t{2} * c.k);
        kernels->quantize(row, c.k, mantissa_bits(c), out + r * blocks);
    }
}

// An item is a block of 32 tokens of one head; a thread quantises the queries of a head once.
void Machine::linear_keys(const isa::Linear& c) {
    const uint64_t token_blocks = divide_up(c.n, kBlock), units = divide_up(c.k, kBlock);
    const uint32_t rows = c.rows_o * c.rows_i;
    const CacheLayout& cache = cache_layout(c);
    const auto body = [&](size_t begin, size_t end, unsigned worker) {
        Scratch& scratch = scratch_[worker];
        float* acc = scratch.get<float>(kAcc, size_t{rows} * kBlock);
        MantissaBlock* queries = scratch.get<MantissaBlock>(kQueries, rows * units);
        uint8_t* keys = scratch.get<uint8_t>(kUnits, units * cache.unit_bytes());
        const uint8_t* exponents = cache.exponent_bytes != 0 ? keys + units * cache.rows_bytes() : nullptr;
        uint64_t prepared = kNone;
        for (size_t item = begin; item < end && !stop.load(std::memory_order_relaxed); ++item) {
            const uint64_t batch = item / token_blocks, block = item % token_blocks;
            if (prepared != batch) quantize_queries(c, batch, queries, scratch);
            prepared = batch;
            memory.read(in_bytes(c.wgt) + batch * in_bytes(c.wgt_b) + block * in_bytes(c.wgt_tile), keys,
                        units * cache.unit_bytes());
            std::memset(acc, 0, size_t{rows} * kBlock * sizeof(float));
            kernels->scores({{keys, exponents}, c.k, rows, queries, acc});
            const uint64_t column = block * kBlock;
            finish(c, batch, column, static_cast<uint32_t>(std::min<uint64_t>(kBlock, c.n - column)), kBlock,
                   acc, scratch);
        }
    };
    const uint64_t items = c.batch * token_blocks;
    if (dst_batches(c).overlaps_itself(uint64_t{2} * c.n)) {
        body(0, items, 0);
    } else {
        pool.run(items, units * (600 + rows * 40), body);
    }
}

// An item is 32 columns of one head: the token blocks follow each other in the accumulator.
void Machine::linear_values(const isa::Linear& c) {
    const uint64_t token_blocks = divide_up(c.k, kBlock), units = divide_up(c.n, kBlock);
    const uint32_t rows = c.rows_o * c.rows_i;
    const RowSet src = src_batches(c);
    const CacheLayout& layout = cache_layout(c);
    const auto body = [&](size_t begin, size_t end, unsigned worker) {
        Scratch& scratch = scratch_[worker];
        float* acc = scratch.get<float>(kAcc, size_t{rows} * kBlock);
        uint8_t* values = scratch.get<uint8_t>(kUnits, layout.unit_bytes());
        uint8_t* exponents = layout.exponent_bytes != 0 ? values + layout.rows_bytes() : nullptr;
        uint16_t* weights = scratch.get<uint16_t>(kWeights, size_t{rows} * kBlock);
        for (size_t item = begin; item < end; ++item) {
            const uint64_t batch = item / units, unit = item % units, column = unit * kBlock;
            const uint32_t columns = static_cast<uint32_t>(std::min<uint64_t>(kBlock, c.n - column));
            const uint64_t cache = in_bytes(c.wgt) + batch * in_bytes(c.wgt_b);
            std::memset(acc, 0, size_t{rows} * kBlock * sizeof(float));
            for (uint64_t block = 0; block < token_blocks && !stop.load(std::memory_order_relaxed); ++block) {
                const uint64_t first = cache + block * in_bytes(c.wgt_tile);
                memory.read(first + unit * layout.rows_bytes(), values, layout.rows_bytes());
                if (exponents != nullptr) {
                    memory.read(first + units * layout.rows_bytes() + unit * kBlock, exponents, kBlock);
                }
                const uint64_t token = block * kBlock, tokens = std::min<uint64_t>(kBlock, c.k - token);
                if (tokens < kBlock) std::memset(weights, 0, size_t{rows} * kBlock * 2);
                for (uint64_t r = 0; r < rows; ++r) {
                    memory.read(src.at(batch, r / c.rows_i, r % c.rows_i) + 2 * token, weights + r * kBlock,
                                2 * tokens);
                }
                kernels->values({{values, exponents}, columns, rows, weights, mantissa_bits(c), acc});
            }
            finish(c, batch, column, columns, kBlock, acc, scratch);
        }
    };
    const uint64_t items = c.batch * units;
    if (dst_batches(c).overlaps_itself(uint64_t{2} * c.n)) {
        body(0, items, 0);
    } else {
        pool.run(items, token_blocks * (600 + rows * 60), body);
    }
}

}  // namespace dlavm::sim
