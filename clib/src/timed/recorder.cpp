#include "timed/recorder.h"

#include <algorithm>

#include "abi/misuse.h"

namespace dlavm::timed {

namespace {

constexpr uint32_t kFront = FrontEnd::kQueues;  // its track
constexpr const char* kTracks[] = {"matrix", "vector", "store", "front"};

constexpr const char* kNames[] = {
    "nothing", "semaphore",   "hand_over", "work",   "stream",   "decode", "weights",     "cache",
    "turn",    "activations", "operands",  "source", "epilogue", "write",  "acknowledge", "pipeline",
    "off",     "fetch",       "control",   "full",   "fence",    "load",
};
constexpr const char* kHow[] = {"", "/latency", "/refresh"};

static_assert(sizeof kNames / sizeof *kNames == static_cast<size_t>(Wait::kCount));

bool of_engine(Wait wait) { return wait >= Wait::kWork && wait < Wait::kOff; }

bool is_work(Wait wait) { return wait == Wait::kWork || wait == Wait::kStream; }

uint32_t track_of(int engine) {
    switch (static_cast<isa::Engine>(engine)) {
        case isa::Engine::kVector:
            return FrontEnd::kVector;
        case isa::Engine::kStore:
            return FrontEnd::kStore;
        default:
            return FrontEnd::kMatrix;
    }
}

}  // namespace

Recorder::Recorder(const std::string& path, uint64_t begin, uint64_t least, const Shape& shape)
    : out_(path, std::ios::trunc),
      begin_(begin),
      least_(least),
      spaces_(shape.spaces.size()),
      looked_(begin),
      next_sample_(begin + window_) {
    if (!out_) {
        throw abi::Misuse{DLAVM_SYSTEM, "option profile: expected a file that can be written, got " + path};
    }
    for (Track& track : tracks_) track.since = track.charged = begin;
    tracks_[kFront].wait = Wait::kFetch;
}

// Counts the cycles up to `end` for what the track has been waiting for. Only in the last of them, which was
// stepped, beats may have passed.
void Recorder::charge(Track& track, uint64_t end) {
    if (end <= track.charged) return;
    const uint64_t cycles = end - track.charged;
    const bool memory = of_memory(track.wait);
    const auto add = [&](How how, uint64_t count) {
        const auto index = static_cast<uint32_t>(memory ? how : How::kMoves);
        track.hows[index] += count;
        if (of_engine(track.wait)) track.sums[static_cast<uint32_t>(track.wait)][index] += count;
    };
    add(how_, 1);
    add(How::kRefreshes, std::min(refreshed_, cycles - 1));
    add(How::kWaits, cycles - 1 - std::min(refreshed_, cycles - 1));
    track.charged = end;
}

void Recorder::write_run(uint32_t number, uint64_t end) {
    const Track& track = tracks_[number];
    if (end == track.since || is_work(track.wait)) return;
    if (of_engine(track.wait) && end - track.since < least_) return;
    out_ << "wait," << kTracks[number] << ',' << kNames[static_cast<uint32_t>(track.wait)] << ','
         << track.since - begin_ << ',' << end - begin_ << ',' << track.detail << ',' << track.pc;
    for (const uint64_t how : track.hows) out_ << ',' << how;
    out_ << '\n';
}

// What the track waits for from cycle `now` on.
void Recorder::change(uint32_t number, Wait wait, uint64_t detail, uint64_t pc, uint64_t now) {
    Track& track = tracks_[number];
    charge(track, now);
    if (wait == track.wait && detail == track.detail && pc == track.pc) return;
    write_run(number, now);
    track.wait = wait;
    track.detail = detail;
    track.pc = pc;
    track.since = now;
    track.hows.fill(0);
}

void Recorder::look(const Twin& twin) {
    const uint64_t now = twin.now(), next = now + 1;
    const Fabric& fabric = twin.fabric();
    how_ = fabric.moves(now) ? How::kMoves : fabric.refreshing(now, asked_) ? How::kRefreshes : How::kWaits;
    refreshed_ = 0;
    for (; looked_ < now; ++looked_) refreshed_ += fabric.refreshing(looked_, asked_);
    looked_ = next;
    asked_ = fabric.asked();
    for (uint32_t q = 0; q < FrontEnd::kQueues; ++q) {
        const EngineQueue& queue = twin.queues()[q];
        const Wait wait = queue.waits(next);
        change(q, wait, wait == Wait::kSemaphore ? queue.semaphore() : 0, 0, next);
    }
    const CommandPtr& command = twin.front().command();
    const bool known = command && !command->fault;
    change(kFront, twin.front().waits(), known ? command->number : 0, known ? command->pc : 0, next);
    if (next >= next_sample_) sample(twin, next);
}

// In the cycle in which its queue finds it done. The first cycle, in which it was handed over, counts as
// decoding.
void Recorder::command(const Command& command, const Span& span) {
    const uint32_t number = track_of(command.engine);
    Track& track = tracks_[number];
    change(number, Wait::kHandOver, 0, 0, span.end);
    ++track.sums[static_cast<uint32_t>(Wait::kDecode)][0];
    out_ << "command," << kTracks[number] << ',' << command.number << ',' << command.pc << ','
         << span.queued - begin_ << ',' << span.begin - begin_ << ',' << span.end - begin_ << ',';
    for (uint32_t i = 0; i < command.payload; ++i) out_ << (i == 0 ? "" : " ") << command.words[i];
    out_ << ',';
    const char* separator = "";
    for (uint32_t w = 0; w < kWaits; ++w) {
        for (uint32_t h = 0; h < kHows; ++h) {
            if (track.sums[w][h] == 0) continue;
            out_ << separator << kNames[w] << kHow[h] << '=' << track.sums[w][h];
            separator = " ";
            track.sums[w][h] = 0;
        }
    }
    out_ << '\n';
}

// Every window_ cycles; with kSamples of them every second one goes, and the window doubles.
void Recorder::sample(const Twin& twin, uint64_t end) {
    Sample made;
    made.end = end;
    for (uint32_t s = 0; s < spaces_; ++s) made.spaces.push_back(twin.fabric().traffic(s, end));
    samples_.push_back(made);
    next_sample_ = end + window_;
    if (samples_.size() < kSamples) return;
    for (size_t i = 0; i < kSamples / 2; ++i) samples_[i] = samples_[2 * i + 1];
    samples_.resize(kSamples / 2);
    window_ *= 2;
}

void Recorder::write_samples() {
    std::vector<Fabric::Traffic> last(spaces_);
    uint64_t from = begin_;
    for (const Sample& sample : samples_) {
        for (size_t s = 0; s < spaces_; ++s) {
            const Fabric::Traffic& now = sample.spaces[s];
            out_ << "memory," << s << ',' << from - begin_ << ',' << sample.end - begin_ << ','
                 << now.read_beats - last[s].read_beats << ',' << now.written_beats - last[s].written_beats
                 << ',' << now.busy - last[s].busy << '\n';
            last[s] = now;
        }
        from = sample.end;
    }
}

void Recorder::finish(const Twin& twin) {
    const uint64_t end = twin.end();
    for (uint32_t number = 0; number < tracks_.size(); ++number) {
        charge(tracks_[number], end);
        write_run(number, end);
    }
    sample(twin, end);
    write_samples();
    out_ << "end," << end - begin_ << '\n';
    out_.close();
}

}  // namespace dlavm::timed
