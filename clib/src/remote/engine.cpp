#include "remote/engine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "abi/file.h"
#include "abi/misuse.h"
#include "abi/registers.h"

namespace dlavm::remote {

using abi::Misuse;
using device_protocol::Counted;
using device_protocol::Data;
using device_protocol::Opened;
using device_protocol::Result;

namespace {

constexpr std::chrono::milliseconds kConnect(5000), kOpen(15000), kAnswer(60000);
constexpr uint64_t kPiece = device_protocol::kMaxMessage / 2;  // bytes of memory a message
constexpr const char* kSecretVariable = "DLAVM_DEVICE_SECRET_FILE";

Clock::time_point soon() { return Clock::now() + kAnswer; }

std::string secret() {
    const char* const path = std::getenv(kSecretVariable);
    return read_secret(path == nullptr ? "" : path);
}

device_protocol::Open open_message(const dlavm_config& c) {
    device_protocol::Open open;
    open.magic = device_protocol::kMagic;
    open.version = device_protocol::kVersion;
    open.secret = secret();
    open.numbers = {c.abi_version,         c.id,           c.header_words,  c.scalar_registers,
                    c.semaphores,          c.loop_depth,   c.call_depth,    c.act_slots,
                    c.activation_elements, c.accumulators, c.weight_formats};
    open.opcode_mask.assign(std::begin(c.opcode_mask), std::end(c.opcode_mask));
    for (uint32_t i = 0; i < c.memory_count; ++i) {
        const dlavm_memory_config& m = c.memories[i];
        open.memories.insert(open.memories.end(), {m.base, m.capacity, m.channels, m.port_bytes});
    }
    return open;
}

std::unique_ptr<Connection> connect(const std::string& address) {
    const std::string name = "tcp:" + address;
    return std::make_unique<Connection>(name,
                                        connect_to(name, parse_address("open: " + name, address), kConnect));
}

// Pieces of linear bytes: piece(done so far, length).
template <class Piece>
void each_piece(uint64_t bytes, Piece piece) {
    for (uint64_t done = 0; done < bytes; done += kPiece) piece(done, std::min(kPiece, bytes - done));
}

}  // namespace

// While a run is being answered, stop may be sent.
class RemoteEngine::Running {
  public:
    explicit Running(RemoteEngine& engine) : engine_(engine) {}
    ~Running() {
        const std::lock_guard<std::mutex> lock(engine_.send_mutex_);
        engine_.running_ = false;
    }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

  private:
    RemoteEngine& engine_;
};

RemoteEngine::RemoteEngine(const std::string& address, const dlavm_config& config)
    : spaces_(abi::spaces_of(config)) {
    const device_protocol::Open open = open_message(config);
    connection_ = connect(address);
    const auto opened = ask<Opened>(open, Clock::now() + kOpen);
    if (opened.version != device_protocol::kVersion)
        connection_->refuse("version " + std::to_string(opened.version));
}

void RemoteEngine::send(const std::string& frame) const {
    const std::lock_guard<std::mutex> lock(send_mutex_);
    connection_->send(frame);
}

template <class Answer, class Request>
Answer RemoteEngine::ask(const Request& request, std::optional<Clock::time_point> deadline) const {
    send(request.frame());
    return receive<Answer>(deadline);
}

template <class Answer>
Answer RemoteEngine::receive(std::optional<Clock::time_point> deadline) const {
    const Received received = connection_->receive(deadline);
    if (received.number == Result::kNumber) {
        const Result result = checked(decoded<Result>(received.payload));
        if constexpr (std::is_same_v<Answer, Result>) return result;
    }
    if (received.number != Answer::kNumber)
        connection_->refuse("message " + std::to_string(received.number) + " where " +
                            std::to_string(Answer::kNumber) + " should come");
    return decoded<Answer>(received.payload);
}

template <class Message>
Message RemoteEngine::decoded(std::string_view payload) const {
    try {
        return Message::decode(payload);
    } catch (const wire::Malformed& malformed) {
        connection_->refuse(malformed.what());
    }
}

// Positive codes go on; a negative one is the Misuse that it was on the other machine.
Result RemoteEngine::checked(Result result) const {
    const auto status = static_cast<int32_t>(result.status);
    if (status < DLAVM_SYSTEM) connection_->refuse("status " + std::to_string(status));
    if (status < 0) throw Misuse{static_cast<dlavm_status>(status), result.text};
    return result;
}

// A call that no core can stop; its value.
template <class Request>
uint64_t RemoteEngine::call(const Request& request) {
    const auto result = ask<Result>(request, soon());
    if (result.status != 0) connection_->refuse("status " + std::to_string(result.status));
    return result.value;
}

dlavm_device_info RemoteEngine::info() const {
    const auto opened = ask<Opened>(device_protocol::Info(), soon());
    const char* const engine = names_.insert(opened.engine).first->c_str();
    return {engine, names_.insert(opened.simd).first->c_str(), opened.threads, DLAVM_ABI_VERSION};
}

void RemoteEngine::set_option(const std::string& name, const std::string& value) {
    device_protocol::Option option;
    option.name = name;
    option.value = value;
    call(option);
}

void RemoteEngine::mem_read(uint64_t address, void* out, uint64_t bytes) {
    abi::find_or_throw(spaces_, "mem_read", address, bytes);
    each_piece(bytes, [&](uint64_t done, uint64_t length) {
        device_protocol::Read read;
        read.address = address + done;
        read.count = static_cast<uint32_t>(length);
        const auto data = ask<Data>(read, soon());
        if (data.bytes.size() != length) connection_->refuse("data of another length");
        std::memcpy(static_cast<char*>(out) + done, data.bytes.data(), length);
    });
}

void RemoteEngine::mem_write(uint64_t address, const void* in, uint64_t bytes) {
    abi::find_or_throw(spaces_, "mem_write", address, bytes);
    each_piece(bytes, [&](uint64_t done, uint64_t length) {
        device_protocol::Write write;
        write.address = address + done;
        write.bytes = {static_cast<const char*>(in) + done, length};
        call(write);
    });
}

void RemoteEngine::mem_map(uint64_t address, uint32_t channel, const char* path, uint64_t bytes) {
    abi::image_offset(abi::find(spaces_, address, bytes), address, channel, bytes);
    if (bytes == 0) return;
    device_protocol::Map map;
    map.address = address;
    map.channel = channel;
    map.total = bytes;
    abi::read_image(path, bytes, kPiece, [&](uint64_t done, const uint8_t* data, uint64_t length) {
        if (done == 0) call(map);  // not before the file is known to be there
        device_protocol::Image image;
        image.bytes = {reinterpret_cast<const char*>(data), length};
        call(image);
    });
}

uint32_t RemoteEngine::csr_read(uint32_t offset) {
    device_protocol::CsrRead read;
    read.offset = offset;
    return static_cast<uint32_t>(call(read));
}

int RemoteEngine::csr_write(uint32_t offset, uint32_t value, std::string& error) {
    if (offset == isa::kRegControl && (value & abi::kReset) != 0) {
        const std::lock_guard<std::mutex> lock(send_mutex_);
        stop_ = false;
    }
    device_protocol::CsrWrite write;
    write.offset = offset;
    write.value = value;
    const auto result = ask<Result>(write, std::nullopt);  // LAUNCH takes as long as its command
    error = result.text;
    return static_cast<int>(result.status);
}

int RemoteEngine::run(uint64_t max_commands, uint64_t& executed, std::string& error) {
    executed = 0;
    device_protocol::Run run;
    run.max_commands = max_commands;
    const Running running(*this);
    {
        const std::lock_guard<std::mutex> lock(send_mutex_);
        if (stop_) return 0;
        connection_->send(run.frame());
        running_ = true;
    }
    const auto result = receive<Result>(std::nullopt);
    executed = result.value;
    error = result.text;
    return static_cast<int>(result.status);
}

dlavm_counters RemoteEngine::counters() const {
    const auto counted = ask<Counted>(device_protocol::Counters(), soon());
    return {counted.cycles, counted.commands, counted.bytes_read, counted.bytes_written};
}

void RemoteEngine::request_stop() noexcept {
    const std::lock_guard<std::mutex> lock(send_mutex_);
    stop_ = true;
    if (!running_) return;
    try {
        connection_->send(device_protocol::Stop().frame());
    } catch (...) {
        // The run that should stop gets the same error, and so does every later call.
    }
}

}  // namespace dlavm::remote
