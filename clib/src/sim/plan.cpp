// Field checks and access lists of the commands.
#include <algorithm>

#include "sim/fault.h"
#include "sim/machine.h"
#include "sim/rows.h"

namespace dlavm::sim {

namespace {

using isa::Engine;
using isa::Error;
using isa::WeightFormat;

[[noreturn]] void bad_field(const char* field, const char* expected, uint64_t got) {
    throw Fault{Error::kFieldRange, format("field %s: expected %s, got %llu", field, expected,
                                           static_cast<unsigned long long>(got))};
}

void check_buffer(const char* what, uint64_t rows, uint64_t length, uint64_t limit) {
    if (rows * length > limit) {
        throw Fault{
            Error::kBuffer,
            format("%llu rows of %llu %s exceed the buffer of %llu", static_cast<unsigned long long>(rows),
                   static_cast<unsigned long long>(length), what, static_cast<unsigned long long>(limit))};
    }
}

void check_index(const char* field, uint64_t at, uint32_t index, uint32_t limit) {
    if (index >= limit) {
        throw Fault{Error::kGatherIndex, format("field %s: element %llu: expected an index below %u, got %u",
                                                field, static_cast<unsigned long long>(at), limit, index)};
    }
}

// Source and destination of the vector engine, rows of `dim` fp16.
template <class Command>
bool plan_rows(const Command& c, Engine engine, AccessList& list) {
    if (c.rows_o == 0 || c.rows_i == 0 || c.dim == 0) return false;
    list.rows(engine, false, "src", src_rows(c), uint64_t{2} * c.dim);
    list.rows(engine, true, "dst", dst_rows(c), uint64_t{2} * c.dim);
    return true;
}

void plan_weights(const isa::Linear& c, const formats::Format& form, const Memory& memory, AccessList& list) {
    const Space* s = memory.find(in_bytes(c.wgt), 1);
    if (s == nullptr) {
        throw Fault{Error::kBadAddress, format("field wgt: 0x%llx is outside every memory space",
                                               static_cast<unsigned long long>(in_bytes(c.wgt)))};
    }
    const uint64_t row = s->beat_row();
    if ((in_bytes(c.wgt) - s->base) % row != 0) bad_field("wgt", "one beat of every channel", c.wgt);
    if (in_bytes(c.wgt_tile) % row != 0)
        bad_field("wgt_tile", "a multiple of one beat of every channel", c.wgt_tile);
    if (c.batch > 1 && in_bytes(c.wgt_b) % row != 0) {
        bad_field("wgt_b", "a multiple of one beat of every channel", c.wgt_b);
    }
    const TileLayout layout = tile_layout(*s, form, c.k, c.n);
    for (uint64_t b = 0; b < c.batch; ++b) {
        const uint64_t begin = in_bytes(c.wgt) + b * in_bytes(c.wgt_b);
        const uint64_t bytes = (layout.tiles - 1) * in_bytes(c.wgt_tile) + layout.tile_bytes;
        list.range(Engine::kLoad, false, "wgt", begin, bytes, layout.tiles * layout.tile_bytes);
        if (memory.find(begin, bytes) != s)
            throw Fault{Error::kBadAddress, "field wgt_b: batches lie in several memory spaces"};
    }
}

void plan_cache(const isa::Linear& c, AccessList& list) {
    const uint64_t blocks = divide_up(cache_tokens(c), kBlock), units = divide_up(cache_dim(c), kBlock);
    const uint64_t stride = in_bytes(c.wgt_tile);
    const uint64_t unit = cache_layout(c).unit_bytes(), bytes = (blocks - 1) * stride + units * unit;
    for (uint64_t b = 0; b < c.batch; ++b) {
        list.range(Engine::kLoad, false, "wgt", in_bytes(c.wgt) + b * in_bytes(c.wgt_b), bytes,
                   blocks * units * unit);
    }
}

}  // namespace

void Machine::check_slot(uint32_t slot) const {
    if (slot >= config_.act_slots) bad_field("act_slot", "a slot that exists", slot);
}

void Machine::check_linear(const isa::Linear& c) const {
    if (c.k == 0) bad_field("k", "at least 1", c.k);
    const bool tiles = packed_format(c.format) != nullptr && c.batch == 1;
    if (c.acc_in && !tiles) bad_field("acc_in", "packed weights and batch 1", c.batch);
    if (c.acc_out && !tiles) bad_field("acc_out", "packed weights and batch 1", c.batch);
    if (c.aux_mode != isa::AuxMode::kNone && c.batch != 1) bad_field("batch", "1 with aux", c.batch);
    if (c.use_act) check_slot(c.act_slot);
    const uint64_t rows = static_cast<uint64_t>(c.rows_o) * c.rows_i;
    if (is_values(c)) {
        check_buffer("accumulators", rows, divide_up(c.n, kBlock) * kBlock, config_.accumulators);
    } else {
        check_buffer("activations", rows, divide_up(c.k, kBlock) * kBlock, config_.activation_elements);
    }
    if (c.acc_in || c.acc_out) check_buffer("accumulators", rows, c.n, config_.accumulators);
    if (c.acc_in && (acc_rows_ != rows || acc_n_ != c.n))
        bad_field("acc_in", "accumulators of the same rows and n", c.n);
}

bool Machine::plan(const isa::Linear& c, AccessList& list) const {
    const auto number = static_cast<uint32_t>(c.format);
    if ((config_.weight_formats >> number & 1) == 0) bad_field("format", "one that the target has", number);
    if (c.rows_o == 0 || c.rows_i == 0 || c.batch == 0 || c.n == 0) return false;
    check_linear(c);
    if (const formats::Format* form = packed_format(c.format); form != nullptr) {
        plan_weights(c, *form, memory, list);
    } else {
        plan_cache(c, list);
    }
    list.rows(Engine::kMatrix, false, "src", src_batches(c), uint64_t{2} * c.k);
    if (!c.acc_out) plan_epilogue(c, list);
    return true;
}

void Machine::plan_epilogue(const isa::Linear& c, AccessList& list) const {
    const uint64_t rows = static_cast<uint64_t>(c.batch) * c.rows_o * c.rows_i;
    if (c.use_row_scale) list.range(Engine::kMatrix, false, "row_scale", in_bytes(c.row_scale), 4 * rows);
    if (c.use_bias) list.range(Engine::kMatrix, false, "bias", in_bytes(c.bias), uint64_t{2} * c.n);
    if (c.aux_mode != isa::AuxMode::kNone) {
        list.rows(Engine::kMatrix, false, "aux", aux_rows(c), uint64_t{2} * c.n);
    }
    list.rows(Engine::kMatrix, true, "dst", dst_batches(c), uint64_t{2} * c.n);
}

bool Machine::plan(const isa::Norm& c, AccessList& list) const {
    if (!plan_rows(c, Engine::kVector, list)) return false;
    list.range(Engine::kVector, false, "gamma", in_bytes(c.gamma), uint64_t{2} * c.dim);
    if (c.use_beta) list.range(Engine::kVector, false, "beta", in_bytes(c.beta), uint64_t{2} * c.dim);
    return true;
}

bool Machine::plan(const isa::Softmax& c, AccessList& list) const {
    if (c.rows_o == 0 || c.rows_i == 0 || c.batch == 0) return false;
    if (c.visible == 0) bad_field("visible", "at least 1", c.visible);
    if (c.width == 0) bad_field("width", "at least 1", c.width);
    const RowSet src = src_batches(c);
    const auto read = [&](uint64_t o, uint64_t count, uint64_t seen) {
        const uint64_t first = first_visible(c, seen);
        RowSet rows = src;
        rows.base = src.at(0, o, 0) + 2 * first;
        rows.count_o = count;
        list.rows(Engine::kVector, false, "src", rows, 2 * (seen - first));
    };
    const uint64_t growing = std::min<uint64_t>(c.rows_o, c.width > c.visible ? c.width - c.visible : 0);
    for (uint64_t o = 0; o < growing; ++o) read(o, 1, c.visible + o);
    read(growing, src.count_o - growing, c.width);
    if (c.use_slopes) {
        list.range(Engine::kVector, false, "slopes", in_bytes(c.slopes), 4 * src.count_b * src.count_i);
    }
    list.rows(Engine::kVector, true, "dst", dst_batches(c), uint64_t{2} * c.width);
    list.range(Engine::kVector, true, "recip", in_bytes(c.recip), 4 * src.count());
    return true;
}

bool Machine::plan(const isa::Rope& c, AccessList& list) const {
    if (c.rows_o == 0 || c.rows_i == 0 || c.dim == 0) return false;
    if (c.rot % 2 != 0 || c.rot > c.dim) bad_field("rot", "an even number up to dim", c.rot);
    list.rows(Engine::kVector, false, "table", outer_rows(c.table, c.table_so, c.rows_o),
              uint64_t{2} * c.rot);
    return plan_rows(c, Engine::kVector, list);
}

bool Machine::plan(const isa::Act& c, AccessList& list) const {
    if (c.rows_o == 0 || c.rows_i == 0 || c.dim == 0) return false;
    check_slot(c.act_slot);
    return plan_rows(c, Engine::kVector, list);
}

bool Machine::plan(const isa::Eltwise& c, AccessList& list) const {
    if (!plan_rows(c, Engine::kVector, list)) return false;
    if (c.fn != isa::EltwiseFn::kScale)
        list.rows(Engine::kVector, false, "b", second_rows(c), uint64_t{2} * c.dim);
    return true;
}

bool Machine::plan(const isa::Argmax& c, AccessList& list) const {
    if (c.rows_o == 0 || c.n == 0) return false;
    list.rows(Engine::kVector, false, "src", outer_rows(c.src, c.src_so, c.rows_o), uint64_t{2} * c.n);
    list.range(Engine::kVector, true, "dst", in_bytes(c.dst), uint64_t{4} * c.rows_o);
    return true;
}

bool Machine::plan(const isa::Permute& c, AccessList& list) const {
    if (c.rows_o == 0 || c.rows_i == 0 || c.dim == 0) return false;
    list.range(Engine::kVector, false, "index", in_bytes(c.index), uint64_t{4} * c.dim);
    std::vector<uint32_t> index(c.dim);
    memory.read(in_bytes(c.index), index.data(), 4 * index.size());
    for (uint64_t j = 0; j < c.dim; ++j) check_index("index", j, index[j], c.limit);
    list.rows(Engine::kVector, false, "src", src_rows(c), uint64_t{2} * c.limit);
    list.rows(Engine::kVector, true, "dst", dst_rows(c), uint64_t{2} * c.dim);
    return true;
}

bool Machine::plan(const isa::Topk& c, AccessList& list) const {
    if (c.rows_o == 0 || c.n == 0 || c.k == 0) return false;
    if (c.k > c.n) bad_field("k", "at most n", c.k);
    list.rows(Engine::kVector, false, "src", outer_rows(c.src, c.src_so, c.rows_o), uint64_t{2} * c.n);
    const uint64_t bytes = uint64_t{4} * c.rows_o * c.k;
    list.range(Engine::kVector, true, "ids", in_bytes(c.ids), bytes);
    list.range(Engine::kVector, true, "weights", in_bytes(c.weights), bytes);
    return true;
}

bool Machine::plan(const isa::KvAppend& c, AccessList& list) const {
    const auto products =
        static_cast<uint32_t>(c.format == isa::KvFormat::kMxint8 ? WeightFormat::kKvqK : WeightFormat::kKvK);
    if ((config_.weight_formats >> products & 1) == 0) {
        bad_field("format", "one that the target has", static_cast<uint32_t>(c.format));
    }
    if (c.rows_o == 0 || c.rows_i == 0 || c.dim == 0) return false;
    list.rows(Engine::kStore, false, "src",
              {in_bytes(c.src), 0, in_bytes(c.src_so), in_bytes(c.src_si), 1, c.rows_o, c.rows_i},
              uint64_t{2} * c.dim);
    const CacheLayout& cache = cache_layout(c);
    const uint64_t units = divide_up(c.dim, kBlock), last = uint64_t{c.pos} + c.rows_o - 1;
    const auto offset = [&](uint64_t token) {
        return token / kBlock * cache.block_bytes(units) + token % kBlock * cache.row_bytes;
    };
    // From the first token's first row to the end of what is written last in the last token's block.
    const uint64_t first_byte = offset(c.pos), tail = c.dim - (units - 1) * kBlock;
    const uint64_t end = cache.exponent_bytes != 0
                             ? last / kBlock * cache.block_bytes(units) + units * cache.rows_bytes() +
                                   (units - 1) * kBlock + last % kBlock + 1
                             : offset(last) + (units - 1) * cache.unit_bytes() + 2 * tail;
    const uint64_t written = cache.exponent_bytes != 0 ? units * (kBlock + 1) : uint64_t{2} * c.dim;
    for (uint64_t i = 0; i < c.rows_i; ++i) {
        list.range(Engine::kStore, true, "cache", in_bytes(c.cache) + i * in_bytes(c.cache_head) + first_byte,
                   end - first_byte, written * c.rows_o);
    }
    return true;
}

bool Machine::plan(const isa::Gather& c, AccessList& list) const {
    if (c.rows_o == 0 || c.dim == 0) return false;
    list.range(Engine::kStore, false, "ids", in_bytes(c.ids), uint64_t{4} * c.rows_o);
    list.rows(Engine::kStore, true, "dst", outer_rows(c.dst, c.dst_so, c.rows_o), uint64_t{2} * c.dim);
    for (uint64_t row = 0; row < c.rows_o; ++row) {
        uint32_t id;
        memory.read(in_bytes(c.ids) + 4 * row, &id, sizeof id);
        check_index("ids", row, id, c.limit);
        list.range(Engine::kStore, false, "table", in_bytes(c.table) + id * in_bytes(c.table_so),
                   uint64_t{2} * c.dim);
    }
    return true;
}

bool Machine::plan(const isa::Copy& c, AccessList& list) const { return plan_rows(c, Engine::kStore, list); }

bool Machine::plan(const isa::LoadTable& c, AccessList& list) const {
    check_slot(c.act_slot);
    list.range(Engine::kStore, false, "table", in_bytes(c.table), kSegments * sizeof(Segment));
    return true;
}

}  // namespace dlavm::sim
