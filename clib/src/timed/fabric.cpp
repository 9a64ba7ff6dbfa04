#include "timed/fabric.h"

#include <algorithm>

namespace dlavm::timed {

namespace {

constexpr uint32_t kUnitBytes = 16;

}  // namespace

// -- Ports of the clients
// --------------------------------------------------------------------------------------

bool ReadPort::beat(uint32_t units) const {
    if (told.empty()) return false;
    if (!told.front().ok) return true;
    if (told.front().offset == 0) return rows != 0;
    return held && (in_held(units) || rows != 0);
}

Chunk ReadPort::chunk() const {
    const uint32_t to_boundary = kChunk - static_cast<uint32_t>(rest.row % kChunk);
    const uint32_t count = std::min(rest.rows, to_boundary);
    return {rest.space, rest.row, busy && credit >= count ? count : 0};
}

void ReadPort::step(uint32_t units, bool granted, bool row_comes) {
    const bool room = requests.size() < kRequests, fire = taken && beat(units);
    const bool done = fire && last(units);
    const uint32_t issued = granted ? chunk().rows : 0;
    const bool cut = granted && issued == rest.rows;
    const bool take = !requests.empty() && told.size() < kTold && (!busy || cut);

    bool row_leaves = false;
    if (!told.empty() && told.front().ok) {
        const bool direct = told.front().offset == 0;
        row_leaves = direct ? fire : rows != 0 && (!held || (fire && !in_held(units)));
    }
    if (fire) left = units_left() - units;
    started = (started || fire) && !done;
    held = (held || row_leaves) && !done;
    credit += row_leaves;
    credit -= issued;
    rows += row_comes;
    rows -= row_leaves;
    if (done) told.pop_front();

    if (take) {
        const Request& head = requests.front();
        busy = head.ok;
        rest = {head.space, head.row, head.rows};
        told.push_back(head);
        requests.pop_front();
    } else if (granted) {
        busy = !cut;
        rest.row += issued;
        rest.rows -= issued;
    }
    if (asked && room) requests.push_back(*asked);
    asked.reset();
    taken = false;
}

void WritePort::step(uint32_t units, bool granted, bool row_leaves, bool done) {
    const bool request_room = requests.size() < kRequests;
    const bool made = busy && (put || now.units == 0) && room();
    const bool last = now.rows == 1;
    const bool take = !requests.empty() && (!busy || (made && last));
    const bool row_made = made && now.ok;
    const bool chunk_end = row_made && (last || now.row % kChunk == kChunk - 1);

    if (granted) chunks.pop_front();
    if (chunk_end) chunks.push_back({now.space, now.row - rows_of_chunk, rows_of_chunk + 1});
    if (row_made) rows_of_chunk = chunk_end ? 0 : rows_of_chunk + 1;
    rows += row_made;
    rows -= row_leaves;
    outstanding += chunk_end;
    outstanding -= done;
    if (take) {
        now = requests.front();
        requests.pop_front();
    } else if (made) {
        ++now.row;
        now.units -= std::min(now.units, units);
        --now.rows;
    }
    busy = take || (busy && !(made && last));
    if (asked && request_room) requests.push_back(*asked);
    asked.reset();
    put = false;
}

std::optional<uint32_t> RoundRobin::choice(const std::vector<bool>& wanted) const {
    const auto count = static_cast<uint32_t>(wanted.size());
    for (uint32_t i = 1; i <= count; ++i) {
        const uint32_t client = (last_ + i) % count;
        if (wanted[client]) return client;
    }
    return std::nullopt;
}

// -- AXI masters
// -------------------------------------------------------------------------------------------------

void Master::step(uint64_t cycle, const Inputs& inputs) {
    const uint64_t bytes = uint64_t{pack} * channel.beat_bytes();
    const bool ar = !read_chunks.empty() && channel.read_room(cycle);
    const bool aw = !write_chunks.empty() && channel.write_room(cycle);
    const bool part_full = part == pack - 1;
    const bool r = channel.beat_ready(cycle) && (parts < kParts || !part_full);
    const bool w = rows != 0 && !owed.empty();
    const bool b = channel.response_ready(cycle) && responses < kResponses;

    parts -= inputs.part_leaves;
    if (r) {
        channel.take_beat();
        parts += part_full;
        part = part_full ? 0 : part + 1;
    }
    if (ar) {
        channel.read(cycle, read_chunks.front().row * bytes, read_chunks.front().rows * pack);
        read_chunks.pop_front();
    }
    responses += b;
    responses -= inputs.acknowledged;
    if (b) channel.take_response();
    if (w) {
        channel.write_beat(cycle);
        if (--owed.front() == 0) owed.pop_front();
        const bool row_sent = ++sent == pack;
        rows -= row_sent;
        if (row_sent) sent = 0;
    }
    rows += inputs.row_comes;
    if (aw) {
        channel.write(cycle, write_chunks.front().row * bytes, write_chunks.front().rows * pack);
        owed.push_back(write_chunks.front().rows * pack);
        write_chunks.pop_front();
    }
    if (inputs.read.rows != 0) read_chunks.push_back(inputs.read);
    if (inputs.write.rows != 0) write_chunks.push_back(inputs.write);
}

// -- Between them
// -------------------------------------------------------------------------------------------------

Fabric::Fabric(const dlavm_fabric_shape& shape)
    : shape_(shape), readers_(shape.readers), writers_(shape.writers) {
    for (uint32_t s = 0; s < shape.spaces; ++s) {
        const dlavm_fabric_space& space = shape.space[s];
        masters_.emplace_back(space.timing,
                              shape.units * kUnitBytes / (space.channels * space.timing.beat_bytes));
    }
}

Request Fabric::map(uint64_t address, uint32_t units) const {
    for (uint32_t s = 0; s < shape_.spaces; ++s) {
        const dlavm_fabric_space& space = shape_.space[s];
        if (address < space.base || address - space.base + uint64_t{units} * kUnitBytes > space.capacity)
            continue;
        const uint64_t place = (address - space.base) / kUnitBytes;
        const auto offset = static_cast<uint32_t>(place % shape_.units);
        return {true, s, offset, place / shape_.units, (units + offset + shape_.units - 1) / shape_.units,
                units};
    }
    // Nobody looks at the row; the offset counts in how many rows a write's beats are swallowed.
    const auto offset = static_cast<uint32_t>(address / kUnitBytes % shape_.units);
    return {false, 0, offset, 0, (units + offset + shape_.units - 1) / shape_.units, units};
}

void Fabric::step_reads(std::vector<Master::Inputs>& inputs) {
    std::vector<bool> wanted(readers_.size());
    for (size_t i = 0; i < readers_.size(); ++i) wanted[i] = readers_[i].chunk().rows != 0;
    const std::optional<uint32_t> choice = read_turn_.choice(wanted);
    const bool issued = read_issue_ && reading_.size() < kOnTheWay &&
                        masters_[read_chunk_.space].read_chunks.size() < kChunks;
    const bool chosen = choice && (!read_issue_ || issued);
    const bool row = !reading_.empty() && masters_[reading_.front().space].parts != 0;
    const Chunk next = chosen ? readers_[*choice].chunk() : Chunk{};
    for (uint32_t i = 0; i < readers_.size(); ++i)
        readers_[i].step(shape_.units, chosen && *choice == i, row_for_ == i);

    row_for_.reset();
    if (row) {
        row_for_ = reading_.front().client;
        inputs[reading_.front().space].part_leaves = true;
        if (++rows_taken_ == reading_.front().rows) {
            rows_taken_ = 0;
            reading_.pop_front();
        }
    }
    if (issued) {
        inputs[read_chunk_.space].read = read_chunk_;
        reading_.push_back({read_client_, read_chunk_.space, read_chunk_.rows});
    }
    if (chosen) {
        read_turn_.advance(*choice);
        read_client_ = *choice;
        read_chunk_ = next;
    }
    read_issue_ = chosen || (read_issue_ && !issued);
}

void Fabric::step_writes(std::vector<Master::Inputs>& inputs) {
    std::vector<bool> wanted(writers_.size());
    for (size_t i = 0; i < writers_.size(); ++i) wanted[i] = !writers_[i].chunks.empty();
    const std::optional<uint32_t> choice = write_turn_.choice(wanted);
    const Master& master = masters_[write_chunk_.space];
    const bool issued = write_issue_ && written_.size() < kOnTheWay && master.write_chunks.size() < kChunks;
    const bool moved = writing_ && (!write_issue_ || issued) && master.rows < kParts;
    const bool ends = moved && write_left_ == 1;
    const bool chosen = choice && (!writing_ || ends);
    const bool acknowledged = !written_.empty() && masters_[written_.front().space].responses != 0;
    const Chunk next = chosen ? writers_[*choice].chunks.front() : Chunk{};
    for (uint32_t i = 0; i < writers_.size(); ++i)
        writers_[i].step(shape_.units, chosen && *choice == i, moved && write_client_ == i, done_for_ == i);

    inputs[write_chunk_.space].row_comes = moved;
    done_for_.reset();
    if (acknowledged) {
        done_for_ = written_.front().client;
        inputs[written_.front().space].acknowledged = true;
        written_.pop_front();
    }
    if (issued) {
        inputs[write_chunk_.space].write = write_chunk_;
        written_.push_back({write_client_, write_chunk_.space, write_chunk_.rows});
    }
    write_left_ -= moved;
    if (chosen) {
        write_turn_.advance(*choice);
        write_client_ = *choice;
        write_chunk_ = next;
        write_left_ = next.rows;
    }
    writing_ = chosen || (writing_ && !ends);
    write_issue_ = chosen || (write_issue_ && !issued);
}

void Fabric::step() {
    std::vector<Master::Inputs> inputs(masters_.size());
    step_reads(inputs);
    step_writes(inputs);
    for (size_t s = 0; s < masters_.size(); ++s) masters_[s].step(cycle_, inputs[s]);
    ++cycle_;
}

}  // namespace dlavm::timed
