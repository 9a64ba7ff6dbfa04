// Commands of the store engine: but for an MXINT8 cache they move bytes unchanged.
#include <algorithm>

#include "sim/machine.h"
#include "sim/rows.h"

namespace dlavm::sim {

namespace {

enum : unsigned { kRow, kQuantized };

}  // namespace

Machine::Machine(const dlavm_config& config)
    : memory(config), kernels(find_kernels("auto")), config_(config) {
    reset();
    set_threads(0);
}

void Machine::reset() {
    accumulators_.clear();
    acc_rows_ = acc_n_ = 0;
    for (auto& table : tables_) table.assign(kSegments, Segment{0.0f, 0.0f});
}

void Machine::set_threads(unsigned threads) {
    pool.resize(threads);
    scratch_ = std::vector<Scratch>(pool.size());
}

void Machine::run(const isa::KvAppend& c) {
    const RowSet src = {in_bytes(c.src), 0, in_bytes(c.src_so), in_bytes(c.src_si), 1, c.rows_o, c.rows_i};
    const uint64_t units = divide_up(c.dim, kBlock), block_bytes = cache_layout(c).block_bytes(units);
    uint16_t* row = scratch_[0].get<uint16_t>(kRow, c.dim);
    for (uint64_t o = 0; o < c.rows_o && !stop; ++o) {
        const uint64_t token = c.pos + o;
        for (uint64_t i = 0; i < c.rows_i; ++i) {
            memory.read(src.at(0, o, i), row, uint64_t{2} * c.dim);
            const uint64_t block =
                in_bytes(c.cache) + i * in_bytes(c.cache_head) + token / kBlock * block_bytes;
            if (c.format == isa::KvFormat::kMxint8) {
                append_bytes(c, row, block, token % kBlock);
            } else {
                append_halves(c, row, block, token % kBlock);
            }
        }
    }
}

void Machine::append_halves(const isa::KvAppend& c, const uint16_t* row, uint64_t block, uint64_t slot) {
    for (uint64_t k = 0; k < c.dim; k += kBlock, block += kHalfCache.unit_bytes()) {
        memory.write(block + slot * kHalfCache.row_bytes, row + k, 2 * std::min<uint64_t>(kBlock, c.dim - k));
    }
}

void Machine::append_bytes(const isa::KvAppend& c, const uint16_t* row, uint64_t block, uint64_t slot) {
    const uint64_t units = divide_up(c.dim, kBlock);
    MantissaBlock* quantized = scratch_[0].get<MantissaBlock>(kQuantized, units);
    kernels->quantize(row, c.dim, kStoredBits, quantized);
    for (uint64_t u = 0; u < units; ++u) {
        int8_t mantissas[kBlock];
        for (uint32_t k = 0; k < kBlock; ++k) mantissas[k] = static_cast<int8_t>(quantized[u].mantissa[k]);
        const uint8_t exponent = stored_exponent(quantized[u].scale);
        memory.write(block + u * kByteCache.rows_bytes() + slot * kBlock, mantissas, kBlock);
        memory.write(block + units * kByteCache.rows_bytes() + u * kBlock + slot, &exponent, 1);
    }
}

void Machine::run(const isa::Gather& c) {
    const RowSet dst = outer_rows(c.dst, c.dst_so, c.rows_o);
    const uint64_t bytes = uint64_t{2} * c.dim;
    std::vector<uint32_t> ids(c.rows_o);
    memory.read(in_bytes(c.ids), ids.data(), 4 * ids.size());
    uint16_t* row = scratch_[0].get<uint16_t>(kRow, c.dim);
    for (uint64_t o = 0; o < c.rows_o && !stop; ++o) {
        memory.read(in_bytes(c.table) + ids[o] * in_bytes(c.table_so), row, bytes);
        memory.write(dst.at(0, o, 0), row, bytes);
    }
}

void Machine::run(const isa::Copy& c) {
    const RowSet src = src_rows(c), dst = dst_rows(c);
    const uint64_t bytes = uint64_t{2} * c.dim;
    for_rows(dst, bytes, c.dim / 8 + 20, [&](uint64_t, uint64_t o, uint64_t i, Scratch& scratch) {
        uint16_t* row = scratch.get<uint16_t>(kRow, c.dim);
        memory.read(src.at(0, o, i), row, bytes);
        memory.write(dst.at(0, o, i), row, bytes);
    });
}

void Machine::run(const isa::LoadTable& c) {
    std::vector<uint32_t> bits(kSegments * 2);
    memory.read(in_bytes(c.table), bits.data(), 4 * bits.size());
    std::vector<Segment>& table = tables_[c.act_slot];
    for (size_t i = 0; i < kSegments; ++i) table[i] = {read_float(bits[2 * i]), read_float(bits[2 * i + 1])};
}

}  // namespace dlavm::sim
