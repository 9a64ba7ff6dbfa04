// When the memory fabric of the core (targets/rtl/memory_fabric.sv) moves what its clients ask for, cycle by
// cycle and without the bytes. It is equal to the RTL at every port of a client.
//
// A cycle: what the ports show, then what the clients do, then the edge. All channels of a space see the same
// addresses, so one stands for all.
#pragma once

#include <stdint.h>

#include "dlavm/memory_timing.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DLAVM_FABRIC_MOST_SPACES 4

// A memory space; bytes. `timing` is that of each of its channels.
typedef struct {
    uint64_t base, capacity;
    uint32_t channels;
    dlavm_memory_timing timing;
} dlavm_fabric_space;

typedef struct {
    uint32_t readers, writers;
    uint32_t units;  // of 16 bytes in a row
    uint32_t spaces;
    dlavm_fabric_space space[DLAVM_FABRIC_MOST_SPACES];
} dlavm_fabric_shape;

typedef struct dlavm_fabric dlavm_fabric;

// Null for a timing with a problem, and where a row is not whole beats of a space's channels.
dlavm_fabric* dlavm_fabric_open(const dlavm_fabric_shape* shape);
void dlavm_fabric_close(dlavm_fabric* fabric);

// What the ports of a read client show: room for a request; a beat, and whether it is a request's last.
int dlavm_fabric_read_room(const dlavm_fabric* fabric, uint32_t client);
int dlavm_fabric_beat(const dlavm_fabric* fabric, uint32_t client);
int dlavm_fabric_last(const dlavm_fabric* fabric, uint32_t client);

// Of a write client: room for a request and for a beat; whether memory has acknowledged everything.
int dlavm_fabric_write_room(const dlavm_fabric* fabric, uint32_t client);
int dlavm_fabric_beat_room(const dlavm_fabric* fabric, uint32_t client);
int dlavm_fabric_idle(const dlavm_fabric* fabric, uint32_t client);

// What the clients do in this cycle, whether the ports have room or not: nothing happens where they have
// none.
void dlavm_fabric_read(dlavm_fabric* fabric, uint32_t client, uint64_t address, uint32_t units);
void dlavm_fabric_take(dlavm_fabric* fabric, uint32_t client);
void dlavm_fabric_write(dlavm_fabric* fabric, uint32_t client, uint64_t address, uint32_t units);
void dlavm_fabric_put(dlavm_fabric* fabric, uint32_t client);

void dlavm_fabric_step(dlavm_fabric* fabric);

#ifdef __cplusplus
}
#endif
