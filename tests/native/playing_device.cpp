// REGISTER_TOKEN, REGISTER_KV_LEN, REGISTER_HEAD_ROWS and REGISTER_KV_BASE are the registers in which the
// program of the model has these arguments (scripts/fuzz.py).
#include "playing_device.hpp"

#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "model.hpp"

namespace {

constexpr std::uint32_t kUnknown = ~0u;  // in place of tokens that a state brought
constexpr std::uint16_t kFive = 0x4500;  // as fp16

std::map<std::uint32_t, host::Tokens> caches;  // by place
std::map<std::uint32_t, std::uint32_t> registers;
host::Tokens ids, next;

bool within(const model::Port& port, std::uint64_t address) { return address == port.address; }

// The place whose caches hold the address, or kSequences.
std::uint32_t place_of(std::uint64_t address) {
    for (const model::Cache& cache : model::kCaches) {
        if (address < cache.address) continue;
        const std::uint64_t place = (address - cache.address) / model::kSequenceStride;
        const std::uint64_t offset = (address - cache.address) % model::kSequenceStride;
        if (place < model::kSequences && offset < cache.heads * cache.head_bytes)
            return static_cast<std::uint32_t>(place);
    }
    return model::kSequences;
}

int take_failure() { return std::exchange(playing::failure, DLAVM_OK); }

void step() {
    const std::uint64_t base = std::uint64_t{registers[REGISTER_KV_BASE]} * model::kAddressUnit;
    host::Tokens& cache = caches[static_cast<std::uint32_t>(base / model::kSequenceStride)];
    cache.resize(registers[REGISTER_KV_LEN], kUnknown);
    const std::uint32_t count = registers[REGISTER_TOKEN], rows = registers[REGISTER_HEAD_ROWS];
    next.clear();
    for (std::uint32_t i = 0; i < count; ++i) {
        cache.push_back(ids.at(i));
        if (i + rows >= count) next.push_back(playing::next_token(cache));
    }
}

void write_logits(char* out, std::uint64_t bytes) {
    for (std::size_t row = 0; (row + 1) * model::kLogits.row_bytes <= bytes; ++row)
        std::memcpy(out + row * model::kLogits.row_bytes + 2 * next.at(row), &kFive, sizeof kFive);
}

}  // namespace

namespace playing {

int failure = DLAVM_OK;

std::uint32_t next_token(const host::Tokens& cached) {
    std::uint32_t hash = 2166136261u;
    for (const std::uint32_t token : cached) hash = (hash ^ token) * 16777619u;
    hash ^= hash >> 15;
    if (hash % 32 == 0) return model::kEndTokens[0];  // answers do end
    return hash / 32 % model::kVocabulary;
}

void reset() {
    caches.clear();
    failure = DLAVM_OK;
}

}  // namespace playing

extern "C" {

int dlavm_open(const char*, const dlavm_config* config, dlavm_device** out) {
    static char device;
    registers[model::kRegisterId] = config->id;
    *out = reinterpret_cast<dlavm_device*>(&device);
    return DLAVM_OK;
}

void dlavm_close(dlavm_device*) {}
const char* dlavm_error(const dlavm_device*) { return "as the test asked for"; }
int dlavm_set_option(dlavm_device*, const char*, const char*) { return DLAVM_OK; }
int dlavm_mem_map(dlavm_device*, uint64_t, uint32_t, const char*, uint64_t) { return DLAVM_OK; }

int dlavm_mem_read(dlavm_device*, uint64_t address, void* buffer, uint64_t bytes) {
    char* const out = static_cast<char*>(buffer);
    std::memset(out, 0, bytes);
    if (model::kNext && within(*model::kNext, address)) std::memcpy(out, next.data(), bytes);
    if (within(model::kLogits, address)) write_logits(out, bytes);
    return place_of(address) < model::kSequences ? take_failure() : DLAVM_OK;
}

int dlavm_mem_write(dlavm_device*, uint64_t address, const void* buffer, uint64_t bytes) {
    if (within(model::kIds, address)) {
        ids.resize(bytes / sizeof ids[0]);
        std::memcpy(ids.data(), buffer, bytes);
    }
    const std::uint32_t place = place_of(address);
    if (place == model::kSequences) return DLAVM_OK;
    const char* const in = static_cast<const char*>(buffer);
    caches[place] = {kUnknown -
                     static_cast<std::uint32_t>(std::accumulate(in, in + bytes, 0) & 1)};  // reads all
    return take_failure();
}

int dlavm_csr_read(dlavm_device*, uint32_t offset, uint32_t* value) {
    *value = registers[offset];
    return DLAVM_OK;
}

int dlavm_csr_write(dlavm_device*, uint32_t offset, uint32_t value) {
    registers[offset] = value;
    return DLAVM_OK;
}

int dlavm_run(dlavm_device*, uint64_t, uint64_t*) {
    const int status = take_failure();
    if (status == DLAVM_OK) step();
    return status;
}

int dlavm_counters_read(dlavm_device*, dlavm_counters* out) {
    *out = {100, 10, 1000, 10};
    return DLAVM_OK;
}
}
