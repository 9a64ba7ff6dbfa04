#include "timed/operand_check.h"

#include <array>

namespace dlavm::timed {

namespace {

using isa::Opcode;

enum Kind : uint8_t { kPlain, kScores, kAppend, kCached, kTiled, kNamed };

// What the time depends on of an operand of operand_pkg.
struct Operand {
    bool looked_at = false;  // used, and its rows not empty
    uint32_t counts = 0;     // of its three counts, those that are no ONE
    Kind kind = kPlain;
    uint32_t rows_o = 0;  // of scores: counted one by one
};

using Operands = std::array<Operand, 8>;

Operand rows(uint32_t counts, uint32_t length, Kind kind = kPlain) { return {length != 0, counts, kind, 0}; }
Operand array(uint32_t counts, bool used = true) { return {used, counts, kPlain, 0}; }

bool is_cache(isa::WeightFormat format) {
    return format >= isa::WeightFormat::kKvK && format <= isa::WeightFormat::kKvqV;
}

struct Look {
    bool nothing = false;
    Operands operands{};
};

Look look(const isa::Linear& c) {
    Look out;
    out.nothing = c.rows_o == 0 || c.rows_i == 0 || c.n == 0 || c.batch == 0;
    out.operands[0] = rows(2, 1, is_cache(c.format) ? kCached : kTiled);
    out.operands[1] = rows(3, c.k);
    if (c.acc_out) return out;
    out.operands[2] = array(3, c.use_row_scale);
    out.operands[3] = array(1, c.use_bias);
    if (c.aux_mode != isa::AuxMode::kNone) out.operands[4] = rows(2, c.n);
    out.operands[5] = rows(3, c.n);
    return out;
}

Look look(const isa::Softmax& c) {
    Look out;
    out.nothing = c.rows_o == 0 || c.rows_i == 0 || c.batch == 0;
    out.operands = {Operand{true, 3, kScores, c.rows_o}, array(2, c.use_slopes), rows(3, c.width), array(3)};
    return out;
}

template <class Command>
Look look_at_rows(const Command& c) {
    Look out;
    out.nothing = c.rows_o == 0 || c.rows_i == 0 || c.dim == 0;
    out.operands[0] = out.operands[1] = rows(2, c.dim);
    return out;
}

Look look(const isa::Norm& c) {
    Look out = look_at_rows(c);
    out.operands[2] = array(1);
    out.operands[3] = array(1, c.use_beta);
    return out;
}

Look look(const isa::Rope& c) {
    Look out = look_at_rows(c);
    out.operands[2] = rows(1, c.rot);
    return out;
}

Look look(const isa::Act& c) { return look_at_rows(c); }
Look look(const isa::Copy& c) { return look_at_rows(c); }

Look look(const isa::Eltwise& c) {
    Look out = look_at_rows(c);
    if (c.fn != isa::EltwiseFn::kScale) out.operands[2] = rows(2, c.dim);
    return out;
}

Look look(const isa::Permute& c) {
    Look out = look_at_rows(c);
    out.operands = {array(1), rows(2, c.limit), rows(2, c.dim)};
    return out;
}

Look look(const isa::Argmax& c) { return {c.rows_o == 0 || c.n == 0, {rows(1, c.n), array(1)}}; }

Look look(const isa::Topk& c) {
    return {c.rows_o == 0 || c.n == 0 || c.k == 0, {rows(1, c.n), array(2), array(2)}};
}

Look look(const isa::KvAppend& c) {
    Look out = look_at_rows(c);
    out.operands[1] = rows(2, c.dim, kAppend);
    return out;
}

Look look(const isa::Gather& c) {
    return {c.rows_o == 0 || c.dim == 0, {array(1), rows(1, c.dim), rows(1, c.dim, kNamed)}};
}

Look look(const isa::LoadTable&) { return {false, {array(0)}}; }

template <class Fields>
Look look_at(const Command& c) {
    return look(decoded<Fields>(c));
}

Look look(const Command& c) {
    switch (static_cast<Opcode>(c.opcode)) {
        case Opcode::kLinear:
            return look_at<isa::Linear>(c);
        case Opcode::kNorm:
            return look_at<isa::Norm>(c);
        case Opcode::kSoftmax:
            return look_at<isa::Softmax>(c);
        case Opcode::kRope:
            return look_at<isa::Rope>(c);
        case Opcode::kAct:
            return look_at<isa::Act>(c);
        case Opcode::kEltwise:
            return look_at<isa::Eltwise>(c);
        case Opcode::kArgmax:
            return look_at<isa::Argmax>(c);
        case Opcode::kPermute:
            return look_at<isa::Permute>(c);
        case Opcode::kTopk:
            return look_at<isa::Topk>(c);
        case Opcode::kKvAppend:
            return look_at<isa::KvAppend>(c);
        case Opcode::kGather:
            return look_at<isa::Gather>(c);
        case Opcode::kCopy:
            return look_at<isa::Copy>(c);
        default:
            return look_at<isa::LoadTable>(c);
    }
}

// From NEXT to the last cycle of the operand.
uint64_t operand_cycles(const Operand& op) {
    if (!op.looked_at) return 1;
    uint64_t cycles = 1 + (3 - op.counts) + 3 * op.counts + 2;  // NEXT, EXTEND .. COUNTED, TOTAL, RANGE
    if (op.kind != kPlain) ++cycles;                            // DERIVE
    if (op.kind == kAppend) ++cycles;                           // DERIVE_OFFSET
    return cycles + op.rows_o;                                  // SUM
}

}  // namespace

Checked check(const Command& command) {
    const Look seen = look(command);
    uint64_t cycles = 2;  // FIELDS, DONE
    if (seen.nothing) return {cycles, true};
    for (const Operand& op : seen.operands) cycles += operand_cycles(op);
    return {cycles, false};
}

}  // namespace dlavm::timed
