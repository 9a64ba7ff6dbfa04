#include "timed/twin.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "abi/misuse.h"

namespace dlavm::timed {

namespace {

// Clients of the memory fabric, as in dlavm_core; those of a generation without a stream or scalars ask for
// nothing.
constexpr uint32_t kFrontRead = 0, kStoreRead = 2, kMatrixRead = 4, kVectorRead = 6, kWeightRead = 7;

constexpr uint32_t kPageBytes = 4096, kBurstBeats = 256;  // mem_pkg

struct Size {
    const char* name;
    uint32_t Shape::* field;
    uint32_t least, most;
};

// All are powers of two.
constexpr Size kSizes[] = {
    {"port_bytes", &Shape::port_bytes, 4, 128},
    {"halves", &Shape::halves, 1, 2},
    {"row_units", &Shape::row_units, 1, 256},
    {"units", &Shape::units, 1, 64},
    {"lanes", &Shape::lanes, 8, vector::kVirtual},
    {"client_rows", &Shape::client_rows, kChunkRows, 1024},
    {"weight_rows", &Shape::weight_rows, kChunkRows, kWeightRows},
    {"share", &Shape::share, 1, 2},
    {"rows_most", &Shape::rows_most, 8, 1u << 20},
    {"result_blocks", &Shape::result_blocks, 2, 1024},
};

// "name=value,..": each of kSizes.
void read_sizes(Shape& shape, const std::string& text) {
    const std::string items = "," + text + ",";
    for (const Size& size : kSizes) {
        const std::string key = std::string(",") + size.name + "=";
        const size_t at = items.find(key);
        char* end = nullptr;
        const char* digits = at == std::string::npos ? "" : items.c_str() + at + key.size();
        const unsigned long value = std::strtoul(digits, &end, 10);
        if (*end != ',' || value < size.least || value > size.most || (value & (value - 1)) != 0)
            throw abi::Misuse{DLAVM_BAD_ARGUMENT,
                              abi::format("open: timed: expected %s=%u..%u, a power of two, in '%.200s'",
                                          size.name, size.least, size.most, text.c_str())};
        shape.*size.field = static_cast<uint32_t>(value);
    }
}

// memory_fabric.sv: a chunk's part of a channel is one burst.
uint32_t chunk_rows(uint32_t part_bytes, uint32_t port_bytes) {
    uint32_t rows = kChunkRows;
    while (rows > 1 && (rows * part_bytes > kPageBytes || rows * part_bytes > kBurstBeats * port_bytes))
        rows /= 2;
    return rows;
}

}  // namespace

Shape shape_of(const dlavm_config& config, const std::string& sizes) {
    Shape shape;
    read_sizes(shape, sizes);
    shape.spaces = abi::spaces_of(config);
    shape.header_words = config.header_words;
    shape.ordered = config.semaphores != 0;
    shape.activation_elements = config.activation_elements;
    const uint32_t row = shape.row_units * kUnitBytes;
    bool fits = shape.units <= shape.row_units && shape.lanes <= 8 * shape.units &&
                (shape.units == shape.row_units || shape.row_units >= 8) &&
                (shape.halves == 2 || shape.row_units >= 8);
    for (const abi::Space& space : shape.spaces) {
        fits = fits && row % (space.channels * shape.port_bytes) == 0;
        shape.chunk_rows.push_back(chunk_rows(row / space.channels, shape.port_bytes));
    }
    if (!fits)
        throw abi::Misuse{
            DLAVM_BAD_ARGUMENT,
            abi::format("open: timed: sizes that do not fit each other or the memories, '%.200s'",
                        sizes.c_str())};
    return shape;
}

RunCounters& RunCounters::operator+=(const RunCounters& run) {
    cycles += run.cycles;
    spaces.resize(run.spaces.size());
    for (size_t s = 0; s < spaces.size(); ++s) {
        spaces[s].read_beats += run.spaces[s].read_beats;
        spaces[s].written_beats += run.spaces[s].written_beats;
        spaces[s].busy += run.spaces[s].busy;
        spaces[s].asked += run.spaces[s].asked;
    }
    for (size_t e = 0; e < engines.size(); ++e) engines[e] += run.engines[e];
    return *this;
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

void Twin::begin(uint64_t begin, Trace* trace, Observer* observer) {
    idle_until(begin);
    semaphores_.clear();
    for (EngineQueue& queue : queues_) queue.start();
    fabric_.clear_traffic(begin);
    trace_ = trace;
    observer_ = observer;
    clock_.set_watched(observer != nullptr);
    began_ = begin;
    clock_.poke(Part::kFront);
}

void Twin::start(uint64_t begin, Source& source, Trace* trace, Observer* observer) {
    this->begin(begin, trace, observer);
    front_.start(source);
}

void Twin::start_nothing(uint64_t begin) {
    this->begin(begin, nullptr, nullptr);
    front_.start_nothing();
}

// One that waits for rows is stepped when those that are known to come are there.
template <Part kPart, class Client, class... More>
void Twin::step_client(Client& client, More&... more) {
    client.step(clock_, more...);
    fabric_.wake<kPart>(clock_);
}

void Twin::step(Part part) {
    switch (part) {
        case Part::kReads:
            return fabric_.step_reads(clock_);
        case Part::kWrites:
            return fabric_.step_writes(clock_);
        case Part::kMatrix:
            return step_client<Part::kMatrix>(matrix_);
        case Part::kVector:
            return step_client<Part::kVector>(vector_);
        case Part::kStore:
            return step_client<Part::kStore>(store_);
        case Part::kQueues:
            for (EngineQueue& queue : queues_) queue.step(clock_, semaphores_, trace_);
            return;
        case Part::kFront:
            return step_client<Part::kFront>(front_, queues_);
        case Part::kPorts:
            return fabric_.step_ports(clock_);
    }
}

void Twin::step() {
    ++steps_;
    while (clock_.begin_next()) step(clock_.part());
}

bool Twin::run(uint64_t cycles) {
    const uint64_t limit = clock_.now() + cycles;
    while (!front_.finished()) {
        if (clock_.now() >= limit) return false;
        if (!clock_.advance()) throw std::logic_error("timed: nothing can happen any more");
        step();
        if (observer_ != nullptr) observer_->look(*this);
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
