// A device that does nothing and is content with everything, for tests that link no other.
#include "dlavm/device.h"

extern "C" {

int dlavm_open(const char*, const dlavm_config*, dlavm_device**) { return DLAVM_NOT_FOUND; }
void dlavm_close(dlavm_device*) {}
const char* dlavm_error(const dlavm_device*) { return "a fake"; }
int dlavm_info(const dlavm_device*, dlavm_device_info*) { return DLAVM_OK; }
int dlavm_set_option(dlavm_device*, const char*, const char*) { return DLAVM_OK; }
int dlavm_mem_read(dlavm_device*, uint64_t, void*, uint64_t) { return DLAVM_OK; }
int dlavm_mem_write(dlavm_device*, uint64_t, const void*, uint64_t) { return DLAVM_OK; }
int dlavm_mem_map(dlavm_device*, uint64_t, uint32_t, const char*, uint64_t) { return DLAVM_OK; }
int dlavm_csr_read(dlavm_device*, uint32_t, uint32_t*) { return DLAVM_OK; }
int dlavm_csr_write(dlavm_device*, uint32_t, uint32_t) { return DLAVM_OK; }
int dlavm_run(dlavm_device*, uint64_t, uint64_t*) { return DLAVM_OK; }
int dlavm_counters_read(dlavm_device*, dlavm_counters*) { return DLAVM_OK; }
}
