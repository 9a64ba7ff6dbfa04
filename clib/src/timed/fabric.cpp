#include "timed/fabric.h"

#include <algorithm>

namespace dlavm::timed {

Fabric::Fabric(const Shape& shape, Memories& memories) : watches_(shape.spaces.size()) {
    for (uint32_t i = 0; i < kReaders; ++i) {
        const bool weights = i == kReaders - 1;
        const uint32_t rows = weights ? shape.weight_rows : shape.client_rows;
        readers.emplace_back(shape, cutting_, i, kReader[i], weights ? shape.row_units : shape.units, rows,
                             weights ? std::min(rows, kWeightsUnderWay) : rows, weights ? rows : kRequests);
    }
    for (uint32_t i = 0; i < kWriters; ++i) writers.emplace_back(shape, waiting_, kReaders + i, kWriter[i]);
    for (size_t s = 0; s < shape.spaces.size(); ++s) {
        const abi::Space& space = shape.spaces[s];
        const ChannelShape channel{shape.row_units * kUnitBytes / (space.channels * shape.port_bytes),
                                   shape.port_bytes};
        reads_.emplace_back();
        writes_.emplace_back();
        for (ChannelMemory& memory : memories[s]) {
            reads_.back().emplace_back(channel, memory);
            writes_.back().emplace_back(channel, memory);
        }
    }
}

void Fabric::step_reads(Clock& clock) {
    const uint64_t now = clock.now();
    if (!order_.empty() || row_due_ == now) read_rows(clock);
    if (clock.short_ways())
        while (!order_.empty() && read_foreseen(clock)) {
        }
    reading_.each([&](uint32_t s) {
        if (clock.short_ways()) read_run(clock, s);
        for (ReadChannel& channel : reads_[s]) channel.step(clock);
        if (reads_[s].front().last_beat() == now) watches_[s].busy.add(now, now, 1);
        if (!reads_[s].front().idle()) return;  // the others of the space are so too
        reading_.set(s, false);
        ask_ends(s, now);
    });
    if (issue_ || cutting_.all() != 0) read_chunks(clock);
    cutting_.each([&](uint32_t port) { readers[port].wake_reads(clock); });
}

// Beats of a row that are known to come, one a cycle, are taken together, but for its last.
void Fabric::read_run(Clock& clock, size_t space) {
    const uint64_t now = clock.now();
    ReadChannel& channel = reads_[space].front();
    if (reads_[space].size() != 1) return;
    const uint32_t beats = std::min(channel.run(now), uint32_t{ReadChannel::kAhead});
    if (beats < 2) return;
    channel.take_run(now, beats);
    watches_[space].busy.add(now, now, beats);
}

// The next rows of a chunk, where memory knows when their beats come: they are told to the port, and leave
// nothing to be done.
bool Fabric::read_foreseen(Clock& clock) {
    const uint64_t now = clock.now();
    const Order order = order_.front();
    ReadChannel& channel = reads_[order.space].front();
    ReadPort& port = readers[order.client];
    const uint32_t most = order.rows - taken_, pack = channel.pack();
    if (reads_[order.space].size() != 1 || !port.tells(most) || foreseen_.size() == kOrders) return false;
    std::array<uint64_t, ReadChannel::kAhead> cycles;
    uint32_t beats = channel.foreseen(now, most, cycles.data());
    const uint32_t rows = divided_up(beats, pack);
    uint32_t told = 0, run = 0;  // run: rows one a cycle, up to the last one
    for (; told < rows; ++told) {
        const uint64_t beat = cycles[beats - 1 - (rows - 1 - told) * pack],
                       row = std::max(last_row_, beat) + 1;
        if (row - beat >= ReadChannel::kParts) break;  // as many wait at most
        if (run != 0 && row != last_row_ + 1) {
            port.rows_come(clock, last_row_ + 2 - run, run);
            run = 0;
        }
        last_row_ = row;
        ++run;
    }
    if (told == 0) return false;
    port.rows_come(clock, last_row_ + 2 - run, run);
    beats -= (rows - told) * pack;
    channel.take_foreseen(now, cycles.data(), beats);
    Watch& w = watches_[order.space];
    w.busy.add(now, cycles.data(), beats);
    w.known = std::max(w.known, cycles[beats - 1] + 1);
    taken_ += told;
    if (taken_ == order.rows) order_leaves(clock);
    return true;
}

void Fabric::order_leaves(Clock& clock) {
    taken_ = 0;
    order_.pop(clock.now());
    if (!order_.empty() && reads_[order_.front().space].front().waits()) clock.at(last_row_ + 1);
    while (foreseen_.next() < clock.now()) foreseen_.pop();
    foreseen_.push(last_row_);
}

// A chunk counts until its last row is taken, in that cycle too.
bool Fabric::orders_ready(uint64_t now) {
    while (foreseen_.next() < now) foreseen_.pop();
    return order_.count(now) + foreseen_.size() < kOrders;
}

void Fabric::step_writes(Clock& clock) {
    writing_.each([&](uint32_t s) {
        for (WriteChannel& channel : writes_[s]) channel.step(clock);
        if (writes_[s].front().last_beat() == clock.now()) watches_[s].busy.add(clock.now(), clock.now(), 1);
        if (!writes_[s].front().idle()) return;
        writing_.set(s, false);
        ask_ends(s, clock.now());
    });
    if (!put_order_.empty() || done_due_ == clock.now()) write_answers(clock);
    if (put_busy_ || waiting_.all() != 0) write_chunks(clock);
    if (untold_ != put_order_.size()) {
        for (const uint64_t done : done_at_) clock.at(done);
        if (untold_ != 0) clock.at(put_order_.front().told + 1);
    }
    waiting_.each([&](uint32_t port) {
        clock.at(std::max({writers[port - kReaders].next_chunk(), clock.now() + 1, put_until_}));
    });
}

bool Fabric::quiet(uint64_t now) const {
    return !issue_ && !order_.valid(now) && now > last_row_ && !put_busy_ && !put_issue_ &&
           !put_order_.valid(now);
}

// A space is asked for something from the cycle behind `now` on, which may be the next one. Of what was asked
// for before, answers that were known beforehand may have ended in between.
void Fabric::ask_begins(size_t space, uint64_t now) {
    Watch& w = watches_[space];
    if (w.asked_from != kNever && idle(space) && w.known <= now) {
        w.asked += w.known - w.asked_from;
        w.asked_from = kNever;
    }
    w.asked_from = std::min(w.asked_from, now + 1);
}

void Fabric::ask_ends(size_t space, uint64_t now) {
    Watch& w = watches_[space];
    const bool reads_end = reads_[space].front().idle() || w.reads_from > now + 1;
    if (w.asked_from > now || !reads_end || !writes_[space].front().idle() || w.known > now + 1) return;
    w.asked += now + 1 - w.asked_from;
    w.asked_from = w.reads_from > now + 1 ? w.reads_from : kNever;
}

void Fabric::clear_traffic(uint64_t begin) {
    for (size_t s = 0; s < watches_.size(); ++s) {
        Watch& w = watches_[s];
        w.before.read_beats = reads_[s].front().beats();
        w.before.written_beats = writes_[s].front().beats();
        w.busy.clear();
        w.asked = 0;
        if (idle(s) && w.known <= begin) w.asked_from = kNever;
        w.asked_from = std::max(w.asked_from, begin);
    }
}

Fabric::Traffic Fabric::traffic(uint32_t space, uint64_t end) const {
    const Watch& w = watches_[space];
    const uint64_t until = idle(space) ? std::min(end, w.known) : end;
    const uint64_t open = w.asked_from != kNever && w.asked_from < until ? until - w.asked_from : 0;
    return {reads_[space].front().beats() - w.before.read_beats,
            writes_[space].front().beats() - w.before.written_beats, w.busy.count(), w.asked + open};
}

bool Fabric::moves(uint64_t now) const {
    return std::any_of(watches_.begin(), watches_.end(), [&](const Watch& w) { return w.busy.at(now); });
}

uint32_t Fabric::asked() const {
    uint32_t spaces = 0;
    for (size_t s = 0; s < reads_.size(); ++s)
        if (!reads_[s].front().idle()) spaces |= 1u << s;
    return spaces;
}

bool Fabric::refreshing(uint64_t now, uint32_t spaces) const {
    for (size_t s = 0; s < reads_.size(); ++s)
        if ((spaces >> s & 1) != 0 && reads_[s].front().refreshing(now)) return true;
    return false;
}

void Fabric::step_ports(Clock& clock) {
    constexpr uint32_t kAll = (1u << (kReaders + kWriters)) - 1;
    for (uint32_t left = clock.take_ports() & kAll; left != 0; left &= left - 1) {
        const auto port = static_cast<uint32_t>(__builtin_ctz(left));
        if (port < kReaders)
            readers[port].step(clock);
        else
            writers[port - kReaders].step(clock);
    }
}

namespace {

template <class Channels, class Condition>
bool all(Channels& channels, Condition condition) {
    for (auto& channel : channels)
        if (!condition(channel)) return false;
    return true;
}

}  // namespace

void Fabric::read_rows(Clock& clock) {
    const uint64_t now = clock.now();
    if (row_due_ == now) {
        readers[row_client_].row(clock);
    }
    if (!order_.valid(now)) return;
    const Order order = order_.front();
    auto& channels = reads_[order.space];
    if (!all(channels, [&](const ReadChannel& c) { return c.valid(now); })) return;
    if (last_row_ >= now) return clock.at(last_row_ + 1);
    for (ReadChannel& c : channels) c.take(now);
    row_client_ = order.client;
    row_due_ = now + 1;
    last_row_ = now;
    clock.act();
    if (++taken_ == order.rows) {
        taken_ = 0;
        order_.pop(now);
    }
}

void Fabric::issue_read(uint64_t now) {
    reading_.set(chunk_.space, true);
    Watch& w = watches_[chunk_.space];
    if (reads_[chunk_.space].front().idle()) w.reads_from = now + 1;
    order_.push(now, {client_, chunk_.space, chunk_.rows});
    ask_begins(chunk_.space, now);
}

// A chunk that nothing is in front of reaches memory two cycles behind its grant, whatever comes until then.
bool Fabric::read_passes(Clock& clock) {
    const uint64_t now = clock.now();
    auto& channels = reads_[chunk_.space];
    if (!clock.short_ways() || !orders_ready(now) || order_.full() ||
        !all(channels, [&](ReadChannel& c) { return c.passes(now); }))
        return false;
    issue_read(now + 1);
    for (ReadChannel& c : channels) c.pass(clock, now + 2, chunk_.row, chunk_.rows);
    return true;
}

void Fabric::read_chunks(Clock& clock) {
    const uint64_t now = clock.now();
    if (issue_) {
        auto& channels = reads_[chunk_.space];
        if (orders_ready(now) && all(channels, [&](const ReadChannel& c) { return c.chunk_ready(now); })) {
            issue_read(now);
            for (ReadChannel& c : channels) c.chunk(now, chunk_.row, chunk_.rows);
            issue_ = false;
            clock.act();
        }
    }
    if (issue_) return;
    const int choice =
        read_choice_.choose(cutting_.all(), [&](uint32_t i) { return readers[i].chunk_valid(now); });
    if (choice < 0) return;
    client_ = static_cast<uint32_t>(choice);
    read_choice_.advance(client_);
    chunk_ = readers[client_].grant(clock);
    issue_ = !read_passes(clock);
    if (issue_ || read_choice_.choose(cutting_.all(), [&](uint32_t i) {
            return i != client_ && readers[i].chunk_valid(now);
        }) >= 0)
        clock.act();
}

// Answers that are known beforehand: those of the cycles before are as if taken then.
void Fabric::told_answers(Clock& clock) {
    const uint64_t now = clock.now();
    while (!put_order_.empty() && put_order_.front().told < now) {
        const PutOrder& first = put_order_.front();
        writers[first.client].done(clock, first.told + 1);
        put_order_.pop(first.told);
    }
}

void Fabric::write_answers(Clock& clock) {
    const uint64_t now = clock.now();
    if (done_due_ == now) writers[done_client_].done(clock, now);
    if (untold_ != put_order_.size()) told_answers(clock);
    if (!put_order_.valid(now) || put_order_.front().told != kNever) return;
    auto& channels = writes_[put_order_.front().space];
    if (!all(channels, [&](const WriteChannel& c) { return c.done(now); })) return;
    for (WriteChannel& c : channels) c.take(now);
    done_client_ = put_order_.front().client;
    done_due_ = now + 1;
    --untold_;
    put_order_.pop(now);
    clock.act();
}

// In this cycle, or of a chunk that passes in the next.
void Fabric::issue_write(Clock& clock, std::vector<WriteChannel>& channels, uint64_t now, bool passes) {
    put_issue_ = false;
    put_passes_ = passes;
    ask_begins(put_chunk_.space, now);
    uint64_t told = kNever;
    if (put_passes_) {
        uint64_t due = 0;
        const bool tell = untold_ == 0;
        for (WriteChannel& c : channels)
            due = std::max(due, c.pass(clock, now, put_chunk_.row, put_chunk_.rows, tell));
        const uint32_t beats = channels.front().beats_of(put_chunk_.rows);
        Watch& w = watches_[put_chunk_.space];
        w.busy.add(clock.now(), channels.front().passing_until() + 1 - beats, beats);
        if (tell) {
            told = last_told_ = std::max(due, last_told_) + 1;
            done_at_[put_client_] = told + 1;
            w.known = std::max(w.known, due + 1);
        }
    } else {
        for (WriteChannel& c : channels) c.chunk(now, put_chunk_.row, put_chunk_.rows);
        clock.act();
    }
    if (told == kNever) {
        ++untold_;
        writing_.set(put_chunk_.space, true);
    }
    put_order_.push(now, {put_client_, put_chunk_.space, told});
}

bool Fabric::passes(const Clock& clock, const std::vector<WriteChannel>& channels, uint64_t now) const {
    return clock.short_ways() &&
           all(channels, [&](const WriteChannel& c) { return c.passes(now, put_chunk_.rows); });
}

// The first cycle from `now` on in which one more answer may be owed, as far as is known.
uint64_t Fabric::issue_from(uint64_t now) const {
    if (put_order_.size() < kAnswers) return now;
    return untold_ != 0 ? kNever : std::max(now, put_order_.at(put_order_.size() - kAnswers).told + 1);
}

// A chunk of a row that passes does so in the next cycle or when there is room, whatever comes until then.
bool Fabric::write_passes(Clock& clock) {
    const uint64_t now = clock.now(), issue = issue_from(now + 1);
    auto& channels = writes_[put_chunk_.space];
    const bool later = issue != now + 1;
    if (put_left_ != 1 || (later && (issue > now + kAnswers || watches_[put_chunk_.space].known <= issue)))
        return false;
    uint64_t row = issue;
    for (const WriteChannel& c : channels) row = std::max(row, c.row_from(issue));
    if (!writers[put_client_].room_for(row - now) || !passes(clock, channels, now + 1)) return false;
    issue_write(clock, channels, issue, true);
    writers[put_client_].take_row(clock, row);
    put_until_ = row;
    return true;
}

void Fabric::write_chunks(Clock& clock) {
    const uint64_t now = clock.now();
    if (now < put_until_) return clock.at(put_until_);
    if (put_busy_) {
        auto& channels = writes_[put_chunk_.space];
        if (put_issue_ && put_order_.count(now) < kAnswers &&
            all(channels, [&](const WriteChannel& c) { return c.chunk_ready(now); })) {
            uint64_t row = now;
            for (const WriteChannel& c : channels) row = std::max(row, c.row_from(now));
            issue_write(clock, channels, now, row == now && passes(clock, channels, now));
        }
        if (put_issue_ && untold_ != put_order_.size()) clock.at(put_order_.front().told + 1);
        const auto fits = [&](const WriteChannel& c) { return c.row_ready(now); };
        if (!put_issue_ && (put_passes_ || all(channels, fits))) {
            if (!put_passes_)
                for (WriteChannel& c : channels) c.row(now);
            ask_begins(put_chunk_.space, now);
            writers[put_client_].take_row(clock, now);
            put_busy_ = --put_left_ != 0;
            if (put_busy_ || !put_passes_) clock.act();
        } else if (!put_issue_ && channels.front().passing(now)) {
            clock.act();  // nobody says when a row that passes has left
        }
    }
    if (put_busy_) return;
    const int choice = write_choice_.choose(waiting_.all() >> kReaders,
                                            [&](uint32_t i) { return writers[i].chunk_valid(now); });
    if (choice < 0) return;
    put_client_ = static_cast<uint32_t>(choice);
    write_choice_.advance(put_client_);
    put_chunk_ = writers[put_client_].grant(clock);
    put_left_ = put_chunk_.rows;
    put_issue_ = true;
    put_busy_ = !write_passes(clock);
    if (put_busy_) clock.act();
}

}  // namespace dlavm::timed
