// The timing of the memory fabric behind dlavm/fabric_timing.h. Each class has the registers of the module of
// its name in targets/rtl; a step looks at all of them before it changes any.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "dlavm/fabric_timing.h"
#include "timing/channel.h"

namespace dlavm::timed {

constexpr uint32_t kChunk = 16, kReadRows = 64;  // rows of a chunk, of a read client's buffer
constexpr size_t kRequests = 4, kTold = 16;      // a client's requests: waiting to be cut, on their way
constexpr size_t kOnTheWay = 16;                 // chunks, each way
constexpr size_t kChunks = 4, kParts = 8, kResponses = 16;  // of an AXI master
constexpr size_t kWriteChunks = 8;

struct Request {
    bool ok;  // inside a space
    uint32_t space, offset;
    uint64_t row;
    uint32_t rows, units;
};

struct Chunk {
    uint32_t space;
    uint64_t row;
    uint32_t rows;  // 0: none
};

struct ReadPort {
    std::deque<Request> requests, told;
    bool busy = false, started = false, held = false;
    Chunk rest{};  // of the request that is cut
    uint32_t credit = kReadRows, rows = 0, left = 0;

    std::optional<Request> asked;  // what the client does in this cycle
    bool taken = false;

    uint32_t units_left() const { return started ? left : told.front().units; }
    bool in_held(uint32_t units) const { return units_left() <= units - told.front().offset; }
    bool last(uint32_t units) const { return units_left() <= units; }
    bool beat(uint32_t units) const;
    Chunk chunk() const;  // that is offered
    void step(uint32_t units, bool granted, bool row_comes);
};

struct WritePort {
    std::deque<Request> requests;
    std::deque<Chunk> chunks;
    bool busy = false;
    Request now{};  // its rows and units are those left
    uint32_t rows = 0, rows_of_chunk = 0, outstanding = 0;

    std::optional<Request> asked;
    bool put = false;

    bool room() const { return !now.ok || (rows < 2 * kChunk && chunks.size() < kWriteChunks); }
    bool beat_room() const { return busy && now.units != 0 && room(); }
    bool idle() const { return requests.empty() && !busy && outstanding == 0; }
    void step(uint32_t units, bool granted, bool row_leaves, bool done);
};

// The AXI masters of a space's channels, and one of those channels.
struct Master {
    struct Inputs {
        bool part_leaves = false, row_comes = false, acknowledged = false;
        Chunk read{}, write{};  // that are issued
    };

    Master(const dlavm_memory_timing& timing, uint32_t pack) : channel(timing), pack(pack) {}

    timing::Channel channel;
    uint32_t pack;  // beats of a row
    std::deque<Chunk> read_chunks, write_chunks;
    uint32_t parts = 0, part = 0;  // of rows that come
    uint32_t rows = 0, sent = 0;   // of rows that leave; beats of the first of them
    uint32_t responses = 0;
    std::deque<uint32_t> owed;  // beats of writes whose address is out

    void step(uint64_t cycle, const Inputs& inputs);
};

class RoundRobin {
  public:
    std::optional<uint32_t> choice(const std::vector<bool>& wanted) const;
    void advance(uint32_t chosen) { last_ = chosen; }

  private:
    uint32_t last_ = 0;
};

class Fabric {
  public:
    explicit Fabric(const dlavm_fabric_shape& shape);

    void read(uint32_t client, uint64_t address, uint32_t units) {
        readers_[client].asked = map(address, units);
    }
    void take(uint32_t client) { readers_[client].taken = true; }
    void write(uint32_t client, uint64_t address, uint32_t units) {
        writers_[client].asked = map(address, units);
    }
    void put(uint32_t client) { writers_[client].put = true; }
    void step();

    const ReadPort& reader(uint32_t client) const { return readers_[client]; }
    const WritePort& writer(uint32_t client) const { return writers_[client]; }
    uint32_t units() const { return shape_.units; }

  private:
    struct OnTheWay {
        uint32_t client, space, rows;
    };

    Request map(uint64_t address, uint32_t units) const;
    void step_reads(std::vector<Master::Inputs>& inputs);
    void step_writes(std::vector<Master::Inputs>& inputs);

    dlavm_fabric_shape shape_;
    std::vector<ReadPort> readers_;
    std::vector<WritePort> writers_;
    std::vector<Master> masters_;
    uint64_t cycle_ = 0;

    RoundRobin read_turn_;  // read_channels
    bool read_issue_ = false;
    uint32_t read_client_ = 0;
    Chunk read_chunk_{};
    std::deque<OnTheWay> reading_;
    uint32_t rows_taken_ = 0;
    std::optional<uint32_t> row_for_;  // the client that a row reaches now

    RoundRobin write_turn_;  // write_channels
    bool writing_ = false, write_issue_ = false;
    uint32_t write_client_ = 0, write_left_ = 0;
    Chunk write_chunk_{};
    std::deque<OnTheWay> written_;
    std::optional<uint32_t> done_for_;
};

}  // namespace dlavm::timed
