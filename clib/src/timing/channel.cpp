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
      banks_(size_t{timing.groups} * timing.banks),
      groups_(timing.groups),
      window_(timing.window, kLongAgo),
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

Channel::Burst Channel::burst(int64_t arrival, uint64_t address, uint32_t beats) const {
    const uint64_t bytes = uint64_t{beats} * timing_.beat_bytes;
    return {arrival, address, bytes, burst_.quotient(address), burst_.quotient(address + bytes - 1),
            beats,   0};
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
    reads_.push_back(burst(arrival_of(cycle), address, beats));
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
    writes_.push_back(burst(arrival, address, beats));
    responses_.push_back(std::max(cycle_of(arrival + timing_.response), cycle + 1));
    quiet_ = kLongAgo;
}

void Channel::take_beats(uint32_t beats) {
    ready_.take(beats);
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
// come between. An access is chosen in the clock of the one before and has the next one, or that of its arrival.
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
        if (writing != writing_) served_ = 0;
        writing_ = writing;

        Ring<Burst>& queue = writing ? writes_ : reads_;
        Burst& first = queue.front();
        const int64_t at = latest(when, column + 1);
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
    for (Target to = target(first.access);; step(to, first.access)) {
        Bank& bank = banks_[to.bank];
        Group& group = groups_[to.group];
        if (bank.row != to.row) open_row(when, to.bank, group, to.row);
        const int64_t at = column(when, bank, group, write);
        log(at, write ? DLAVM_MEMORY_WRITE : DLAVM_MEMORY_READ, to.bank, to.row);
        ++served_;
        window_[place_] = at;
        if (++place_ == window_.size()) place_ = 0;
        const int64_t end = at + (write ? timing_.cwl : timing_.cl) + timing_.burst_clocks;
        if (!write) show(first, end + timing_.response);
        if (first.access++ == first.last) {
            if (write) leaving_.push_back(cycle_of(end));
            return;
        }
        when = latest(when, window_[place_]);
        if (when >= limit) return;
        chosen_ = when;
        if (next_refresh_ <= when || owed_ != 0) refresh(when);
    }
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
    for (size_t i = 0; i < writes_.size(); ++i) {
        const Burst& w = writes_[i];
        if (w.arrival > read.arrival) return false;
        if (w.address < read.address + read.bytes && read.address < w.address + w.bytes) return true;
    }
    return false;
}

// Address bits from below: the byte in a burst, groups that are interleaved, column, bank, other groups, row.
Target Channel::target(uint64_t access) const {
    const uint32_t low = interleaved_.digit(access);
    const uint32_t column = columns_.digit(access);
    const uint32_t in_group = banks_of_group_.digit(access);
    const uint32_t group = outer_groups_.digit(access) * timing_.interleave + low;
    return {group, group * timing_.banks + in_group, low, column, access};
}

// From the access before to this one.
void Channel::step(Target& to, uint64_t access) const {
    if (to.low + 1 != timing_.interleave) {
        ++to.low;
        ++to.group;
        to.bank += timing_.banks;
    } else if (++to.column != columns_.value()) {
        to.low = 0;
        to.group -= timing_.interleave - 1;
        to.bank -= (timing_.interleave - 1) * timing_.banks;
    } else {
        to = target(access);
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
    return at + timing_.rp;
}

int64_t Channel::column(int64_t when, Bank& bank, Group& group, bool write) {
    const int64_t turned = write ? read_end_ + timing_.rtw - timing_.cwl
                                 : std::max(write_end_ + timing_.wtr_s, group.written + timing_.wtr_l);
    const int64_t at = latest(when, write ? bank.write : bank.read, column_ + timing_.ccd_s,
                              group.column + timing_.ccd_l, turned);
    column_ = group.column = bank.used = at;
    const int64_t end = at + (write ? timing_.cwl : timing_.cl) + timing_.burst_clocks;
    if (write)
        write_end_ = group.written = end;
    else
        read_end_ = end;
    bank.precharge = std::max(bank.precharge, write ? end + timing_.wr : at + timing_.rtp);
    return at;
}

// The beats that are complete with the read's next access; the port passes one a cycle.
void Channel::show(Burst& read, int64_t clock) {
    const uint64_t bytes = (read.access + 1) * timing_.burst_bytes - read.address;
    const auto complete = static_cast<uint32_t>(std::min<uint64_t>(beat_.quotient(bytes), read.beats));
    if (complete == read.shown) return;
    ready_.add(cycle_of(clock), complete - read.shown);
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
    size_t best = due_.size(), forced = 0;
    int64_t latest = INT64_MIN, earliest = INT64_MAX;
    for (size_t i = 0; i < due_.size(); ++i) {
        const int64_t used = banks_[due_[i]].used;
        if (used < earliest) {
            earliest = used;
            forced = i;
        }
        if (used < when && used > latest) {
            latest = used;
            best = i;
        }
    }
    if (best == due_.size()) {
        due_used_ = earliest;
        if (!must) return false;
        best = forced;
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
