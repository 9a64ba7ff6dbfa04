#include "timed/ports.h"

#include <algorithm>

namespace dlavm::timed {

Place place_of(const Shape& shape, uint64_t address, uint32_t units) {
    auto space = static_cast<uint32_t>(shape.spaces.size() - 1);
    while (space != 0 && !shape.spaces[space].holds(address, uint64_t{units} * kUnitBytes)) --space;
    const uint64_t unit = (address - shape.spaces[space].base) / kUnitBytes;
    const auto offset = remainder(unit, shape.row_units);
    return {space, divided(unit, shape.row_units), offset, divided_up(units + offset, shape.row_units)};
}

// -- read_port ----------------------------------------------------------------------------------------------

void ReadPort::ask(Clock& clock, uint64_t address, uint32_t units, bool again) {
    requests_.push(clock.now(), {address, units});
    if (again) clock.act();
    clock.poke_port(number_);
}

// Chunks end where a multiple of the most rows, a power of two, does.
void ReadPort::set_count() {
    const uint32_t most = shape_->chunk_rows[space_];
    count_ = std::min(rows_left_, most - (static_cast<uint32_t>(row_) & (most - 1)));
}

Chunk ReadPort::grant(Clock& clock) {
    granted_ = clock.now();
    clock.poke_port_now(number_);
    return {space_, row_, count_};
}

void ReadPort::begin_row() {
    if (begun_) return;
    word_ = told_.front().word;
    rest_ = told_.front().units + told_.front().offset;
    begun_ = true;
}

// Of a request that begins with a word, past words that are not its last ones.
void ReadPort::pass_words(uint32_t count) {
    begin_row();
    left_ = left() - count * units_;
    started_ = true;
    rest_ -= count * units_;
}

// The next word of the row, with the last that is needed the row.
void ReadPort::take_word(Clock& clock) {
    settle(clock.now());
    begin_row();
    const bool row_ends = (word_ + 1) * units_ == shape_->row_units || rest_ <= units_;
    word_ = row_ends ? 0 : word_ + 1;
    rest_ -= units_;
    if (!row_ends) return;
    rows_.add(clock.now(), -1);
    credit_.add(clock.now(), 1);
    poke_reads(clock);
}

void ReadPort::take(Clock& clock, bool again) {
    const uint64_t now = clock.now();
    const uint32_t offset = told_.front().offset, rest = left();
    if (offset == 0 || rest > units_ - offset) take_word(clock);
    left_ = rest - units_;
    started_ = true;
    if (rest <= units_) {
        started_ = begun_ = false;
        held_from_ = kNever;
        told_.pop(now);
        if (!requests_.empty() || (!told_.empty() && told_.front().offset != 0)) clock.poke_port(number_);
    }
    taken_ = now;
    if (again) clock.act();
}

bool ReadPort::take_rows(Clock& clock, uint64_t from, uint32_t count) {
    const uint64_t now = clock.now();
    settle(now);
    if (!told_.valid(now) || told_.front().offset != 0 || left() <= count * units_) return false;
    if (credits_.left != 0 && credits_.shows(credits_.left) != from) return false;
    const int32_t there = from == now ? rows_.at(now) : rows_.next() + arrivals_.seen(from);
    const int32_t missing = static_cast<int32_t>(count) - there;
    // Those that come do so one a cycle, each before its turn.
    const Ramp more = arrivals_.coming(from);
    if (there <= 0 || missing > more.left ||
        (missing > 0 && more.from > from + static_cast<uint32_t>(there) - 1))
        return false;
    pass_words(count);
    rows_.add(now, -static_cast<int32_t>(count));
    if (credits_.left == 0) credits_.from = from;
    credits_.left += static_cast<int32_t>(count);
    poke_reads(clock);
    return true;
}

uint32_t ReadPort::inside() const {
    if (told_.empty() || told_.front().offset != 0 || rows_.next() <= 0) return 0;
    const uint32_t word = begun_ ? word_ : told_.front().word, words = shape_->row_units / units_;
    return std::min(words - word, divided_up(left(), units_)) - 1;
}

bool ReadPort::take_inside() {
    if (inside() == 0) return false;
    const uint32_t word = begun_ ? word_ : told_.front().word;
    pass_words(1);
    word_ = word + 1;
    return true;
}

uint32_t ReadPort::take_words(Clock& clock) {
    const uint64_t now = clock.now();
    settle(now);
    if (told_.front().offset != 0 || credits_.left != 0) return 0;
    const uint32_t word = begun_ ? word_ : told_.front().word, words = shape_->row_units / units_;
    const uint32_t count = std::min(words - word, divided_up(left(), units_) - 1);
    if (count < 2) return 0;
    pass_words(count);
    word_ = word + count;
    if (word_ != words) return count;
    word_ = 0;
    rows_.add(now, -1);
    credits_ = {now + count - 1, 1};
    poke_reads(clock);
    return count;
}

void ReadPort::rows_come(Clock& clock, uint64_t from, uint32_t count) {
    settle(clock.now());
    arrivals_.add(from, static_cast<int32_t>(count));
    clock.at(client_, row_from());
    if (holds_next()) clock.port_at(number_, row_from());
    poke_reads(clock);
}

// A request becomes chunks, the next as soon as the last chunk of the one before went.
void ReadPort::cut(Clock& clock) {
    const uint64_t now = clock.now();
    const bool granted = granted_ == now;
    settle(now);
    const uint32_t count = granted ? count_ : 0;
    const bool ends = granted && rows_left_ == count;
    if (granted) {
        credit_.add(now, -static_cast<int32_t>(count));
        under_way_.add(now, static_cast<int32_t>(count));
    }
    if (requests_.valid(now) && told_.ready(now) && (!busy_ || ends)) {
        const Request request = requests_.front();
        if (requests_.full()) clock.poke(client_);
        requests_.pop(now);
        const Place place = place_of(*shape_, request.address, request.units);
        told_.push(now, {divided(place.offset, units_), remainder(place.offset, units_), request.units});
        busy_ = true;
        space_ = place.space;
        row_ = place.row;
        rows_left_ = place.rows;
        set_count();
        if (told_.front().offset != 0) clock.poke_port(number_);
    } else if (granted) {
        row_ += count;
        rows_left_ -= count;
        busy_ = !ends;
        set_count();
    }
    cutting_->set(number_, busy_);
    poke_reads(clock);
}

// -- write_port ---------------------------------------------------------------------------------------------

void WritePort::ask(Clock& clock, uint64_t address, uint32_t units) {
    requests_.push(clock.now(), {address, units});
    clock.act();
    clock.poke_port(number_);
}

void WritePort::put(Clock& clock) {
    put_ = clock.now();
    clock.poke_port_now(number_);
}

Chunk WritePort::grant(Clock& clock) {
    const Chunk chunk = chunks_.front().chunk;
    if (chunks_.full()) poke_room(clock);
    chunks_.pop(clock.now());
    if (chunks_.empty()) waiting_->set(number_, false);
    return chunk;
}

void WritePort::made(uint64_t now, const Chunk& chunk) {
    chunks_.push(now, {chunk, now + 1});
    waiting_->set(number_, true);
}

void WritePort::make(Clock& clock) {
    const uint64_t now = clock.now();
    left_ -= std::min(left_, shape_->units);
    const bool last = --words_left_ == 0;
    busy_ = !last;
    if (busy_ && left_ == 0) clock.poke_port(number_);
    const bool row_ends = last || (word_ + 1) * shape_->units == shape_->row_units;
    word_ = row_ends ? 0 : word_ + 1;
    if (!row_ends) return;
    rows_.add(now, 1);
    ++rows_of_chunk_;
    const uint32_t most = shape_->chunk_rows[space_];
    if (last || (row_ & (most - 1)) == most - 1) {
        made(now, {space_, row_ + 1 - rows_of_chunk_, rows_of_chunk_});
        outstanding_.add(now, 1);
        rows_of_chunk_ = 0;
        clock.poke(Part::kWrites);
    }
    ++row_;
}

bool WritePort::passes(uint64_t address, uint32_t units) const {
    return !busy_ && requests_.empty() && chunks_.size() < kChunks && rows_.next() < kRows &&
           remainder(address / kUnitBytes, shape_->units) + units <= shape_->units;
}

void WritePort::pass(Clock& clock, uint64_t cycle, uint64_t address, uint32_t units) {
    const Place place = place_of(*shape_, address, units);
    const uint64_t put = cycle + kPut;
    rows_.add(put, 1);
    outstanding_.add(put, 1);
    made(put, {place.space, place.row, 1});
    clock.at(Part::kWrites, put + 1);
}

void WritePort::step_busy(Clock& clock) {
    const uint64_t now = clock.now();
    if (busy_ && (put_ == now || left_ == 0) && room(now)) make(clock);
    if (!busy_ && requests_.valid(now)) {
        const Request request = requests_.front();
        requests_.pop(now);
        const Place place = place_of(*shape_, request.address, request.units);
        busy_ = true;
        space_ = place.space;
        row_ = place.row;
        left_ = request.units;
        word_ = divided(place.offset, shape_->units);
        words_left_ = divided_up(left_ + remainder(place.offset, shape_->units), shape_->units);
        clock.poke(client_);
    }
}

}  // namespace dlavm::timed
