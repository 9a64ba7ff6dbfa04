// LINEAR with packed weights, and the epilogue that all weight formats share.
#include <algorithm>
#include <cstring>

#include "sim/machine.h"
#include "sim/rows.h"

namespace dlavm::sim {

namespace {

// Slots of a thread's scratch memory.
enum : unsigned { kAcc, kRow, kAuxRow, kOutRow, kBias, kRowScale };

constexpr uint64_t kMaxColumns = 512;  // of one item: port_bytes <= 1024

// Columns of an item: neighbouring channels share the activations. Few where there are many tokens, so that
// the accumulators stay in the first-level cache.
constexpr uint64_t kColumns = 32, kLoneColumns = 64;
constexpr uint64_t kItemsPerThread = 4;  // fewer leave threads without work at the end

}  // namespace

// How a product is shared out: neighbouring channels of one tile.
struct Machine::TileItems {
    TileLayout layout;
    uint64_t channels, groups;  // of an item, of a tile

    uint64_t count() const { return layout.tiles * groups; }
};

Machine::TileItems Machine::tile_items(const isa::Linear& c, const formats::Format& form, const Space& space,
                                       uint64_t tokens, unsigned threads) {
    const TileLayout layout = tile_layout(space, form, c.k, c.n);
    const uint64_t wanted = (tokens == 1 ? kLoneColumns : kColumns) / layout.rows;
    uint64_t channels = std::min<uint64_t>(std::max<uint64_t>(wanted, 1), space.channels);
    while (channels > 1 && divide_up(c.n, layout.rows * channels) < kItemsPerThread * threads) channels /= 2;
    return {layout, channels, divide_up(space.channels, channels)};
}

void Machine::run(const isa::Linear& c) {
    if (is_keys(c)) return linear_keys(c);
    if (is_values(c)) return linear_values(c);
    const formats::Format& form = *packed_format(c.format);
    for (uint64_t b = 0; b < c.batch && !stop; ++b) linear_packed(c, form, b);
}

// The activations of a batch as blocks, [block][token], in the form that the kernel of the format takes.
void Machine::quantize_rows(const isa::Linear& c, const formats::Format& form, uint64_t batch) {
    const RowSet src = src_batches(c);
    const uint64_t tokens = static_cast<uint64_t>(c.rows_o) * c.rows_i, blocks = divide_up(c.k, kBlock);
    const bool int4 = form.codes == formats::Codes::kInt4;
    if (int4 && acts_.size() < blocks * tokens) acts_.resize(blocks * tokens);
    if (!int4 && wide_acts_.size() < blocks * tokens) wide_acts_.resize(blocks * tokens);
    const int bits = c.act_bits == isa::ActBits::kB8 ? 8 : 12;
    pool.run(tokens, c.k / 2, [&](size_t begin, size_t end, unsigned worker) {
        uint16_t* row = scratch_[worker].get<uint16_t>(kRow, c.k);
        for (size_t t = begin; t < end; ++t) {
            memory.read(src.at(batch, t / c.rows_i, t % c.rows_i), row, uint64_t{2} * c.k);
            if (int4) {
                kernels->quantize_act(row, c.k, bits, &acts_[t], tokens);
            } else {
                kernels->quantize_wide(row, c.k, bits, &wide_acts_[t], tokens);
            }
        }
    });
}

void Machine::linear_packed(const isa::Linear& c, const formats::Format& form, uint64_t batch) {
    quantize_rows(c, form, batch);
    const RowSet dst = dst_batches(c);
    const uint64_t tokens = static_cast<uint64_t>(c.rows_o) * c.rows_i;
    if (c.acc_out && !c.acc_in) accumulators_.resize(tokens * c.n);
    const Space& space = *memory.find(in_bytes(c.wgt), 1);
    const TileItems items = tile_items(c, form, space, tokens, pool.size());
    const auto body = [&](size_t begin, size_t end, unsigned worker) {
        for (size_t i = begin; i < end && !stop.load(std::memory_order_relaxed); ++i) {
            packed_item(c, form, batch, space, items, i, scratch_[worker]);
        }
    };
    if (!c.acc_out && dst.overlaps_itself(uint64_t{2} * c.n)) {
        body(0, items.count(), 0);
    } else {
        pool.run(items.count(), 50 + tokens * c.k * items.layout.rows * items.channels / 64, body);
    }
}

void Machine::ended(const isa::Linear& c) {
    if (!c.acc_out) return;
    acc_rows_ = static_cast<uint64_t>(c.rows_o) * c.rows_i;
    acc_n_ = c.n;
}

// Rows of some neighbouring channels in one tile. Items go down the tiles of the same channels, whose streams
// continue each other in memory.
void Machine::packed_item(const isa::Linear& c, const formats::Format& form, uint64_t batch,
                          const Space& space, const TileItems& items, uint64_t item, Scratch& scratch) {
    const uint32_t tokens = c.rows_o * c.rows_i, rows = static_cast<uint32_t>(items.layout.rows);
    const uint64_t tile = item % items.layout.tiles, channel = item / items.layout.tiles * items.channels,
                   column = tile * items.layout.tile_rows + channel * rows;
    if (column >= c.n) return;
    const uint64_t channels =
        std::min({items.channels, space.channels - channel, divide_up(c.n - column, rows)});
    const uint64_t pitch = channels * rows, columns = std::min<uint64_t>(pitch, c.n - column);
    const uint64_t linear =
        in_bytes(c.wgt) + batch * in_bytes(c.wgt_b) + tile * in_bytes(c.wgt_tile) - space.base;
    float* acc = scratch.get<float>(kAcc, tokens * pitch);
    std::memset(acc, 0, tokens * pitch * sizeof(float));
    for (uint32_t t = 0; c.acc_in && t < tokens; ++t) {
        std::memcpy(acc + t * pitch, &accumulators_[t * uint64_t{c.n} + column], columns * sizeof(float));
    }
    const auto run = form.codes == formats::Codes::kInt4 ? kernels->int4 : kernels->wide;
    run({&form, space.channel(static_cast<uint32_t>(channel)) + linear / space.channels, space.pitch,
         static_cast<uint32_t>(channels), rows, static_cast<uint32_t>(divide_up(c.k, kBlock)), tokens,
         acts_.data(), wide_acts_.data(), acc});
    if (!c.acc_out) {
        return finish(c, batch, column, static_cast<uint32_t>(columns), static_cast<uint32_t>(pitch), acc,
                      scratch);
    }
    for (uint32_t t = 0; t < tokens; ++t) {
        std::memcpy(&accumulators_[t * uint64_t{c.n} + column], acc + t * pitch, columns * sizeof(float));
    }
}

void Machine::finish(const isa::Linear& c, uint64_t batch, uint64_t column, uint32_t columns, uint32_t pitch,
                     float* acc, Scratch& scratch) {
    const RowSet dst = dst_batches(c), aux = aux_rows(c);
    const uint64_t tokens = static_cast<uint64_t>(c.rows_o) * c.rows_i, bytes = uint64_t{2} * columns;
    uint16_t bias[kMaxColumns], aux_row[kMaxColumns], out[kMaxColumns];
    const float scale = read_float(c.scale);
    float row_scale = 0.0f;
    Epilogue e = {};
    if (c.use_scale) e.scale = &scale;
    if (c.use_row_scale) e.row_scale = &row_scale;
    if (c.use_act) e.act = tables_[c.act_slot].data();
    if (c.aux_mode != isa::AuxMode::kNone) e.aux = aux_row;
    e.aux_multiplies = c.aux_mode == isa::AuxMode::kMul;
    if (c.use_bias) {
        memory.read(in_bytes(c.bias) + 2 * column, bias, bytes);
        e.bias = bias;
    }
    uint32_t* scales = scratch.get<uint32_t>(kRowScale, c.use_row_scale ? tokens : 0);
    if (c.use_row_scale) memory.read(in_bytes(c.row_scale) + 4 * batch * tokens, scales, 4 * tokens);
    for (uint64_t t = 0, o = 0, i = 0; t < tokens; ++t) {
        if (c.use_row_scale) row_scale = read_float(scales[t]);
        if (e.aux != nullptr) memory.read(aux.at(0, o, i) + 2 * column, aux_row, bytes);
        kernels->epilogue(e, acc + t * pitch, out, columns);
        memory.write(dst.at(batch, o, i) + 2 * column, out, bytes);
        if (++i == c.rows_i) {
            i = 0;
            ++o;
        }
    }
}

}  // namespace dlavm::sim
