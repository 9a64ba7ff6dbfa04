// When a memory channel answers: banks and rows, turnaround of the bus, refresh, queues (doc/timing.md). It
// holds no bytes. The same channel serves memory behind a Verilated core, cycle by cycle, and a simulator
// that goes from event to event; both see the same cycles.
//
// A cycle is the number of an edge of the core's clock, at which a handshake of AXI4 happens. Calls come in
// the order of their cycles. Reads are answered in order, and so are writes.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DLAVM_MEMORY_NEVER UINT64_MAX

// One channel. Where nothing else is said: clocks of the memory. Names are those of JEDEC without the t.
typedef struct {
    uint32_t clocks, cycles;             // so many clocks of the memory take so many cycles of the core
    uint32_t beat_bytes;                 // of the AXI port, which passes a beat a cycle each way
    uint32_t burst_bytes, burst_clocks;  // of a column command
    uint32_t groups, banks, page_bytes;  // bank groups, banks in each, bytes of a bank's row
    uint32_t interleave;                 // groups that successive bursts go round
    uint32_t cl, cwl, rcd_read, rcd_write, rp, ras, rrd_s, rrd_l, faw, ccd_s, ccd_l, wtr_s, wtr_l, rtp, wr;
    uint32_t rtw;  // the bus lies idle between a read's data and a write's
    uint32_t refresh_interval, refresh_clocks;
    uint32_t refresh_banks;      // that one refresh takes: 1 or all
    uint32_t refresh_postponed;  // with 1: how many may be owed while their banks are in use
    uint32_t request, response;  // between port and banks, there and back
    uint32_t reads, writes;      // bursts of AXI that the port holds
    uint32_t window;             // column commands that are chosen ahead
    uint32_t batch;              // column commands of one direction while the other waits
} dlavm_memory_timing;

typedef struct dlavm_memory_channel dlavm_memory_channel;

// What is wrong with a timing, as "field: expected ..", or null.
const char* dlavm_memory_problem(const dlavm_memory_timing* timing);

// Null for a timing with a problem.
dlavm_memory_channel* dlavm_memory_open(const dlavm_memory_timing* timing);
void dlavm_memory_close(dlavm_memory_channel* channel);

// Whether the port takes an address in this cycle.
int dlavm_memory_read_room(dlavm_memory_channel* channel, uint64_t cycle);
int dlavm_memory_write_room(dlavm_memory_channel* channel, uint64_t cycle);

// An INCR burst of 1..256 beats, where there is room; `address` is a multiple of beat_bytes. Data of a write
// comes after its address, a beat a call.
void dlavm_memory_read(dlavm_memory_channel* channel, uint64_t cycle, uint64_t address, uint32_t beats);
void dlavm_memory_write(dlavm_memory_channel* channel, uint64_t cycle, uint64_t address, uint32_t beats);
void dlavm_memory_write_beat(dlavm_memory_channel* channel, uint64_t cycle);

// From which cycle on the next read beat, response of a write or room for a write is there, unless more is
// asked for in between; DLAVM_MEMORY_NEVER where nothing is owed, or data of a write must come first.
uint64_t dlavm_memory_next_beat(const dlavm_memory_channel* channel);
uint64_t dlavm_memory_next_response(const dlavm_memory_channel* channel);
uint64_t dlavm_memory_next_write_room(const dlavm_memory_channel* channel);

// Whether it is there in this cycle: the same, without looking ahead.
int dlavm_memory_beat_ready(dlavm_memory_channel* channel, uint64_t cycle);
int dlavm_memory_response_ready(dlavm_memory_channel* channel, uint64_t cycle);

// What was ready has been taken.
void dlavm_memory_take_beat(dlavm_memory_channel* channel);
void dlavm_memory_take_response(dlavm_memory_channel* channel);

typedef enum {
    DLAVM_MEMORY_ACTIVATE = 0,
    DLAVM_MEMORY_PRECHARGE = 1,
    DLAVM_MEMORY_READ = 2,
    DLAVM_MEMORY_WRITE = 3,
    DLAVM_MEMORY_REFRESH = 4,  // of all banks: bank 0
} dlavm_memory_kind;

typedef struct {
    uint64_t clock, row;
    uint32_t kind, bank;  // dlavm_memory_kind; group * banks + bank
} dlavm_memory_command;

// The commands to the banks since dlavm_memory_record(), as they were decided on by the last cycle that a
// call named; valid until the next call.
void dlavm_memory_record(dlavm_memory_channel* channel);
uint64_t dlavm_memory_recorded(dlavm_memory_channel* channel, const dlavm_memory_command** out);

#ifdef __cplusplus
}
#endif
