// Random traffic on memory channels of random timings: all that is asked for comes, in order, when it was
// said to; and a channel that takes short ways answers as one that records commands, and so takes none. Built
// with sanitizers by tests/unit/test_timing_sanitizers.py. Prints how often what was reached.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <random>

#include "timing/channel.h"

namespace {

using dlavm::timing::Channel;

std::mt19937_64 rng;

uint32_t from(uint32_t least, uint32_t most) {
    return std::uniform_int_distribution<uint32_t>(least, most)(rng);
}

void require(bool holds, const char* what) {
    if (holds) return;
    std::printf("wrong: %s\n", what);
    std::exit(1);
}

dlavm_memory_timing random_timing() {
    dlavm_memory_timing t{};
    const bool one = from(0, 1) != 0;
    for (uint32_t* figure :
         {&t.clocks, &t.cycles,  &t.cl,       &t.cwl,   &t.rcd_read, &t.rcd_write, &t.rp,   &t.ras,
          &t.rrd_s,  &t.rrd_l,   &t.faw,      &t.ccd_l, &t.wtr_s,    &t.wtr_l,     &t.rtp,  &t.wr,
          &t.rtw,    &t.request, &t.response, &t.reads, &t.writes,   &t.window,    &t.batch})
        *figure = from(1, 12);
    t.beat_bytes = 16u << from(0, 2);
    t.burst_bytes = 16u << from(0, 2);
    t.burst_clocks = from(1, 4);
    t.ccd_s = from(t.burst_clocks, 6);
    t.groups = t.interleave = 1u << from(0, 2);
    t.banks = 1u << from(0, 2);
    t.page_bytes = 64u << from(0, 3);
    t.refresh_interval = from(150, 400);
    t.refresh_clocks = from(0, 40);
    t.refresh_banks = one ? 1 : t.groups * t.banks;
    t.refresh_postponed = one ? from(0, 8) : 0;
    return t;
}

// RAM, mostly such that a channel chooses whole bursts.
dlavm_memory_timing random_ram() {
    dlavm_memory_timing t{};
    t.clocks = from(1, 3);
    t.cycles = from(1, 4) == 1 ? 2 : 1;
    t.beat_bytes = t.page_bytes = 64;
    t.burst_bytes = from(1, 6) == 1 ? 32 : 64;
    t.burst_clocks = t.groups = t.banks = t.interleave = t.ccd_s = t.ccd_l = t.refresh_banks = 1;
    t.refresh_interval = 1000000000;
    t.request = from(0, 9);
    t.response = from(0, 12);
    t.reads = from(1, 32);
    t.writes = from(1, 32);
    t.window = from(1, 6) == 1 ? 2 : 1;
    t.batch = from(0, 1) != 0 ? 1 : from(2, 9);
    return t;
}

struct Seen {
    uint64_t beats = 0, responses = 0, full = 0, foretold = 0, together = 0;
};

// The master of one channel.
struct Port {
    Channel channel;
    dlavm_memory_timing timing;
    uint32_t reads = from(0, 20), writes = from(0, 20);  // still to be asked for
    uint64_t beats = 0, responses = 0, data = 0;         // owed; beats that a write still has to send
    uint64_t foretold_beat = DLAVM_MEMORY_NEVER, foretold_response = DLAVM_MEMORY_NEVER;

    bool over() const { return reads + writes + beats + responses + data == 0; }

    // What was foretold holds, as nothing was asked for since.
    void answers(uint64_t cycle, bool willing, Seen& seen) {
        const bool beat = channel.beat_ready(cycle), response = channel.response_ready(cycle);
        require(beat == (foretold_beat <= cycle), "a beat comes when it was foretold");
        require(response == (foretold_response <= cycle), "a response comes when it was foretold");
        require(!beat || beats != 0, "a beat that nobody asked for");
        if (beat && willing) {
            channel.take_beat();
            --beats;
            ++seen.beats;
        }
        if (response && willing) {
            channel.take_response();
            --responses;
            ++seen.responses;
        }
        seen.foretold += beat && foretold_beat == cycle;
    }

    void asks(uint64_t cycle, Seen& seen) {
        if (data != 0) {
            channel.write_beat(cycle);
            --data;
        }
        const uint32_t count = from(1, 16);
        const uint64_t address = uint64_t{from(0, 500)} * timing.beat_bytes;
        if (reads != 0 && from(0, 3) == 0) {
            const bool room = channel.read_room(cycle);
            seen.full += !room;
            if (room) {
                channel.read(cycle, address, count);
                beats += count;
                --reads;
            }
        } else if (writes != 0 && data == 0) {
            const bool room = channel.write_room(cycle);
            require(channel.write_room_bound() <= channel.next_write_room(), "no room before its bound");
            require(room == (channel.next_write_room() <= cycle), "there is room when it was foretold");
            seen.full += !room;
            if (room) {
                channel.write(cycle, address, count);
                data = count;
                ++responses;
                --writes;
            }
        }
    }
};

// A channel with short ways, and the same without, whose beats come and are taken one by one.
struct Pair {
    Channel quick, slow;
    uint32_t beat_bytes, longest = from(0, 1) != 0 ? 4 : 64, calm = from(2, 30), lazy = from(1, 4);
    uint64_t told_until = 0, last = 0;  // data of a write that was told in one call; the last address
    std::deque<uint32_t> reads{}, data{};
    uint64_t responses = 0;

    template <class Ask>
    auto both(const char* what, Ask ask) {
        const auto answer = ask(quick);
        require(answer == ask(slow), what);
        return answer;
    }
    uint64_t address(uint32_t beats) {  // often the one behind the last burst
        if (from(0, 2) == 0) last = uint64_t{from(0, 500)} * beat_bytes;
        last += uint64_t{beats} * beat_bytes;
        return last - uint64_t{beats} * beat_bytes;
    }

    void takes(uint64_t cycle, Seen& seen) {
        both("a beat", [&](Channel& c) { return c.beat_ready(cycle); });
        const uint32_t most = from(1, 40);
        const uint32_t ready = both("beats", [&](Channel& c) { return c.beats_from(cycle, most); });
        if (ready != 0 && from(1, lazy) == 1) {
            const uint32_t beats = from(1, ready);
            quick.take_beats(beats);
            for (uint32_t i = 0; i < beats; ++i) {
                slow.take_beat();
                if (--reads.front() == 0) reads.pop_front();
            }
            seen.together += beats > 1;
        }
        both("when the next response is", [](Channel& c) { return c.next_response(); });
        if (!both("a response", [&](Channel& c) { return c.response_ready(cycle); }) || from(1, lazy) != 1)
            return;
        quick.take_response();
        slow.take_response();
        --responses;
    }

    void asks(uint64_t cycle) {
        if (!data.empty() && cycle > told_until && from(0, 4) != 0) {
            quick.write_beat(cycle);
            slow.write_beat(cycle);
            if (--data.front() == 0) data.pop_front();
        }
        const uint32_t beats = from(1, longest);
        if (from(1, calm) == 1 && both("room to read", [&](Channel& c) { return c.read_room(cycle); })) {
            const uint64_t at = address(beats);
            quick.read(cycle, at, beats);
            slow.read(cycle, at, beats);
            reads.push_back(beats);
        }
        if (cycle <= told_until || from(1, calm) != 1) return;
        if (!both("room to write", [&](Channel& c) { return c.write_room(cycle); })) return;
        const uint64_t at = address(beats);
        ++responses;
        slow.write(cycle, at, beats);
        if (!data.empty() || from(0, 1) != 0) {
            quick.write(cycle, at, beats);
            data.push_back(beats);
            return;
        }
        told_until = cycle + beats;
        quick.write_burst(cycle, at, beats);
        for (uint64_t beat = cycle + 1; beat <= told_until; ++beat) slow.write_beat(beat);
    }

    void foretells(uint64_t cycle) {
        both("a bound of beats", [](Channel& c) { return c.beat_bound(); });
        both("a bound of room", [](Channel& c) { return c.write_room_bound(); });
        if (from(0, 49) == 0) both("the next beat", [](Channel& c) { return c.next_beat(); });
        if (from(0, 49) == 0) both("the next room", [](Channel& c) { return c.next_write_room(); });
        both("a refresh", [&](Channel& c) { return c.refreshing(cycle); });
    }
};

void short_ways(Seen& seen) {
    const dlavm_memory_timing timing = from(0, 1) != 0 ? random_ram() : random_timing();
    require(dlavm::timing::problem(timing) == nullptr, "a timing that is none");
    Pair pair{Channel(timing), Channel(timing), timing.beat_bytes};
    pair.slow.record();
    const bool asks_much = from(0, 1) != 0;
    for (uint64_t cycle = 0; cycle < 2000; cycle += from(0, 99) == 0 ? from(1, 500) : 1) {
        if (!pair.reads.empty() || pair.responses != 0) pair.takes(cycle, seen);
        pair.asks(cycle);
        if (asks_much) pair.foretells(cycle);
    }
    // Short ways are left in the middle of a burst, and nobody sees it.
    pair.quick.record();
    for (uint64_t cycle = 3000; cycle < 20000; ++cycle) pair.takes(cycle, seen);
}

void round(Seen& seen) {
    const dlavm_memory_timing timing = random_timing();
    require(dlavm::timing::problem(timing) == nullptr, "a timing that is none");
    Port port{Channel(timing), timing};
    const uint32_t calm = from(1, 3);
    for (uint64_t cycle = 0; !port.over(); ++cycle) {
        require(cycle < 1000000, "it does not end");
        port.answers(cycle, from(1, calm) == 1, seen);
        port.asks(cycle, seen);
        port.foretold_beat = port.channel.next_beat();
        require(port.channel.beat_bound() <= port.foretold_beat, "no beat before its bound");
        port.foretold_response = port.channel.next_response();
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
    Seen seen;
    for (int i = 0; i < rounds; ++i) {
        rng.seed(static_cast<uint64_t>(i));
        round(seen);
        short_ways(seen);
    }
    std::printf("beats %llu responses %llu full %llu foretold %llu together %llu\n",
                static_cast<unsigned long long>(seen.beats), static_cast<unsigned long long>(seen.responses),
                static_cast<unsigned long long>(seen.full), static_cast<unsigned long long>(seen.foretold),
                static_cast<unsigned long long>(seen.together));
}
