// The C interface of every engine that runs dlavm programs: simulators, the Verilated core, boards.
//
// Every function returns 0 on success, a negative dlavm_status where the call itself is wrong, and the
// positive code of targets/isa/enums.yaml ("error") where the core stopped. dlavm_error() then holds one line
// of text.
//
// A device may be used from several threads, one call at a time goes through. Writing CONTROL.reset is the
// exception: it stops a dlavm_run() of another thread at the next command.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DLAVM_ABI_VERSION 2
#define DLAVM_MAX_MEMORIES 4

typedef enum {
    DLAVM_OK = 0,
    DLAVM_BAD_ARGUMENT = -1,  // a null pointer, a value out of range, an ABI version that differs
    DLAVM_BAD_ADDRESS = -2,   // bytes outside every memory space
    DLAVM_BAD_REGISTER = -3,  // no such register on this target, or the wrong direction
    DLAVM_NOT_FOUND = -4,     // a file, a URL scheme or an option that is not there
    DLAVM_SYSTEM = -5,        // the operating system refused
} dlavm_status;

// One memory space: `channels` ports of `port_bytes`, striped in beats of one port width. Sizes in bytes.
typedef struct {
    uint64_t base, capacity;
    uint32_t channels, port_bytes;
} dlavm_memory_config;

// What a program may rely on: limits of the target, memories and buffers of the board.
typedef struct {
    uint32_t abi_version;  // DLAVM_ABI_VERSION
    uint32_t id;           // register ID: first 32 bits of the target hash
    uint32_t
        header_words;  // 0: commands come over registers, otherwise words before the payload of a command
    uint32_t scalar_registers, semaphores, loop_depth, call_depth, act_slots;
    uint32_t memory_count;
    dlavm_memory_config memories[DLAVM_MAX_MEMORIES];
    uint64_t opcode_mask[4];       // bit n of word n / 64: the target has opcode n
    uint32_t activation_elements;  // of the activation buffer
    uint32_t accumulators;         // fp32 numbers
    uint32_t weight_formats;       // bit n: LINEAR takes the weight format n
} dlavm_config;

// Counters since CONTROL.start; cycles is 0 on the functional simulator.
typedef struct {
    uint64_t cycles, commands, bytes_read, bytes_written;
} dlavm_counters;

typedef struct {
    const char* engine;  // "sim", "timed", "rtl", "xdma"; behind tcp: that of the other machine
    const char* simd;    // "portable", "avx2", "avx512" or "avx512vnni"; "none" on a card
    uint32_t threads;    // that work on one command; 0 on a card
    uint32_t abi_version;
} dlavm_device_info;

typedef struct dlavm_device dlavm_device;

// Opens a device by URL. `config` is copied.
//   sim:              the functional simulator
//   timed:SIZES       the same with the cycles of the RTL of these sizes, "units=2,lanes=8,..": doc/timing.md
//   rtl:/path/x.so    a Verilated core (dlavm/rtl_model.h), with memory here
//   xdma:/dev/xdma0   a card behind the public Xilinx XDMA driver: /dev/xdma0_h2c_0, _c2h_0, _user
//   tcp:host:port     a device on another machine, behind a device server; IPv6 in brackets. The file that
//                     the variable DLAVM_DEVICE_SECRET_FILE names holds the server's secret, if it has one.
int dlavm_open(const char* url, const dlavm_config* config, dlavm_device** out);
void dlavm_close(dlavm_device* device);

// Text of the last failed call of this thread; static until the thread's next failure, "" where nothing
// failed. With a device: the last failure on this device by any thread.
const char* dlavm_error(const dlavm_device* device);

int dlavm_info(const dlavm_device* device, dlavm_device_info* out);

// sim: threads, a number (0: one per processor); simd: auto, portable, avx2, avx512, avx512vnni;
// check_hazards: 0 or 1 (default 1). rtl: latency of memory in cycles, or board, its own timing (the
// default), timing, changes of that ("refresh_clocks=0 cl=9"), stalls a channel makes in 1000 cycles (0) from
// seed (1), fault, a byte of channel 0 whose beat is answered with an error (none), max_cycles of a run.
// timed: those of sim; latency and timing as rtl; memoryN, the whole timing of space N ("clocks=9 cycles=4
// .."), without which the latency is 40; timing_only (1: commands write nothing); trace, a CSV file of a
// run's commands; fold and skip (0: plainer ways to the same cycles). xdma: timeout_ms, after which a run is
// given up and the card reset (default 10000). tcp: the options of the device there.
int dlavm_set_option(dlavm_device* device, const char* name, const char* value);

// Copies memory at linear byte addresses; the bytes must lie in one space.
int dlavm_mem_read(dlavm_device* device, uint64_t address, void* buffer, uint64_t bytes);
int dlavm_mem_write(dlavm_device* device, uint64_t address, const void* buffer, uint64_t bytes);

// Shows the first `bytes` of a file as one channel's part of the memory from `address` on; the file is never
// written. The simulator maps it privately, other devices copy it piece by piece. `address` is a multiple of
// channels * port_bytes, its offset in the channel one of the page size.
int dlavm_mem_map(dlavm_device* device, uint64_t address, uint32_t channel, const char* path, uint64_t bytes);

// Registers by byte offset (targets/isa/registers.yaml). On a register-driven target, writing LAUNCH executes
// the command before the call returns, and returns its error code.
int dlavm_csr_read(dlavm_device* device, uint32_t offset, uint32_t* value);
int dlavm_csr_write(dlavm_device* device, uint32_t offset, uint32_t value);

// After CONTROL.start: executes commands until the program ends, stops with an error, or `max_commands` were
// fetched (0: no limit, the only value that a card or a Verilated core takes); a later call goes on.
// `executed` (may be null) receives the number of commands fetched by this call.
int dlavm_run(dlavm_device* device, uint64_t max_commands, uint64_t* executed);

int dlavm_counters_read(dlavm_device* device, dlavm_counters* out);

#ifdef __cplusplus
}
#endif
