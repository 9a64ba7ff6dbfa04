#include "timing/channel.h"

#include <algorithm>
#include <numeric>

namespace dlavm::timing {

namespace {

// Nothing that banks or refreshes cost: an access takes a clock, in which the next one is chosen. Each is a
// beat of the port, which passes them no faster.
bool is_ram(const dlavm_memory_timing& t) {
    const uint32_t any = t.cl | t.cwl | t.rcd_read | t.rcd_write | t.rp | t.ras | t.rrd_s | t.rrd_l | t.faw |
                         t.wtr_s | t.wtr_l | t.rtp | t.wr | t.rtw | t.refresh_clocks;
    return any == 0 && t.burst_clocks == 1 && t.ccd_s == 1 && t.ccd_l == 1 && t.window == 1 &&
           t.beat_bytes == t.burst_bytes && t.clocks >= t.cycles;
}

// From one column command to the next, where groups take turns and nothing else is to be waited for.
int64_t clocks_of_run(const dlavm_memory_timing& t) {
    if (t.interleave == 1) return std::max(t.ccd_s, t.ccd_l);
    return t.ccd_l <= uint64_t{t.interleave} * t.ccd_s ? t.ccd_s : 0;
}

// std::max of a list, which the compiler keeps in memory.
int64_t latest(int64_t a, int64_t b) { return std::max(a, b); }
template <class... More>
int64_t latest(int64_t a, int64_t b, More... more) {
    return latest(std::max(a, b), more...);
}

}  // namespace

Channel::Channel(const dlavm_memory_timing& timing)
    : timing_(timing),
      ram_(is_ram(timing)),
      clocks_(timing.clocks),
      cycles_(timing.cycles),
      beat_(timing.beat_bytes),
      burst_(timing.burst_bytes),
      interleaved_(timing.interleave),
      columns_(timing.page_bytes / timing.burst_bytes),
      banks_of_group_(timing.banks),
      outer_groups_(timing.groups / timing.interleave),
      row_(uint64_t{timing.interleave} * (timing.page_bytes / timing.burst_bytes)),
      banks_(size_t{timing.groups} * timing.banks),
      groups_(timing.groups),
      window_(timing.window, kLongAgo),
      run_clocks_(clocks_of_run(timing)),
      next_refresh_(timing.refresh_interval) {
    activates_.fill(kLongAgo);
    begin_round();
}

// The first clock of the memory that is not before the edge.
int64_t Channel::clock_of(uint64_t cycle) const {
    return static_cast<int64_t>(cycles_.up(cycle * timing_.clocks));
}

// The first edge that is not before the clock.
uint64_t Channel::cycle_of(int64_t clock) const {
    return clocks_.up(static_cast<uint64_t>(clock) * timing_.cycles);
}

void Channel::push(Ring<Burst>& queue, int64_t arrival, uint64_t address, uint32_t beats) const {
    Burst& burst = queue.push();
    burst.arrival = arrival;
    burst.address = address;
    burst.access = burst_.quotient(address);
    burst.last = burst_.quotient(address + uint64_t{beats} * timing_.beat_bytes - 1);
    burst.beats = beats;
    burst.shown = 0;
}

bool Channel::room_made(uint64_t cycle) {
    advance(arrival_of(cycle));
    while (!leaving_.empty() && leaving_.front() <= cycle) {
        leaving_.pop_front();
        --held_;
    }
    return held_ < timing_.writes;
}

void Channel::read(uint64_t cycle, uint64_t address, uint32_t beats) {
    named_ = cycle;
    push(reads_, arrival_of(cycle), address, beats);
    lengths_.push_back(beats);
    quiet_ = kLongAgo;
}

void Channel::write(uint64_t cycle, uint64_t address, uint32_t beats) {
    named_ = cycle;
    ++held_;
    incoming_.push_back({address, beats, beats});
}

void Channel::write_beat(uint64_t cycle) {
    named_ = cycle;
    Incoming& first = incoming_.front();
    if (--first.left != 0) return;
    arrive(cycle, first.address, first.beats);
    incoming_.pop_front();
}

void Channel::write_burst(uint64_t cycle, uint64_t address, uint32_t beats) {
    named_ = cycle + beats;
    ++held_;
    arrive(named_, address, beats);
}

// The last beat of a write.
void Channel::arrive(uint64_t cycle, uint64_t address, uint32_t beats) {
    const int64_t arrival = arrival_of(cycle);
    push(writes_, arrival, address, beats);
    responses_.push_back(std::max(cycle_of(arrival + timing_.response), cycle + 1));
    quiet_ = kLongAgo;
}

void Channel::end_reads(uint32_t beats) {
    while (beats >= lengths_.front()) {
        beats -= lengths_.front();
        lengths_.pop_front();
        if (beats == 0) return;
    }
    lengths_.front() -= beats;
}

Channel Channel::silent() const {
    Channel copy = *this;
    copy.recording_ = false;
    return copy;
}

uint64_t Channel::next_beat() const {
    if (!ready_.empty()) return ready_.front();
    if (reads_.empty()) return DLAVM_MEMORY_NEVER;
    Channel ahead = silent();
    while (ahead.ready_.empty()) ahead.choose(INT64_MAX);
    return ahead.ready_.front();
}

uint64_t Channel::next_write_room() const {
    if (held_ < timing_.writes) return 0;
    const size_t surplus = held_ - timing_.writes;  // that has to leave before the one that makes room
    if (surplus < leaving_.size()) return leaving_[surplus];
    if (surplus >= leaving_.size() + writes_.size()) return DLAVM_MEMORY_NEVER;
    Channel ahead = silent();
    while (ahead.leaving_.size() <= surplus) ahead.choose(INT64_MAX);
    return ahead.leaving_[surplus];
}

// What is first is not chosen before, and takes its time even where its row is open.
uint64_t Channel::beat_bound() const {
    if (!ready_.empty()) return ready_.front();
    if (reads_.empty()) return DLAVM_MEMORY_NEVER;
    const int64_t when = std::max({chosen_, window_[place_], reads_.front().arrival});
    return cycle_of(when + timing_.cl + timing_.burst_clocks + timing_.response);
}

uint64_t Channel::write_room_bound() const {
    if (held_ < timing_.writes) return 0;
    const size_t surplus = held_ - timing_.writes;
    if (surplus < leaving_.size()) return leaving_[surplus];
    if (surplus >= leaving_.size() + writes_.size()) return DLAVM_MEMORY_NEVER;
    const int64_t when = std::max({chosen_, window_[place_], writes_.front().arrival});
    return cycle_of(when + timing_.cwl + timing_.burst_clocks);
}

void Channel::choose_all(int64_t limit) {
    if (ram_) return choose_of_ram(limit);
    while (choose(limit)) {
    }
}

// As choose() does it one by one, for RAM: together all accesses of the burst that is first which nothing can
// come between. An access is chosen in the clock of the one before and has the next one, or that of its
// arrival.
void Channel::choose_of_ram(int64_t limit) {
    int64_t column = column_;
    for (;;) {
        const int64_t read = reads_.empty() ? INT64_MAX : reads_.front().arrival;
        const int64_t write = writes_.empty() ? INT64_MAX : writes_.front().arrival;
        const int64_t when = latest(column, std::min(read, write));
        if (when >= limit) {
            quiet_ = when;
            break;
        }
        const bool waits = write <= when;
        const bool both = waits && read <= when && !waits_for_write(reads_.front());
        const bool writing = both ? writing_ == (served_ < timing_.batch) : waits;
        const int64_t at = latest(when, column + 1);
        if (both && timing_.batch == 1) {
            column = take_turns(at, writing, limit);
            continue;
        }
        if (writing != writing_) served_ = 0;
        writing_ = writing;
        Ring<Burst>& queue = writing ? writes_ : reads_;
        Burst& first = queue.front();
        const int64_t other = writing ? read : write;
        const int64_t until = other > when ? std::min(limit, other) : limit;
        uint64_t count =
            std::min<uint64_t>(first.last - first.access, static_cast<uint64_t>(latest(until - at, 0))) + 1;
        if (both) count = std::min(count, timing_.batch - served_);
        served_ += count;
        column = at + static_cast<int64_t>(count) - 1;
        if (!writing) {
            const auto beats = static_cast<uint32_t>(count);
            ready_.add(cycle_of(at + 1 + timing_.response), beats);
            first.shown += beats;
        }
        first.access += count;
        if (first.access <= first.last) continue;
        if (writing) leaving_.push_back(cycle_of(column + 1));
        queue.pop_front();
    }
    column_ = window_[0] = column;
}

// Both directions in turns, from a clock on, until one of the two bursts is over. Returns the last clock.
int64_t Channel::take_turns(int64_t at, bool write, int64_t limit) {
    Burst &r = reads_.front(), &w = writes_.front();
    const uint64_t left[] = {r.last - r.access + 1, w.last - w.access + 1};
    const uint64_t until_over = std::min(2 * left[write] - 1, 2 * left[!write]);
    const uint64_t count = std::min(until_over, static_cast<uint64_t>(latest(limit - at, 0)) + 1);
    const uint64_t writes = (count + (write ? 1 : 0)) / 2, reads = count - writes;
    const int64_t last = at + static_cast<int64_t>(count) - 1;
    for (int64_t clock = write ? at + 1 : at; clock <= last; clock += 2)
        ready_.add(cycle_of(clock + 1 + timing_.response), 1);
    writing_ = write == (count % 2 != 0);
    served_ = 1;
    r.shown += static_cast<uint32_t>(reads);
    r.access += reads;
    w.access += writes;
    if (r.access > r.last) reads_.pop_front();
    if (w.access > w.last) {
        leaving_.push_back(cycle_of(last + 1));
        writes_.pop_front();
    }
    return last;
}

bool Channel::choose(int64_t limit) {
    int64_t arrival = INT64_MAX;
    if (!reads_.empty()) arrival = reads_.front().arrival;
    if (!writes_.empty()) arrival = std::min(arrival, writes_.front().arrival);
    const int64_t when = std::max(std::max(chosen_, window_[place_]), arrival);
    if (when >= limit || arrival == INT64_MAX) {
        quiet_ = when;
        return false;
    }
    chosen_ = when;
    if (next_refresh_ <= when || owed_ != 0) refresh(when);

    const bool write = choose_write(when);
    if (write != writing_) served_ = 0;
    writing_ = write;
    Ring<Burst>& queue = write ? writes_ : reads_;
    const bool alone = (write ? reads_ : writes_).empty();
    Burst& first = queue.front();
    serve(when, first, write, alone ? limit : when);
    if (first.access > first.last) queue.pop_front();
    return true;
}

// The burst's next access, chosen at a clock, and those behind it that are chosen before the limit.
void Channel::serve(int64_t when, Burst& first, bool write, int64_t limit) {
    for (;;) {
        const bool runs = first.access == run_.next && write == run_.write && first.access != run_.row_end;
        if (runs && run_.length >= timing_.interleave && run_clocks_ != 0 && !recording_) {
            issue_run(when, first, write, limit);
        } else {
            run_.length = runs ? run_.length : 0;
            issue(when, first, write);
        }
        if (first.access > first.last) break;
        when = latest(chosen_, window_[place_]);
        if (when >= limit) return;
        chosen_ = when;
        if (next_refresh_ <= when || owed_ != 0) refresh(when);
    }
    if (write) leaving_.push_back(cycle_of(column_ + timing_.cwl + timing_.burst_clocks));
}

bool Channel::choose_write(int64_t when) const {
    if (writes_.empty() || reads_.empty()) return reads_.empty();
    const bool write = writes_.front().arrival <= when;
    const bool read = reads_.front().arrival <= when && !waits_for_write(reads_.front());
    if (write != read) return write;
    return writing_ == (served_ < timing_.batch);
}

// Of a read that has begun none of the older writes overlaps it any more.
bool Channel::waits_for_write(const Burst& read) const {
    if (writes_.empty() || read.access != burst_.quotient(read.address)) return false;
    const uint64_t end = read.address + uint64_t{read.beats} * timing_.beat_bytes;
    for (size_t i = 0; i < writes_.size(); ++i) {
        const Burst& w = writes_[i];
        if (w.arrival > read.arrival) return false;
        if (w.address < end && read.address < w.address + uint64_t{w.beats} * timing_.beat_bytes) return true;
    }
    return false;
}

// Address bits from below: the byte in a burst, groups that are interleaved, column, bank, other groups, row.
Target Channel::target(uint64_t access) const {
    const uint32_t low = interleaved_.digit(access);
    columns_.digit(access);
    const uint32_t in_group = banks_of_group_.digit(access);
    const uint32_t group = outer_groups_.digit(access) * timing_.interleave + low;
    return {group, group * timing_.banks + in_group, access};
}

void Channel::issue(int64_t when, Burst& first, bool write) {
    const Target to = target(first.access);
    Bank& bank = banks_[to.bank];
    Group& group = groups_[to.group];
    if (bank.row != to.row) open_row(when, to.bank, group, to.row);
    const int64_t at = column(when, bank, group, write);
    use(at, bank, group, write);
    log(at, write ? DLAVM_MEMORY_WRITE : DLAVM_MEMORY_READ, to.bank, to.row);
    enter(at);
    column_ = at;
    ++served_;
    if (!write) show(first, at);
    if (++run_.length == 1) run_.row_end = (row_.quotient(first.access) + 1) * row_.value();
    run_.write = write;
    run_.next = ++first.access;
}

// The same for accesses of a run in all of whose groups there was one: rows are open, the bus has turned, and
// so each waits only for its choice and for the column command before.
void Channel::issue_run(int64_t when, Burst& first, bool write, int64_t limit) {
    const uint64_t begin = first.access, end = std::min(first.last + 1, run_.row_end);
    const int64_t until = owed_ != 0 ? when : std::min(limit, next_refresh_);
    int64_t at = latest(when, column_ + run_clocks_);
    for (;;) {
        enter(at);
        if (!write) show(first, at);
        if (++first.access == end) break;
        const int64_t next = latest(when, window_[place_]);
        if (next >= until) break;
        when = next;
        at += run_clocks_;
    }
    chosen_ = when;
    column_ = at;
    served_ += first.access - begin;
    run_.next = first.access;
    // Of what banks remember only the last access to each matters.
    const uint64_t last = std::min<uint64_t>(first.access - begin, timing_.interleave);
    at -= run_clocks_ * static_cast<int64_t>(last - 1);
    for (uint64_t access = first.access - last; access != first.access; ++access, at += run_clocks_) {
        const Target to = target(access);
        use(at, banks_[to.bank], groups_[to.group], write);
    }
}

void Channel::open_row(int64_t when, uint32_t number, Group& group, uint64_t row) {
    Bank& bank = banks_[number];
    const int64_t free = std::max(close(when, number), when);
    const int64_t at = latest(free, bank.activate, activated_ + timing_.rrd_s,
                              group.activated + timing_.rrd_l, activates_[oldest_activate_] + timing_.faw);
    log(at, DLAVM_MEMORY_ACTIVATE, number, row);
    activated_ = group.activated = activates_[oldest_activate_] = at;
    oldest_activate_ = (oldest_activate_ + 1) % activates_.size();
    bank.row = row;
    bank.read = at + timing_.rcd_read;
    bank.write = at + timing_.rcd_write;
    bank.precharge = at + timing_.ras;
}

// Precharges an open bank from `when` on. Returns the clock from which on it is closed.
int64_t Channel::close(int64_t when, uint32_t number) {
    Bank& bank = banks_[number];
    if (bank.row == kClosed) return when;
    const int64_t at = std::max(when, bank.precharge);
    log(at, DLAVM_MEMORY_PRECHARGE, number, bank.row);
    bank.row = kClosed;
    run_.length = 0;
    return at + timing_.rp;
}

// The clock of an access's column command.
int64_t Channel::column(int64_t when, const Bank& bank, const Group& group, bool write) const {
    const int64_t turned = write ? read_end_ + timing_.rtw - timing_.cwl
                                 : std::max(write_end_ + timing_.wtr_s, group.written + timing_.wtr_l);
    return latest(when, write ? bank.write : bank.read, column_ + timing_.ccd_s, group.column + timing_.ccd_l,
                  turned);
}

void Channel::use(int64_t at, Bank& bank, Group& group, bool write) {
    group.column = bank.used = at;
    const int64_t end = at + (write ? timing_.cwl : timing_.cl) + timing_.burst_clocks;
    if (write)
        write_end_ = group.written = end;
    else
        read_end_ = end;
    bank.precharge = std::max(bank.precharge, write ? end + timing_.wr : at + timing_.rtp);
}

// The port passes one a cycle.
void Channel::show_to(Burst& read, uint64_t bytes, int64_t at) {
    const auto complete = static_cast<uint32_t>(std::min<uint64_t>(beat_.quotient(bytes), read.beats));
    if (complete == read.shown) return;
    ready_.add(cycle_of(at + timing_.cl + timing_.burst_clocks + timing_.response), complete - read.shown);
    read.shown = complete;
}

void Channel::refresh(int64_t when) {
    for (; next_refresh_ <= when; next_refresh_ += timing_.refresh_interval) {
        if (timing_.refresh_banks != 1) {
            refresh_all(next_refresh_);
            continue;
        }
        ++owed_;
        while (owed_ != 0 && refresh_one(next_refresh_)) --owed_;
    }
    while (owed_ != 0 && refresh_one(when)) --owed_;
}

void Channel::refresh_all(int64_t due) {
    int64_t start = due;
    for (uint32_t b = 0; b < banks_.size(); ++b) start = std::max({start, close(due, b), banks_[b].activate});
    log(start, DLAVM_MEMORY_REFRESH, 0, 0);
    for (Bank& bank : banks_) bank.activate = start + timing_.refresh_clocks;
    refresh_from_ = start;
    refresh_until_ = start + timing_.refresh_clocks;
}

bool Channel::refreshing(uint64_t cycle) {
    advance(arrival_of(cycle));
    const int64_t clock = clock_of(cycle) - timing_.response;
    return clock >= refresh_from_ &&
           clock < refresh_until_ + timing_.rcd_read + timing_.cl + timing_.burst_clocks;
}

// Of the banks whose turn in this round is still to come, the one that was left last: a stream that walks the
// banks comes back to it latest. One in use is taken only when too much is owed.
bool Channel::refresh_one(int64_t when) {
    const bool must = owed_ > timing_.refresh_postponed;
    if (when <= due_used_ && !must) return false;
    const auto used = [&](uint32_t bank) { return banks_[bank].used; };
    size_t best = due_.size();
    int64_t latest = INT64_MIN;
    for (size_t i = 0; i < due_.size(); ++i) {
        const int64_t at = used(due_[i]);
        if (at >= when || at <= latest) continue;
        latest = at;
        best = i;
    }
    if (best == due_.size()) {
        const auto first = std::min_element(due_.begin(), due_.end(),
                                            [&](uint32_t a, uint32_t b) { return used(a) < used(b); });
        due_used_ = used(*first);
        if (!must) return false;
        best = static_cast<size_t>(first - due_.begin());
    }
    const uint32_t number = due_[best];
    Bank& bank = banks_[number];
    const int64_t start = std::max(close(when, number), bank.activate);
    log(start, DLAVM_MEMORY_REFRESH, number, 0);
    bank.activate = start + timing_.refresh_clocks;
    due_.erase(due_.begin() + static_cast<ptrdiff_t>(best));
    if (due_.empty()) begin_round();
    return true;
}

void Channel::begin_round() {
    due_.resize(banks_.size());
    std::iota(due_.begin(), due_.end(), 0);
    due_used_ = kLongAgo;
}

void Channel::log(int64_t clock, uint32_t kind, uint32_t bank, uint64_t row) {
    if (recording_) recorded_.push_back({static_cast<uint64_t>(clock), row, kind, bank});
}

}  // namespace dlavm::timing
