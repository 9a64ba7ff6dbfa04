#include "timed/fabric.h"

struct dlavm_fabric {
    dlavm::timed::Fabric model;
};

namespace {

bool sound(const dlavm_fabric_shape* shape) {
    if (shape == nullptr || shape->units == 0 || shape->spaces == 0 ||
        shape->spaces > DLAVM_FABRIC_MOST_SPACES)
        return false;
    for (uint32_t s = 0; s < shape->spaces; ++s) {
        const dlavm_fabric_space& space = shape->space[s];
        if (dlavm::timing::problem(space.timing) != nullptr || space.channels == 0) return false;
        const uint64_t row = uint64_t{space.channels} * space.timing.beat_bytes;
        if (uint64_t{shape->units} * 16 % row != 0) return false;
    }
    return true;
}

}  // namespace

dlavm_fabric* dlavm_fabric_open(const dlavm_fabric_shape* shape) {
    return sound(shape) ? new dlavm_fabric{dlavm::timed::Fabric(*shape)} : nullptr;
}

void dlavm_fabric_close(dlavm_fabric* fabric) { delete fabric; }

int dlavm_fabric_read_room(const dlavm_fabric* fabric, uint32_t client) {
    return fabric->model.reader(client).requests.size() < dlavm::timed::kRequests;
}

int dlavm_fabric_beat(const dlavm_fabric* fabric, uint32_t client) {
    return fabric->model.reader(client).beat(fabric->model.units());
}

int dlavm_fabric_last(const dlavm_fabric* fabric, uint32_t client) {
    const dlavm::timed::ReadPort& port = fabric->model.reader(client);
    return !port.told.empty() && port.last(fabric->model.units());
}

int dlavm_fabric_write_room(const dlavm_fabric* fabric, uint32_t client) {
    return fabric->model.writer(client).requests.size() < dlavm::timed::kRequests;
}

int dlavm_fabric_beat_room(const dlavm_fabric* fabric, uint32_t client) {
    return fabric->model.writer(client).beat_room();
}

int dlavm_fabric_idle(const dlavm_fabric* fabric, uint32_t client) {
    return fabric->model.writer(client).idle();
}

void dlavm_fabric_read(dlavm_fabric* fabric, uint32_t client, uint64_t address, uint32_t units) {
    fabric->model.read(client, address, units);
}

void dlavm_fabric_take(dlavm_fabric* fabric, uint32_t client) { fabric->model.take(client); }

void dlavm_fabric_write(dlavm_fabric* fabric, uint32_t client, uint64_t address, uint32_t units) {
    fabric->model.write(client, address, units);
}

void dlavm_fabric_put(dlavm_fabric* fabric, uint32_t client) { fabric->model.put(client); }

void dlavm_fabric_step(dlavm_fabric* fabric) { fabric->model.step(); }
