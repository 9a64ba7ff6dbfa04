// Random traffic on memory channels of random timings: all that is asked for comes, in order, when it was
// said to. Built with sanitizers by tests/unit/test_timing_sanitizers.py. Prints how often what was reached.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
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

struct Seen {
    uint64_t beats = 0, responses = 0, full = 0, foretold = 0;
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
    }
    std::printf("beats %llu responses %llu full %llu foretold %llu\n",
                static_cast<unsigned long long>(seen.beats), static_cast<unsigned long long>(seen.responses),
                static_cast<unsigned long long>(seen.full), static_cast<unsigned long long>(seen.foretold));
}
