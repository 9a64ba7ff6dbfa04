#include "timed/channels.h"

#include <algorithm>

namespace dlavm::timed {

// -- reads --------------------------------------------------------------------------------------------------

// Whether a beat is there. If not, the part is woken when one will be, as far as is known.
bool ReadChannel::beat_ready(Clock& clock) {
    const uint64_t now = clock.now();
    if (!memory_->board) {
        clock.at(reads_.front().due);
        return reads_.front().due <= now;
    }
    if (memory_->board->beat_ready(now)) return true;
    clock.at(std::max(memory_->board->beat_bound(), now + 1));
    return false;
}

void ReadChannel::take_beat(uint64_t now) {
    ++beats_;
    last_beat_ = now;
    if (memory_->board) memory_->board->take_beat();
    if (++part_ == shape_.pack) {
        part_ = 0;
        parts_.add(now, 1);
    }
    if (--reads_.front().beats == 0) reads_.pop(now);
}

void ReadChannel::ask(uint64_t now, const Chunk& chunk) {
    const uint32_t beats = shape_.beats(chunk.rows);
    if (memory_->board) memory_->board->read(now, shape_.address(chunk.row), beats);
    reads_.push(now, {now + std::max<uint64_t>(memory_->latency, 1), beats});
}

void ReadChannel::pass(Clock& clock, uint64_t cycle, uint64_t row, uint32_t rows) {
    ask(cycle, {row, rows});
    const uint64_t due = memory_->board ? memory_->board->beat_bound() : reads_.front().due;
    clock.at(std::max(due, cycle + 1));
}

uint32_t ReadChannel::run(uint64_t now) {
    if (!memory_->board || now < run_until_ || !reads_.valid(now)) return 0;
    const uint32_t most = shape_.pack - 1 - part_;
    return most < 2 ? 0 : memory_->board->beats_from(now, most);
}

void ReadChannel::take_run(uint64_t now, uint32_t beats) {
    beats_ += beats;
    last_beat_ = now + beats - 1;
    run_until_ = now + beats;
    part_ += beats;
    reads_.front().beats -= beats;
    memory_->board->take_beats(beats);
}

// A burst counts until its last beat is taken, in the cycle itself too.
bool ReadChannel::room(uint64_t now) {
    if (!memory_->board) return reads_.ready(now);
    while (foreseen_.next() < now) foreseen_.pop();
    return memory_->board->read_room(now, foreseen_.size());
}

uint32_t ReadChannel::foreseen(uint64_t now, uint32_t rows, uint64_t* cycles) {
    if (!memory_->board || reads_.empty() || parts_.next() != 0 || foreseen_.size() == kBursts) return 0;
    const uint32_t most = std::min(shape_.beats(rows) - part_, uint32_t{kAhead});
    const uint32_t known =
        memory_->board->beats_known(now, std::max(now, run_until_), now + kAhead, most, cycles);
    const uint32_t rows_known = divided(part_ + known, shape_.pack);
    return rows_known == 0 ? 0 : rows_known * shape_.pack - part_;
}

void ReadChannel::take_foreseen(uint64_t now, const uint64_t* cycles, uint32_t beats) {
    beats_ += beats;
    last_beat_ = cycles[beats - 1];
    run_until_ = last_beat_ + 1;
    part_ = 0;
    reads_.front().beats -= beats;
    if (reads_.front().beats == 0) {
        reads_.pop(now);
        foreseen_.push(last_beat_);
    }
    memory_->board->take_beats(beats);
}

void ReadChannel::step(Clock& clock) {
    const uint64_t now = clock.now();
    const bool room = this->room(now);
    const bool fits = part_ + 1 != shape_.pack || parts_.at(now) != kParts;
    if (now < run_until_) {
        if (!reads_.empty()) clock.at(std::max(run_until_, memory_->board->beat_bound()));
    } else if (reads_.valid(now) && beat_ready(clock) && fits) {
        clock.act();
        take_beat(now);
    } else if (!reads_.empty() && !reads_.valid(now)) {
        clock.act();  // of what passed to here
    }
    if (!chunks_.valid(now)) return;
    if (!room && foreseen_.size() != 0) clock.at(foreseen_.next() + 1);
    if (!room) return;
    clock.act();
    ask(now, chunks_.front());
    chunks_.pop(now);
}

// -- writes -------------------------------------------------------------------------------------------------

void WriteChannel::answer(Clock& clock) {
    const uint64_t now = clock.now();
    if (!answers_.valid(now)) {
        if (!answers_.empty()) clock.act();  // of what passed to here
        return;
    }
    const uint64_t due = memory_->board ? memory_->board->next_response() : answers_.front();
    if (due > now) return clock.at(due);
    if (responses_.at(now) == kResponses) return;
    clock.act();
    if (memory_->board) memory_->board->take_response();
    answers_.pop(now);
    responses_.add(now, 1);
}

// Data is taken only once its address is known.
void WriteChannel::data(Clock& clock) {
    const uint64_t now = clock.now();
    if (rows_.at(now) == 0 || !writes_.valid(now)) return;
    if (passing_until_ >= now) return clock.at(passing_until_ + 1);
    clock.act();
    ++beats_;
    last_beat_ = now;
    if (memory_->board) memory_->board->write_beat(now);
    if (++part_ == shape_.pack) {
        part_ = 0;
        rows_.add(now, -1);
    }
    if (--writes_.front() != 0) return;
    writes_.pop(now);
    answers_.push(now, now + memory_->latency);
}

void WriteChannel::address(Clock& clock, bool room) {
    const uint64_t now = clock.now();
    if (!chunks_.valid(now)) return;
    if (!room) {
        if (memory_->board) clock.at(std::max(memory_->board->write_room_bound(), now + 1));
        return;
    }
    clock.act();
    const Chunk& chunk = chunks_.front();
    const uint32_t beats = shape_.beats(chunk.rows);
    if (memory_->board) memory_->board->write(now, shape_.address(chunk.row), beats);
    writes_.push(now, beats);
    chunks_.pop(now);
}

uint64_t WriteChannel::pass(Clock& clock, uint64_t now, uint64_t row, uint32_t rows, bool told) {
    const uint32_t beats = shape_.beats(rows);
    const uint64_t first = std::max(now + kPass, passing_until_ + 1), last = first + beats - 1;
    beats_ += beats;
    passed_rows_ = rows + static_cast<uint32_t>(passing_rows(row_from(now) + 1));
    passing_until_ = last;
    uint64_t due = last + std::max<uint64_t>(memory_->latency, 1);
    if (memory_->board) {
        memory_->board->write_burst(first - 1, shape_.address(row), beats);
        due = memory_->board->next_response();
        if (told) memory_->board->take_response();
    }
    if (told) return due;
    answers_.push(now, due);
    clock.at(due);
    return due;
}

void WriteChannel::step(Clock& clock) {
    const uint64_t now = clock.now();
    const bool room = memory_->board ? memory_->board->write_room(now) : writes_.ready(now);
    answer(clock);
    data(clock);
    address(clock, room);
}

}  // namespace dlavm::timed
