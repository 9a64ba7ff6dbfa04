// Clocks a Verilated core with memory behind its AXI ports (dlavm/rtl_model.h). When memory answers, the
// board's timing says (dlavm/memory_timing.h), or a fixed latency. Signals of all channels are vectors of
// whole bytes a channel, or of bits; Verilator keeps a vector little-endian, whatever type it chose.
#include "dlavm/rtl_model.h"

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "Vdlavm_top.h"
#include "dlavm_rtl_timing.h"
#include "timing/channel.h"
#include "timing/parameters.h"
#include "verilated.h"
#include "waves.h"

namespace {

constexpr uint32_t kAddressBytes = 5;  // of 40 bits
constexpr uint64_t kResetCycles = 4, kRegisterCycles = 1000;

template <class Signal>
uint8_t* bytes(Signal& signal) {
    return reinterpret_cast<uint8_t*>(&signal);
}

template <class Signal>
bool bit(Signal& signal, uint32_t index) {
    return (bytes(signal)[index / 8] >> index % 8 & 1) != 0;
}

template <class Signal>
void set_bit(Signal& signal, uint32_t index, bool value) {
    uint8_t& byte = bytes(signal)[index / 8];
    byte = static_cast<uint8_t>((byte & ~(1u << index % 8)) | static_cast<unsigned>(value) << index % 8);
}

template <class Signal>
uint64_t address(Signal& signal, uint32_t channel) {
    uint64_t value = 0;
    std::memcpy(&value, bytes(signal) + channel * kAddressBytes, kAddressBytes);
    return value;
}

// A timed burst or answer is due when the channel's timing says so.
struct Burst {
    uint64_t due, address;
    uint32_t beats;
    bool timed, bad;
};

struct Answer {
    uint64_t due;
    bool timed, bad;
};

// One channel: bursts are answered in order, a beat a cycle.
struct Channel {
    dlavm_rtl_channel memory;
    dlavm_memory_timing figures;
    dlavm::timing::Channel timing;
    uint64_t random;
    std::deque<Burst> reads, writes;
    std::deque<Answer> answers;
    dlavm_rtl_traffic traffic{};
    bool waits = false;  // a read was offered and not taken

    Channel(const dlavm_rtl_channel& bytes, const dlavm_memory_timing& board, uint64_t seed)
        : memory(bytes), figures(board), timing(board), random(seed) {}

    // What is on its way comes at once.
    void retime(const dlavm_memory_timing& changed) {
        figures = changed;
        timing = dlavm::timing::Channel(figures);
        for (Burst& burst : reads) burst.timed = false;
        for (Burst& burst : writes) burst.timed = false;
        for (Answer& answer : answers) answer.timed = false;
    }

    // Nothing is on its way any more.
    void forget() {
        reads.clear();
        writes.clear();
        answers.clear();
        timing = dlavm::timing::Channel(figures);
    }

    bool beat_ready(uint64_t cycle) {
        if (reads.empty()) return false;
        return reads.front().timed ? timing.beat_ready(cycle) : reads.front().due <= cycle;
    }

    bool answer_ready(uint64_t cycle) const {
        if (answers.empty()) return false;
        return answers.front().timed ? timing.response_ready(cycle) : answers.front().due <= cycle;
    }

    bool inside(uint64_t at, uint32_t count) const {
        return at <= memory.bytes && count <= memory.bytes - at;
    }
};

}  // namespace

struct dlavm_rtl_model {
    VerilatedContext context;
    std::unique_ptr<Vdlavm_top> top;
    std::vector<Channel> channels;
    uint32_t port_bytes = 0;
    dlavm_rtl_memory memory{DLAVM_RTL_BOARD_TIMING, 0, 1, DLAVM_RTL_NO_FAULT};
    uint64_t cycle = 0;
    std::string problem;
    dlavm_rtl_waves waves;

    void clock();
    void count(Channel& channel, uint32_t index, bool read, bool written);
    void take(Channel& channel, uint32_t index);
    void put(Channel& channel, uint32_t index);
    void offer(Channel& channel, uint32_t index);
    bool acts(Channel& channel) const;
    bool good(const Channel& channel, uint32_t index, uint64_t at) const;
    bool timed() const { return memory.latency == DLAVM_RTL_BOARD_TIMING; }
    uint64_t due() const { return timed() ? cycle : cycle + memory.latency; }
    void restart();
};

// Whether a channel is willing in this cycle (xorshift64).
bool dlavm_rtl_model::acts(Channel& channel) const {
    if (memory.stalls == 0) return true;
    channel.random ^= channel.random << 13;
    channel.random ^= channel.random >> 7;
    channel.random ^= channel.random << 17;
    return channel.random % 1000 >= memory.stalls;
}

// Whether the beat from `at` on is answered with data.
bool dlavm_rtl_model::good(const Channel& channel, uint32_t index, uint64_t at) const {
    const bool fault = index == 0 && memory.fault >= at && memory.fault - at < port_bytes;
    return channel.inside(at, port_bytes) && !fault;
}

void dlavm_rtl_model::count(Channel& c, uint32_t i, bool read, bool written) {
    Vdlavm_top& t = *top;
    const bool asked = bit(t.m_ar_valid_o, i) || bit(t.m_aw_valid_o, i) || bit(t.m_w_valid_o, i);
    const bool owed = !c.reads.empty() || !c.writes.empty() || !c.answers.empty();
    c.traffic.read_beats += read;
    c.traffic.written_beats += written;
    c.traffic.busy += read || written;
    c.traffic.stalled += !read && !written && (asked || owed);
}

// What passes at the coming edge.
void dlavm_rtl_model::take(Channel& c, uint32_t i) {
    Vdlavm_top& t = *top;
    const bool read = bit(t.m_r_valid_i, i) && bit(t.m_r_ready_o, i);
    const bool written = bit(t.m_w_valid_o, i) && bit(t.m_w_ready_i, i);
    count(c, i, read, written);
    if (bit(t.m_ar_valid_o, i) && bit(t.m_ar_ready_i, i)) {
        c.reads.push_back({due(), address(t.m_ar_addr_o, i), bytes(t.m_ar_len_o)[i] + 1u, timed(), false});
        if (timed()) c.timing.read(cycle, c.reads.back().address, c.reads.back().beats);
    }
    if (read) {
        c.reads.front().address += port_bytes;
        if (c.reads.front().timed) c.timing.take_beat();
        if (--c.reads.front().beats == 0) c.reads.pop_front();
    }
    if (bit(t.m_aw_valid_o, i) && bit(t.m_aw_ready_i, i)) {
        c.writes.push_back({0, address(t.m_aw_addr_o, i), bytes(t.m_aw_len_o)[i] + 1u, timed(), false});
        if (timed()) c.timing.write(cycle, c.writes.back().address, c.writes.back().beats);
    }
    if (written) put(c, i);
    if (bit(t.m_b_valid_i, i) && bit(t.m_b_ready_o, i)) {
        if (c.answers.front().timed) c.timing.take_response();
        c.answers.pop_front();
    }
}

// A beat of a write.
void dlavm_rtl_model::put(Channel& c, uint32_t i) {
    Vdlavm_top& t = *top;
    Burst& burst = c.writes.front();
    const uint8_t* data = bytes(t.m_w_data_o) + uint64_t{i} * port_bytes;
    burst.bad = burst.bad || !good(c, i, burst.address);
    for (uint32_t b = 0; b < port_bytes && good(c, i, burst.address); ++b)
        if (bit(t.m_w_strb_o, i * port_bytes + b)) c.memory.data[burst.address + b] = data[b];
    burst.address += port_bytes;
    if (burst.timed) c.timing.write_beat(cycle);
    if (--burst.beats == 0) {
        c.answers.push_back({due(), burst.timed, burst.bad});
        c.writes.pop_front();
    }
}

// What the channel shows after the edge. Data is taken only once its address is known.
void dlavm_rtl_model::offer(Channel& c, uint32_t i) {
    Vdlavm_top& t = *top;
    const bool read_stays = bit(t.m_r_valid_i, i) && c.waits, willing = acts(c);
    c.waits = false;
    set_bit(t.m_ar_ready_i, i, willing && (timed() ? c.timing.read_room(cycle) : c.reads.size() < 64));
    set_bit(t.m_aw_ready_i, i, willing && (timed() ? c.timing.write_room(cycle) : c.writes.size() < 64));
    set_bit(t.m_w_ready_i, i, willing && !c.writes.empty());
    const bool reads = c.beat_ready(cycle) && (willing || read_stays);
    set_bit(t.m_r_valid_i, i, reads);
    if (reads) {
        const uint64_t at = c.reads.front().address;
        const bool ok = good(c, i, at);
        uint8_t* data = bytes(t.m_r_data_i) + uint64_t{i} * port_bytes;
        if (ok) std::memcpy(data, c.memory.data + at, port_bytes);
        set_bit(t.m_r_resp_i, 2 * i + 1, !ok);  // SLVERR is 2, OKAY 0
    }
    const bool answers = c.answer_ready(cycle);
    set_bit(t.m_b_valid_i, i, answers);
    if (answers) set_bit(t.m_b_resp_i, 2 * i + 1, c.answers.front().bad);
}

void dlavm_rtl_model::clock() {
    const auto count = static_cast<uint32_t>(channels.size());
    for (uint32_t i = 0; i < count; ++i) take(channels[i], i);
    // A read that was offered and not taken must be offered again.
    for (uint32_t i = 0; i < count; ++i)
        channels[i].waits = bit(top->m_r_valid_i, i) && !bit(top->m_r_ready_o, i);
    top->clk_i = 1;
    top->eval();
    waves.edge(cycle, true);
    ++cycle;
    for (uint32_t i = 0; i < count; ++i) offer(channels[i], i);
    top->clk_i = 0;
    top->eval();
    waves.edge(cycle - 1, false);
}

void dlavm_rtl_model::restart() {
    for (Channel& channel : channels) channel.forget();
    top->s_aw_valid_i = top->s_w_valid_i = top->s_ar_valid_i = top->s_b_ready_i = top->s_r_ready_i = 0;
    top->rst_i = 1;
    for (uint64_t i = 0; i < kResetCycles; ++i) clock();
    top->rst_i = 0;
    clock();
}

uint32_t dlavm_rtl_version(void) { return DLAVM_RTL_VERSION; }

dlavm_rtl_model* dlavm_rtl_open(const dlavm_rtl_channel* channels, uint32_t count, uint32_t port_bytes) {
    if (count != DLAVM_RTL_CHANNELS || port_bytes != DLAVM_RTL_PORT_BYTES) return nullptr;
    auto model = std::make_unique<dlavm_rtl_model>();
    dlavm_rtl_waves::prepare(model->context);
    model->top = std::make_unique<Vdlavm_top>(&model->context);
    model->port_bytes = DLAVM_RTL_AXI_BYTES;  // of the core; `port_bytes` is the board's
    for (uint32_t i = 0; i < count; ++i) model->channels.emplace_back(channels[i], kTimings[i], i + 1);
    model->top->eval();
    model->restart();
    return model.release();
}

void dlavm_rtl_close(dlavm_rtl_model* model) {
    if (model == nullptr) return;
    model->waves.close();
    model->top->final();
    delete model;
}

void dlavm_rtl_set_memory(dlavm_rtl_model* model, const dlavm_rtl_memory* memory) {
    model->memory = *memory;
    for (size_t i = 0; i < model->channels.size(); ++i)
        model->channels[i].random = (memory->seed << 8 | 1) + i;
}

const char* dlavm_rtl_set_timing(dlavm_rtl_model* model, const char* changes) {
    std::vector<dlavm_memory_timing> timings(std::begin(kTimings), std::end(kTimings));
    for (dlavm_memory_timing& timing : timings) {
        model->problem = dlavm::timing::change(timing, changes);
        if (!model->problem.empty()) return model->problem.c_str();
    }
    for (size_t i = 0; i < timings.size(); ++i) model->channels[i].retime(timings[i]);
    return nullptr;
}

uint32_t dlavm_rtl_read(dlavm_rtl_model* model, uint32_t offset) {
    Vdlavm_top& t = *model->top;
    t.s_ar_addr_i = static_cast<uint16_t>(offset & 0xfff);
    t.s_ar_valid_i = 1;
    t.eval();
    for (uint64_t i = 0; i < kRegisterCycles && !t.s_ar_ready_o; ++i) model->clock();
    model->clock();
    t.s_ar_valid_i = 0;
    t.s_r_ready_i = 1;
    t.eval();
    for (uint64_t i = 0; i < kRegisterCycles && !t.s_r_valid_o; ++i) model->clock();
    const uint32_t value = t.s_r_data_o;
    model->clock();
    t.s_r_ready_i = 0;
    t.eval();
    return value;
}

void dlavm_rtl_write(dlavm_rtl_model* model, uint32_t offset, uint32_t value) {
    Vdlavm_top& t = *model->top;
    t.s_aw_addr_i = static_cast<uint16_t>(offset & 0xfff);
    t.s_w_data_i = value;
    t.s_aw_valid_i = t.s_w_valid_i = 1;
    t.eval();
    for (uint64_t i = 0; i < kRegisterCycles && !(t.s_aw_ready_o && t.s_w_ready_o); ++i) model->clock();
    model->clock();
    t.s_aw_valid_i = t.s_w_valid_i = 0;
    t.s_b_ready_i = 1;
    t.eval();
    for (uint64_t i = 0; i < kRegisterCycles && !t.s_b_valid_o; ++i) model->clock();
    model->clock();
    t.s_b_ready_i = 0;
    t.eval();
}

uint64_t dlavm_rtl_run(dlavm_rtl_model* model, uint64_t cycles) {
    const uint64_t begin = model->cycle;
    while (model->cycle - begin < cycles && model->top->busy_o) model->clock();
    return model->cycle - begin;
}

void dlavm_rtl_restart(dlavm_rtl_model* model) { model->restart(); }

int dlavm_rtl_trace(dlavm_rtl_model* model, const char* path, uint64_t begin, uint64_t end) {
    return model->waves.open(*model->top, path, begin, end);
}

dlavm_rtl_traffic dlavm_rtl_traffic_of(const dlavm_rtl_model* model, uint32_t channel) {
    return channel < model->channels.size() ? model->channels[channel].traffic : dlavm_rtl_traffic{};
}
