// Random clients of random fabrics over random memory: everything that is asked for comes, and nothing else.
// Built with sanitizers by tests/unit/test_timing_sanitizers.py. Prints how often what was reached.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "timed/fabric.h"

namespace {

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
    const uint32_t groups = 1u << from(0, 2), banks = 1u << from(0, 2), burst = from(1, 4);
    const bool one = from(0, 1) != 0;
    t.clocks = from(1, 7);
    t.cycles = from(1, 7);
    t.beat_bytes = 16;
    t.burst_bytes = 16u << from(0, 2);
    t.burst_clocks = burst;
    t.groups = t.interleave = groups;
    t.banks = banks;
    t.page_bytes = 64u << from(0, 3);
    for (uint32_t* figure : {&t.cl, &t.cwl, &t.rcd_read, &t.rcd_write, &t.rp, &t.ras, &t.rrd_s, &t.rrd_l,
                             &t.faw, &t.ccd_l, &t.wtr_s, &t.wtr_l, &t.rtp, &t.wr, &t.rtw})
        *figure = from(1, 12);
    t.ccd_s = from(burst, 6);
    t.refresh_interval = from(150, 400);
    t.refresh_clocks = from(0, 40);
    t.refresh_banks = one ? 1 : groups * banks;
    t.refresh_postponed = one ? from(0, 8) : 0;
    t.request = from(0, 20);
    t.response = from(0, 20);
    t.reads = from(1, 8);
    t.writes = from(1, 8);
    t.window = from(1, 8);
    t.batch = from(1, 20);
    return t;
}

struct Seen {
    uint64_t requests = 0, outside = 0, beats = 0, cycles = 0;
};

struct Client {
    uint32_t left, owed;  // requests still to make; beats to come or to give
};

uint64_t random_address(uint64_t capacity, Seen& seen) {
    if (from(0, 19) == 0) {
        ++seen.outside;
        return capacity - 16;
    }
    return uint64_t{from(0, static_cast<uint32_t>(capacity / 16 - 200))} * 16;
}

void round(Seen& seen) {
    dlavm_fabric_shape shape{};
    shape.readers = from(1, 4);
    shape.writers = from(1, 3);
    shape.units = 4;
    shape.spaces = 2;
    for (uint32_t s = 0; s < 2; ++s) shape.space[s] = {s << 20, 1 << 16, 1u << from(0, 2), random_timing()};
    for (uint32_t s = 0; s < 2; ++s)
        require(dlavm::timing::problem(shape.space[s].timing) == nullptr, "a timing that is none");
    dlavm::timed::Fabric fabric(shape);
    std::vector<Client> readers(shape.readers, {from(0, 10), 0}), writers(shape.writers, {from(0, 10), 0});
    const uint32_t calm = from(1, 4);
    for (uint64_t cycle = 0;; ++cycle) {
        require(cycle < 1000000, "it does not end");
        bool over = true;
        for (uint32_t i = 0; i < shape.readers; ++i) {
            Client& c = readers[i];
            if (fabric.reader(i).beat(shape.units) && from(1, calm) == 1) {
                require(c.owed != 0, "a beat that nobody asked for");
                --c.owed;
                ++seen.beats;
                fabric.take(i);
            }
            if (c.left != 0 && fabric.reader(i).requests.size() < dlavm::timed::kRequests) {
                const uint32_t units = from(1, 150), space = from(0, 1);
                fabric.read(i, (space << 20) + random_address(1 << 16, seen), units);
                c.owed += (units + shape.units - 1) / shape.units;
                --c.left;
                ++seen.requests;
            }
            over = over && c.left == 0 && c.owed == 0;
        }
        for (uint32_t i = 0; i < shape.writers; ++i) {
            Client& c = writers[i];
            if (c.owed != 0 && from(1, calm) == 1) {
                c.owed -= fabric.writer(i).beat_room();
                fabric.put(i);
            }
            if (c.left != 0 && fabric.writer(i).requests.size() < dlavm::timed::kRequests) {
                const uint32_t units = from(1, 150), space = from(0, 1);
                fabric.write(i, (space << 20) + random_address(1 << 16, seen), units);
                c.owed += (units + shape.units - 1) / shape.units;
                --c.left;
                ++seen.requests;
            }
            over = over && c.left == 0 && c.owed == 0 && fabric.writer(i).idle();
        }
        fabric.step();
        ++seen.cycles;
        if (over) break;
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
    std::printf("requests %llu outside %llu beats %llu cycles %llu\n", (unsigned long long)seen.requests,
                (unsigned long long)seen.outside, (unsigned long long)seen.beats,
                (unsigned long long)seen.cycles);
}
