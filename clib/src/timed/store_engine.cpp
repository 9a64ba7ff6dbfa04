#include "timed/store_engine.h"

#include <algorithm>

namespace dlavm::timed {

namespace {

using isa::Opcode;

constexpr uint32_t kBlockUnits = 4;  // 32 fp16
constexpr uint32_t kTableUnits = 1024, kTablePairs = 2048;
constexpr int32_t kPending = 8;
constexpr uint64_t kTokens = 32, kHalfRow = 64, kByteRow = 32, kExponents = 32;  // kv_pkg
// kv_quantize: from the piece that completes a block to the cycle in which `quantized` shows.
constexpr uint64_t kQuantizer = 1 + 7;

uint64_t in_bytes(uint64_t units) { return units * kUnitBytes; }

}  // namespace

void StoreWalker::start(uint64_t base, uint64_t step, uint32_t rows_o, uint32_t inner_rows) {
    outer = inner = base;
    si = step;
    left_o = rows_o;
    left_i = rows_i = inner_rows;
    valid = true;
}

void StoreWalker::next(uint64_t so) {
    if (left_i == 1) {
        outer += so;
        inner = outer;
        left_i = rows_i;
        valid = --left_o != 0;
    } else {
        inner += si;
        --left_i;
    }
}

StoreEngine::StoreEngine(const Shape& shape, ReadPort& ids, ReadPort& data, WritePort& out)
    : shape_(&shape), ids_port_(&ids), data_port_(&data), out_(&out) {}

void StoreEngine::begin(Clock&, const Command& command) {
    command_ = command;
    state_ = State::kChoose;
    asked_table_ = false;
    pair_ = 0;
    decode();
}

void StoreEngine::decode() {
    const auto opcode = static_cast<Opcode>(command_.opcode);
    gather_ = opcode == Opcode::kGather;
    append_ = opcode == Opcode::kKvAppend;
    table_ = opcode == Opcode::kLoadTable;
    bytes_ = false;
    uint32_t dim = 0;
    const auto source = [&](const auto& c) {
        src_base_ = in_bytes(c.src);
        src_so_ = in_bytes(c.src_so);
        src_si_ = in_bytes(c.src_si);
        rows_o_ = c.rows_o;
        rows_i_ = c.rows_i;
        dim = c.dim;
    };
    if (gather_) {
        const auto c = decoded<isa::Gather>(command_);
        dst_base_ = in_bytes(c.dst);
        dst_so_ = in_bytes(c.dst_so);
        dst_si_ = 0;
        table_base_ = in_bytes(c.table);
        table_so_ = in_bytes(c.table_so);
        rows_o_ = c.rows_o;
        rows_i_ = 1;
        dim = c.dim;
        src_base_ = in_bytes(c.ids);
    } else if (append_) {
        const auto c = decoded<isa::KvAppend>(command_);
        source(c);
        bytes_ = c.format == isa::KvFormat::kMxint8;
        blocks_ = (c.dim + 31) / 32;
        const uint64_t row = bytes_ ? kByteRow : kHalfRow;
        block_bytes_ =
            bytes_ ? (blocks_ * (kTokens * kByteRow + kExponents) + 63) / 64 * 64 : blocks_ * kTokens * row;
        slot_ = c.pos % kTokens;
        dst_base_ = in_bytes(c.cache) + c.pos / kTokens * block_bytes_ + slot_ * row;
        dst_si_ = in_bytes(c.cache_head);
    } else if (table_) {
        src_base_ = in_bytes(decoded<isa::LoadTable>(command_).table);
    } else {
        const auto c = decoded<isa::Copy>(command_);
        source(c);
        dst_base_ = in_bytes(c.dst);
        dst_so_ = in_bytes(c.dst_so);
        dst_si_ = in_bytes(c.dst_si);
    }
    row_bytes_ = 2 * dim;
}

void StoreEngine::begin_rows() {
    if (gather_)
        ids_ = Ids::kAsk;
    else
        src_.start(src_base_, src_si_, rows_o_, rows_i_);
    dst_.start(dst_base_, dst_si_, rows_o_, rows_i_);
    in_row_ = exponent_ = false;
    byte_state_ = Bytes::kCollect;
    byte_place_ = 0;
}

void StoreEngine::finish(Clock& clock) {
    state_ = State::kIdle;
    done_ = clock.now() + 1;
    clock.poke(Part::kQueues);
}

void StoreEngine::step_busy(Clock& clock) {
    switch (state_) {
        case State::kIdle:
            break;
        case State::kChoose:
            clock.act();
            moving_ = false;
            piece_place_ = 0;
            if (gather_) ids_ = Ids::kAsk;
            state_ = table_ ? State::kTable : gather_ ? State::kIds : append_ ? State::kSetup : State::kBegin;
            if (gather_) {
                ids_left_ = rows_o_;
                ids_place_ = id_ = 0;
            }
            break;
        case State::kIds:
            if (ids_ == Ids::kIdle) {
                clock.act();
                state_ = State::kBegin;
            } else {
                step_ids(clock, false);
            }
            break;
        case State::kSetup:
            clock.act();
            state_ = State::kBegin;
            break;
        case State::kBegin:
            clock.act();
            begin_rows();
            if (gather_) {
                ids_left_ = rows_o_;
                ids_place_ = id_ = 0;
            }
            state_ = State::kRun;
            break;
        case State::kRun:
            step_run(clock);
            break;
        case State::kTable:
            step_table(clock);
            break;
    }
}

// gather_ids; with `give` the rows are asked for.
void StoreEngine::step_ids(Clock& clock, bool give) {
    const uint64_t now = clock.now();
    const uint32_t ids_of_beat = 4 * shape_->units;
    switch (ids_) {
        case Ids::kIdle:
            return;
        case Ids::kAsk:
            if (!ids_port_->ready(now)) return;
            ids_port_->ask(clock, src_base_, (rows_o_ + 3) / 4);
            ids_ = Ids::kRead;
            break;
        case Ids::kRead:
            if (!ids_port_->valid(now)) return;
            if (ids_left_ == 1 || ids_place_ == ids_of_beat - 1) ids_port_->take(clock);
            ids_place_ = (ids_place_ + 1) % ids_of_beat;
            ids_ = Ids::kMultiply;
            break;
        case Ids::kMultiply:
            ids_ = Ids::kAdd;
            break;
        case Ids::kAdd:
            ids_ = Ids::kGive;
            break;
        case Ids::kGive:
            if (give) {
                if (!data_port_->ready(now)) return;
                data_port_->ask(clock, table_base_ + command_.indices[id_] * table_so_,
                                (row_bytes_ + kUnitBytes - 1) / kUnitBytes);
            }
            ++id_;
            ids_ = --ids_left_ == 0 ? Ids::kIdle : Ids::kRead;
            break;
    }
    clock.act();
}

void StoreEngine::step_table(Clock& clock) {
    const uint64_t now = clock.now();
    if (data_port_->valid(now)) {
        const uint32_t pairs = 2 * shape_->units;
        if (pair_ % pairs == pairs - 1) data_port_->take(clock);
        clock.act();
        if (++pair_ == kTablePairs) finish(clock);
    }
    if (!asked_table_ && data_port_->ready(now)) {
        data_port_->ask(clock, src_base_, kTableUnits);
        asked_table_ = true;
    }
}

uint64_t StoreEngine::request_address() const {
    if (exponent_) {
        const uint64_t block = blocks_ - (in_row_ ? blocks_left_ : blocks_);
        return dst_.inner - slot_ * kByteRow + blocks_ * kTokens * kByteRow + block * kExponents +
               (slot_ >= 16 ? 16 : 0);
    }
    return append_ && in_row_ ? block_address_ : dst_.inner;
}

uint32_t StoreEngine::request_units() const {
    const uint32_t row_units = (row_bytes_ + kUnitBytes - 1) / kUnitBytes;
    if (exponent_) return 1;
    if (bytes_) return kByteRow / kUnitBytes;
    if (!append_) return row_units;
    const uint32_t left = in_row_ ? blocks_left_ : blocks_;
    return left == 1 ? row_units - (blocks_ - 1) * kBlockUnits : kBlockUnits;
}

// A request of a row, a block of it or its exponent; true: the row's last.
bool StoreEngine::ask_writes(Clock& clock) {
    if (!dst_.valid || pending_ >= kPending || !out_->ready(clock.now())) return false;
    const uint32_t left = in_row_ ? blocks_left_ : blocks_;
    const bool block_last = !append_ || left == 1, row_last = block_last && (!bytes_ || exponent_);
    const uint64_t address = request_address();
    out_->ask(clock, address, request_units());
    if (!exponent_) block_address_ = address + kTokens * (bytes_ ? kByteRow : kHalfRow);
    if (!bytes_ || exponent_) {
        blocks_left_ = left - 1;
        in_row_ = !block_last;
    }
    exponent_ = bytes_ && !exponent_;
    if (!row_last) return false;
    if (append_) {
        const uint64_t row = bytes_ ? kByteRow : kHalfRow;
        const uint64_t so = slot_ == kTokens - 1 ? block_bytes_ - (kTokens - 1) * row : row;
        if (dst_.outer_ends()) slot_ = (slot_ + 1) % kTokens;
        dst_.next(so);
    } else {
        dst_.next(dst_so_);
    }
    return true;
}

// kv_quantize; `piece`: row_mover has one, the row's last. True: a row's last byte has been taken.
bool StoreEngine::step_bytes(Clock& clock, bool piece, bool last) {
    const uint64_t now = clock.now();
    const uint32_t pieces = kBlockUnits / std::min(shape_->units, kBlockUnits);
    switch (byte_state_) {
        case Bytes::kCollect:
            if (!piece) break;
            byte_last_ = last;
            if (++byte_place_ == pieces || last) {
                byte_place_ = 0;
                byte_state_ = Bytes::kQuantize;
                quantized_ = now + kQuantizer;
            }
            break;
        case Bytes::kQuantize:
            if (quantized_ != now) {
                clock.at(quantized_);
                break;
            }
            clock.act();
            byte_beats_ = shape_->units == 1 ? 2 : 1;
            byte_state_ = Bytes::kMantissas;
            break;
        case Bytes::kMantissas:
            if (!out_->data_ready(now)) break;
            out_->put(clock);
            clock.act();
            if (--byte_beats_ == 0) byte_state_ = Bytes::kExponent;
            break;
        case Bytes::kExponent:
            if (!out_->data_ready(now)) break;
            out_->put(clock);
            clock.act();
            byte_state_ = Bytes::kCollect;
            return byte_last_;
    }
    return false;
}

// row_mover; true: a row ends.
bool StoreEngine::move(Clock& clock) {
    const uint64_t now = clock.now();
    const uint32_t piece = std::min(shape_->units, kBlockUnits), pieces = shape_->units / piece;
    const bool open = bytes_ ? byte_state_ == Bytes::kCollect : out_->data_ready(now);
    bool fire = open && data_port_->valid(now), last = false;
    if (fire) {
        const uint32_t left = moving_ ? row_left_ : row_bytes_;
        const uint32_t step = kUnitBytes * (append_ ? piece : shape_->units);
        last = left <= step;
        const bool beat_ends = last || !append_ || piece_place_ == pieces - 1;
        if (beat_ends) data_port_->take(clock);
        piece_place_ = beat_ends ? 0 : piece_place_ + 1;
        row_left_ = left - step;
        moving_ = !last;
        if (!bytes_) out_->put(clock);
        clock.act();
    }
    return bytes_ ? step_bytes(clock, fire, last) : last;
}

void StoreEngine::step_run(Clock& clock) {
    const uint64_t now = clock.now();
    if (!src_.valid && !dst_.valid && ids_ == Ids::kIdle && pending_ == 0 && out_->idle(now)) {
        finish(clock);
        return;
    }
    const bool row_done = move(clock);
    if (gather_) {
        step_ids(clock, true);
    } else if (src_.valid && data_port_->ready(now)) {
        data_port_->ask(clock, src_.inner, (row_bytes_ + kUnitBytes - 1) / kUnitBytes);
        src_.next(src_so_);
    }
    const bool asked = ask_writes(clock);
    pending_ += static_cast<int32_t>(asked) - static_cast<int32_t>(row_done);
}

}  // namespace dlavm::timed
