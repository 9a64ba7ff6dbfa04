// The C interface of a Verilated core: a shared library for one target on one board, which `dlavm.rtl.model`
// builds from targets/rtl. The device `rtl:PATH` of dlavm/device.h opens it.
//
// One thread at a time. No function fails but dlavm_rtl_open.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DLAVM_RTL_VERSION 3

// A channel's bytes, which stay the caller's.
typedef struct {
    uint8_t* data;
    uint64_t bytes;
} dlavm_rtl_channel;

// How memory behaves. An answer comes `latency` cycles after its address. With `stalls`, in so many of 1000
// cycles a channel takes and gives nothing, at random from `seed`; with 1000 it never does. A beat of channel
// 0 that holds the byte `fault` is answered with an error; with DLAVM_RTL_NO_FAULT none is.
#define DLAVM_RTL_NO_FAULT UINT64_MAX
typedef struct {
    uint32_t latency, stalls;
    uint64_t seed, fault;
} dlavm_rtl_memory;

// Of a channel since the model was opened: beats, and cycles in which one was offered and not taken.
typedef struct {
    uint64_t read_beats, written_beats, stalled;
} dlavm_rtl_traffic;

typedef struct dlavm_rtl_model dlavm_rtl_model;

uint32_t dlavm_rtl_version(void);  // DLAVM_RTL_VERSION

// A core after its reset. Null where the channels are not those it was built for.
dlavm_rtl_model* dlavm_rtl_open(const dlavm_rtl_channel* channels, uint32_t count, uint32_t port_bytes);
void dlavm_rtl_close(dlavm_rtl_model* model);
void dlavm_rtl_set_memory(dlavm_rtl_model* model, const dlavm_rtl_memory* memory);

// Registers over AXI4-Lite.
uint32_t dlavm_rtl_read(dlavm_rtl_model* model, uint32_t offset);
void dlavm_rtl_write(dlavm_rtl_model* model, uint32_t offset, uint32_t value);

// Clocks the core until it is not busy, at most for `cycles`; returns how many they were.
uint64_t dlavm_rtl_run(dlavm_rtl_model* model, uint64_t cycles);

// Resets the core by its reset input and forgets what memory was asked for; its bytes stay.
void dlavm_rtl_restart(dlavm_rtl_model* model);

// Writes the waves of every signal to a file (FST) in the cycles begin .. end - 1, counted since the model
// was opened; ten units of time are a cycle. Once a model. 0, or 1 where the library was built without, or 2
// where the file cannot be written.
int dlavm_rtl_trace(dlavm_rtl_model* model, const char* path, uint64_t begin, uint64_t end);

dlavm_rtl_traffic dlavm_rtl_traffic_of(const dlavm_rtl_model* model, uint32_t channel);

#ifdef __cplusplus
}
#endif
