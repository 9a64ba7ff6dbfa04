// Serves a device to one client at a time over TCP (doc/devices.md): the other end of the engine `tcp:`.
//
// Results and texts are those of dlavm/device.h: 0 or a negative dlavm_status, dlavm_error(NULL) has the
// text. A server is used by one thread at a time.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char* secret_file;  // whose text a client has to know; null: it needs none
    uint64_t max_memory;      // bytes that the memories of a client may have together; 0: 2^37
    uint32_t greeting_ms;     // for the first message to come; 0: 5000
    uint32_t stall_ms;        // without a byte of a half message or of an answer; 0: 10000
} dlavm_server_options;

typedef struct dlavm_server dlavm_server;

// Listens at `listen`, "HOST:PORT"; port 0: a free one. `device_url` is opened when a client comes. `options`
// may be null.
int dlavm_server_open(const char* device_url, const char* listen, const dlavm_server_options* options,
                      dlavm_server** out);

// The port that it listens on, 0 for a null pointer.
uint16_t dlavm_server_port(const dlavm_server* server);

// Handles what comes, for at most `timeout_ms`; returns earlier after a signal, and when there is something
// to log.
int dlavm_server_poll(dlavm_server* server, uint32_t timeout_ms);

// The next line about clients that came and went, or null; valid until the next call.
const char* dlavm_server_log(dlavm_server* server);

// Stops a run, closes the device and every connection.
void dlavm_server_close(dlavm_server* server);

#ifdef __cplusplus
}
#endif
