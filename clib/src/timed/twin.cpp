#include "timed/twin.h"

#include <algorithm>
#include <stdexcept>

#include "abi/misuse.h"

namespace dlavm::timed {

namespace {

// Clients of the memory fabric, as in dlavm_core.
constexpr uint32_t kFrontRead = 0, kStoreRead = 2, kMatrixRead = 4, kVectorRead = 6, kWeightRead = 7;

}  // namespace

Shape shape_of(const dlavm_config& config, uint32_t lanes) {
    Shape shape;
    shape.spaces = abi::spaces_of(config);
    uint64_t row = 0;
    for (const abi::Space& space : shape.spaces) {
        row = std::max(row, space.beat_row());
        if (space.port_bytes != shape.spaces[0].port_bytes)
            throw abi::Misuse{DLAVM_BAD_ARGUMENT, "open: timed: channels of several widths"};
    }
    shape.units = static_cast<uint32_t>(row / kUnitBytes);
    if (shape.units != 1 && shape.units != 2 && shape.units != 4)
        throw abi::Misuse{
            DLAVM_BAD_ARGUMENT,
            abi::format("open: timed: expected a beat row of 16, 32 or 64 bytes, as the core has "
                        "them so far, got %llu",
                        static_cast<unsigned long long>(row))};
    if (lanes > 8 * shape.units)
        throw abi::Misuse{
            DLAVM_BAD_ARGUMENT,
            abi::format("open: timed: expected at most %u vector lanes for this beat row, got %u",
                        8 * shape.units, lanes)};
    shape.port_bytes = shape.spaces[0].port_bytes;
    shape.lanes = lanes;
    shape.activation_elements = config.activation_elements;
    shape.accumulators = config.accumulators;
    return shape;
}

Twin::Twin(const Shape& shape, Memories& memories, uint64_t now, bool skip)
    : shape_(shape),
      fabric_(shape_, memories),
      matrix_(shape_, fabric_.readers[kWeightRead], fabric_.readers[kMatrixRead],
              fabric_.readers[kMatrixRead + 1], fabric_.writers[FrontEnd::kMatrix]),
      vector_(shape_, fabric_.readers[kVectorRead], fabric_.writers[FrontEnd::kVector]),
      store_(shape_, fabric_.readers[kStoreRead], fabric_.readers[kStoreRead + 1],
             fabric_.writers[FrontEnd::kStore]),
      queues_{EngineQueue(matrix_, Part::kMatrix), EngineQueue(vector_, Part::kVector),
              EngineQueue(store_, Part::kStore)},
      front_(shape_, fabric_.readers[kFrontRead], fabric_.readers[kFrontRead + 1]) {
    clock_.move(now);
    clock_.set_all(!skip);
}

void Twin::program(uint64_t from, uint64_t address, uint32_t words) {
    idle_until(from);
    front_.program(address, words);
    clock_.poke(Part::kFront);
}

void Twin::start(uint64_t begin, Source& source, Trace* trace) {
    idle_until(begin);
    semaphores_.clear();
    for (EngineQueue& queue : queues_) queue.start();
    fabric_.clear_traffic(begin);
    trace_ = trace;
    began_ = begin;
    front_.start(source);
    clock_.poke(Part::kFront);
}

void Twin::step() {
    ++steps_;
    if (clock_.begin(Part::kReads)) fabric_.step_reads(clock_);
    if (clock_.begin(Part::kWrites)) fabric_.step_writes(clock_);
    if (clock_.begin(Part::kMatrix)) matrix_.step(clock_);
    if (clock_.begin(Part::kVector)) vector_.step(clock_);
    if (clock_.begin(Part::kStore)) store_.step(clock_);
    if (clock_.begin(Part::kQueues))
        for (EngineQueue& queue : queues_) queue.step(clock_, semaphores_, trace_);
    if (clock_.begin(Part::kFront)) front_.step(clock_, queues_);
    if (clock_.begin(Part::kPorts)) fabric_.step_ports(clock_);
    matrix_.jump(clock_);
}

bool Twin::run(uint64_t cycles) {
    const uint64_t limit = clock_.now() + cycles;
    while (!front_.finished()) {
        if (clock_.next() == kNever) throw std::logic_error("timed: nothing can happen any more");
        if (clock_.now() >= limit) return false;
        clock_.advance();
        step();
    }
    idle_until(end());
    counters_.cycles = end() - began_;
    counters_.spaces.clear();
    for (uint32_t s = 0; s < shape_.spaces.size(); ++s) counters_.spaces.push_back(fabric_.traffic(s, end()));
    for (uint32_t q = 0; q < queues_.size(); ++q) counters_.engines[q] = queues_[q].busy();
    return true;
}

void Twin::idle_until(uint64_t cycle) {
    while (clock_.next() < cycle) {
        clock_.advance();
        step();
    }
    if (clock_.now() + 1 < cycle) clock_.move(cycle - 1);
}

}  // namespace dlavm::timed
