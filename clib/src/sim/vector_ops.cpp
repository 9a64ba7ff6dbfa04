// Commands of the vector engine, row by row.
#include <algorithm>
#include <cstring>

#include "sim/machine.h"
#include "sim/rows.h"

namespace dlavm::sim {

namespace {

enum : unsigned { kIn, kOut, kFloats, kSecond, kTable };

}  // namespace

void Machine::run(const isa::Norm& c) {
    const RowSet src = src_rows(c), dst = dst_rows(c);
    const uint64_t bytes = uint64_t{2} * c.dim;
    std::vector<uint16_t> gamma(c.dim), beta(c.use_beta ? c.dim : 0);
    memory.read(in_bytes(c.gamma), gamma.data(), bytes);
    if (c.use_beta) memory.read(in_bytes(c.beta), beta.data(), bytes);
    for_rows(dst, bytes, c.dim, [&](uint64_t, uint64_t o, uint64_t i, Scratch& scratch) {
        uint16_t* in = scratch.get<uint16_t>(kIn, c.dim);
        uint16_t* out = scratch.get<uint16_t>(kOut, c.dim);
        const NormJob job = {c.norm == isa::NormKind::kLayer,
                             c.dim,
                             gamma.data(),
                             c.use_beta ? beta.data() : nullptr,
                             read_float(c.eps),
                             read_float(c.inv_n),
                             scratch.get<float>(kFloats, size_t{2} * c.dim)};
        memory.read(src.at(0, o, i), in, bytes);
        kernels->norm(job, in, out);
        memory.write(dst.at(0, o, i), out, bytes);
    });
}

void Machine::run(const isa::Softmax& c) {
    const RowSet src = src_batches(c), dst = dst_batches(c);
    std::vector<uint32_t> slopes(c.use_slopes ? src.count_b * src.count_i : 0);
    if (c.use_slopes) memory.read(in_bytes(c.slopes), slopes.data(), 4 * slopes.size());
    // The reciprocals are written last, should they overlap the rows; not where they would take much memory.
    constexpr uint64_t most_kept = 1 << 20;
    std::vector<float> kept(dst.count() <= most_kept ? dst.count() : 0);
    for_rows(dst, uint64_t{2} * c.width, c.width * size_t{4},
             [&](uint64_t b, uint64_t o, uint64_t i, Scratch& scratch) {
                 const uint64_t seen = std::min<uint64_t>(c.visible + o, c.width),
                                first = first_visible(c, seen), visible = seen - first, lead = first % kBlock,
                                row = (b * c.rows_o + o) * c.rows_i + i;
                 uint16_t* in = scratch.get<uint16_t>(kIn, visible);
                 uint16_t* out = scratch.get<uint16_t>(kOut, c.width);
                 memory.read(src.at(b, o, i) + 2 * first, in, 2 * visible);
                 const float slope = c.use_slopes ? read_float(slopes[b * c.rows_i + i]) : 0.0f;
                 const SoftmaxJob job = {visible, lead, c.use_slopes ? &slope : nullptr,
                                         scratch.get<float>(kFloats, lead + visible)};
                 std::memset(out, 0, 2 * first);
                 const float recip = kernels->softmax(job, in, out + first);
                 std::memset(out + seen, 0, 2 * (c.width - seen));
                 memory.write(dst.at(b, o, i), out, uint64_t{2} * c.width);
                 if (kept.empty()) {
                     memory.write(in_bytes(c.recip) + 4 * row, &recip, sizeof recip);
                 } else {
                     kept[row] = recip;
                 }
             });
    if (!kept.empty()) memory.write(in_bytes(c.recip), kept.data(), 4 * kept.size());
}

void Machine::run(const isa::Rope& c) {
    const RowSet src = src_rows(c), dst = dst_rows(c), table = outer_rows(c.table, c.table_so, c.rows_o);
    const uint64_t bytes = uint64_t{2} * c.dim;
    for_rows(dst, bytes, c.dim + c.rot / 2, [&](uint64_t, uint64_t o, uint64_t i, Scratch& scratch) {
        uint16_t* in = scratch.get<uint16_t>(kIn, c.dim);
        uint16_t* out = scratch.get<uint16_t>(kOut, c.dim);
        uint16_t* halves = scratch.get<uint16_t>(kTable, c.rot);
        float* floats = scratch.get<float>(kFloats, c.rot);
        if (c.rot != 0) memory.read(table.at(0, o, 0), halves, uint64_t{2} * c.rot);
        kernels->to_float(halves, floats, c.rot);
        memory.read(src.at(0, o, i), in, bytes);
        kernels->rope({c.form == isa::RopeForm::kInterleaved, c.dim, c.rot, floats, floats + c.rot / 2}, in,
                      out);
        memory.write(dst.at(0, o, i), out, bytes);
    });
}

void Machine::run(const isa::Act& c) {
    const RowSet src = src_rows(c), dst = dst_rows(c);
    const uint64_t bytes = uint64_t{2} * c.dim;
    for_rows(dst, bytes, c.dim, [&](uint64_t, uint64_t o, uint64_t i, Scratch& scratch) {
        uint16_t* in = scratch.get<uint16_t>(kIn, c.dim);
        uint16_t* out = scratch.get<uint16_t>(kOut, c.dim);
        memory.read(src.at(0, o, i), in, bytes);
        kernels->act(tables_[c.act_slot].data(), in, out, c.dim);
        memory.write(dst.at(0, o, i), out, bytes);
    });
}

void Machine::run(const isa::Eltwise& c) {
    const RowSet src = src_rows(c), dst = dst_rows(c), second = second_rows(c);
    const uint64_t bytes = uint64_t{2} * c.dim;
    for_rows(dst, bytes, c.dim / 2 + 20, [&](uint64_t, uint64_t o, uint64_t i, Scratch& scratch) {
        uint16_t* in = scratch.get<uint16_t>(kIn, c.dim);
        uint16_t* out = scratch.get<uint16_t>(kOut, c.dim);
        memory.read(src.at(0, o, i), in, bytes);
        if (c.fn == isa::EltwiseFn::kScale) {
            kernels->scale(in, read_float(c.scale), out, c.dim);
        } else {
            uint16_t* b = scratch.get<uint16_t>(kSecond, c.dim);
            memory.read(second.at(0, o, i), b, bytes);
            (c.fn == isa::EltwiseFn::kAdd ? kernels->add : kernels->mul)(in, b, out, c.dim);
        }
        memory.write(dst.at(0, o, i), out, bytes);
    });
}

void Machine::run(const isa::Argmax& c) {
    const RowSet src = outer_rows(c.src, c.src_so, c.rows_o);
    const RowSet dst = {in_bytes(c.dst), 0, 4, 0, 1, c.rows_o, 1};
    for_rows(dst, 4, c.n / 2, [&](uint64_t, uint64_t o, uint64_t, Scratch& scratch) {
        uint16_t* in = scratch.get<uint16_t>(kIn, c.n);
        memory.read(src.at(0, o, 0), in, uint64_t{2} * c.n);
        const uint32_t best = kernels->argmax(in, c.n);
        memory.write(dst.at(0, o, 0), &best, sizeof best);
    });
}

void Machine::run(const isa::Permute& c) {
    const RowSet src = src_rows(c), dst = dst_rows(c);
    std::vector<uint32_t> index(c.dim);
    memory.read(in_bytes(c.index), index.data(), 4 * index.size());
    for_rows(dst, uint64_t{2} * c.dim, c.dim, [&](uint64_t, uint64_t o, uint64_t i, Scratch& scratch) {
        uint16_t* in = scratch.get<uint16_t>(kIn, c.limit);
        uint16_t* out = scratch.get<uint16_t>(kOut, c.dim);
        memory.read(src.at(0, o, i), in, uint64_t{2} * c.limit);
        for (uint32_t j = 0; j < c.dim; ++j) out[j] = in[index[j]];
        memory.write(dst.at(0, o, i), out, uint64_t{2} * c.dim);
    });
}

void Machine::run(const isa::Topk& c) {
    const RowSet src = outer_rows(c.src, c.src_so, c.rows_o);
    const RowSet dst = {in_bytes(c.ids), 0, uint64_t{4} * c.k, 0, 1, c.rows_o, 1};
    for_rows(dst, uint64_t{4} * c.k, size_t{c.n} * (c.k + 4),
             [&](uint64_t, uint64_t o, uint64_t, Scratch& scratch) {
                 uint16_t* in = scratch.get<uint16_t>(kIn, c.n);
                 uint32_t* ids = scratch.get<uint32_t>(kOut, c.k);
                 float* weights = scratch.get<float>(kTable, c.k);
                 memory.read(src.at(0, o, 0), in, uint64_t{2} * c.n);
                 kernels->topk({c.renormalize, c.n, c.k, scratch.get<float>(kFloats, c.n)}, in, ids, weights);
                 memory.write(dst.at(0, o, 0), ids, uint64_t{4} * c.k);
                 memory.write(in_bytes(c.weights) + 4 * o * c.k, weights, uint64_t{4} * c.k);
             });
}

}  // namespace dlavm::sim
