#include "timed/twin.h"

#include <algorithm>
#include <stdexcept>

#include "abi/misuse.h"

namespace dlavm::timed {

namespace {

// Clients of the memory fabric, as in dlavm_core.
constexpr uint32_t kFrontRead = 0, kStoreRead = 2, kMatrixRead = 4, kVectorRead = 7;

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
    for (const abi::Space& space : shape.spaces)
        if (row % space.beat_row() != 0)
            throw abi::Misuse{DLAVM_BAD_ARGUMENT, "open: timed: beat rows that do not divide the widest"};
    shape.units = static_cast<uint32_t>(row / kUnitBytes);
    shape.port_bytes = shape.spaces[0].port_bytes;
    shape.lanes = lanes;
    shape.activation_elements = config.activation_elements;
    shape.accumulators = config.accumulators;
    return shape;
}

Twin::Twin(const Shape& shape)
    : shape_(shape),
      fabric_(shape_),
      matrix_(shape_, fabric_.readers[kMatrixRead], fabric_.readers[kMatrixRead + 1],
              fabric_.readers[kMatrixRead + 2], fabric_.writers[FrontEnd::kMatrix]),
      vector_(shape_, fabric_.readers[kVectorRead], fabric_.writers[FrontEnd::kVector]),
      store_(shape_, fabric_.readers[kStoreRead], fabric_.readers[kStoreRead + 1],
             fabric_.writers[FrontEnd::kStore]),
      queues_{EngineQueue(matrix_, Part::kMatrix), EngineQueue(vector_, Part::kVector),
              EngineQueue(store_, Part::kStore)},
      front_(shape_, fabric_.readers[kFrontRead], fabric_.readers[kFrontRead + 1]) {}

void Twin::start(uint64_t program, uint32_t words, Source& source, Trace* trace) {
    semaphores_.clear();
    trace_ = trace;
    began_ = clock_.now() + 1;
    front_.start(program, words, source);
    clock_.poke(Part::kFront);
    clock_.advance();
}

uint64_t Twin::cycles() const {
    return (front_.finished() ? front_.finished_at() : clock_.now()) - began_ + 1;
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
    const uint64_t end = clock_.now() + cycles;
    while (!front_.finished()) {
        if (clock_.now() >= end) return false;
        step();
        if (!clock_.advance() && !front_.finished())
            throw std::logic_error("timed: nothing can happen any more");
    }
    while (clock_.advance()) step();  // what the end of a run has left on its way
    return true;
}

}  // namespace dlavm::timed
