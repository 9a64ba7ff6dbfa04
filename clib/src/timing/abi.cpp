#include "timing/channel.h"

struct dlavm_memory_channel {
    dlavm::timing::Channel model;
};

const char* dlavm_memory_problem(const dlavm_memory_timing* timing) {
    return timing == nullptr ? "expected a timing" : dlavm::timing::problem(*timing);
}

dlavm_memory_channel* dlavm_memory_open(const dlavm_memory_timing* timing) {
    if (dlavm_memory_problem(timing) != nullptr) return nullptr;
    return new dlavm_memory_channel{dlavm::timing::Channel(*timing)};
}

void dlavm_memory_close(dlavm_memory_channel* channel) { delete channel; }

int dlavm_memory_read_room(dlavm_memory_channel* channel, uint64_t cycle) {
    return channel->model.read_room(cycle);
}

int dlavm_memory_write_room(dlavm_memory_channel* channel, uint64_t cycle) {
    return channel->model.write_room(cycle);
}

void dlavm_memory_read(dlavm_memory_channel* channel, uint64_t cycle, uint64_t address, uint32_t beats) {
    channel->model.read(cycle, address, beats);
}

void dlavm_memory_write(dlavm_memory_channel* channel, uint64_t cycle, uint64_t address, uint32_t beats) {
    channel->model.write(cycle, address, beats);
}

void dlavm_memory_write_beat(dlavm_memory_channel* channel, uint64_t cycle) {
    channel->model.write_beat(cycle);
}

uint64_t dlavm_memory_next_beat(const dlavm_memory_channel* channel) { return channel->model.next_beat(); }

uint64_t dlavm_memory_next_response(const dlavm_memory_channel* channel) {
    return channel->model.next_response();
}

uint64_t dlavm_memory_next_write_room(const dlavm_memory_channel* channel) {
    return channel->model.next_write_room();
}

int dlavm_memory_beat_ready(dlavm_memory_channel* channel, uint64_t cycle) {
    return channel->model.beat_ready(cycle);
}

int dlavm_memory_response_ready(dlavm_memory_channel* channel, uint64_t cycle) {
    return channel->model.response_ready(cycle);
}

void dlavm_memory_take_beat(dlavm_memory_channel* channel) { channel->model.take_beat(); }

void dlavm_memory_take_response(dlavm_memory_channel* channel) { channel->model.take_response(); }

void dlavm_memory_record(dlavm_memory_channel* channel) { channel->model.record(); }

uint64_t dlavm_memory_recorded(dlavm_memory_channel* channel, const dlavm_memory_command** out) {
    const std::vector<dlavm_memory_command>& recorded = channel->model.recorded();
    *out = recorded.data();
    return recorded.size();
}
