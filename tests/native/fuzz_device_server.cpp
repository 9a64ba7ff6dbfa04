// Fuzz target: the device server over loopback, with memory, image files and registers of the simulator.
// Nothing is executed: a run ends at once, or when it is stopped. So that an input does the same every time,
// its steps are the clock, and the server is polled when the thread of a run ended or waits to be stopped:
// scripts/fuzz.py links the calls of some functions to those of this file.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <thread>
#include <vector>

#include "abi/guard.h"
#include "abi/registers.h"
#include "fuzz.hpp"
#include "remote/server.h"
#include "sim/memory.h"

namespace {

using namespace dlavm;
using fuzz::check;
using fuzz::reached;
using std::chrono::milliseconds;

std::atomic<int64_t> clock_ms;
std::atomic<int> open_devices, jobs_begun, jobs_ended;
std::atomic<bool> waiting_for_stop;

}  // namespace

// In place of std::chrono::steady_clock::now(), the start of a std::thread, and eventfd_write().
using ThreadState = std::unique_ptr<std::thread::_State>;
std::chrono::steady_clock::time_point fuzz_clock() __asm__("__wrap_" FUZZ_CLOCK);
void start_thread(std::thread* thread, ThreadState state, void (*depend)()) __asm__("__real_" FUZZ_THREAD);
void fuzz_thread(std::thread* thread, ThreadState state, void (*depend)()) __asm__("__wrap_" FUZZ_THREAD);
extern "C" int __real_eventfd_write(int file, eventfd_t value);
extern "C" int __wrap_eventfd_write(int file, eventfd_t value);

std::chrono::steady_clock::time_point fuzz_clock() {
    return std::chrono::steady_clock::time_point(milliseconds(clock_ms));
}

void fuzz_thread(std::thread* thread, ThreadState state, void (*depend)()) {
    ++jobs_begun;
    start_thread(thread, std::move(state), depend);
}

int __wrap_eventfd_write(int file, eventfd_t value) {
    const int status = __real_eventfd_write(file, value);
    ++jobs_ended;
    return status;
}

struct dlavm_device {
    explicit dlavm_device(const dlavm_config& c) : config(c), memory(c) { ++open_devices; }
    ~dlavm_device() { --open_devices; }

    dlavm_config config;
    sim::Memory memory;
    std::set<std::string> options;
    std::mutex mutex;  // of stop
    std::condition_variable changed;
    bool stop = false;
};

namespace dlavm::abi {

namespace {
thread_local std::string last_error;
}

int failed(int status, const std::string& text) {
    last_error = text;
    return status;
}

void check_scheme(const std::string&) {}

template <class Call>
int call(Call body) {
    return guarded([&](std::string& text) { return body(text); }, failed);
}

}  // namespace dlavm::abi

using abi::call;

extern "C" {

int dlavm_open(const char*, const dlavm_config* config, dlavm_device** out) {
    return call([&](std::string&) {
        *out = new dlavm_device(*config);
        return 0;
    });
}

void dlavm_close(dlavm_device* device) { delete device; }
const char* dlavm_error(const dlavm_device*) { return abi::last_error.c_str(); }

int dlavm_info(const dlavm_device*, dlavm_device_info* out) {
    *out = {"fuzz", "none", 1, DLAVM_ABI_VERSION};
    return DLAVM_OK;
}

int dlavm_set_option(dlavm_device*, const char* name, const char* value) {
    return call([&](std::string&) -> int {
        throw abi::Misuse{DLAVM_NOT_FOUND, abi::format("option %.40s: not %.40s", name, value)};
    });
}

int dlavm_mem_read(dlavm_device* device, uint64_t address, void* buffer, uint64_t bytes) {
    return call([&](std::string&) {
        abi::find_or_throw(device->memory.spaces(), "mem_read", address, bytes);
        if (bytes != 0) device->memory.read(address, buffer, bytes);
        return 0;
    });
}

int dlavm_mem_write(dlavm_device* device, uint64_t address, const void* buffer, uint64_t bytes) {
    return call([&](std::string&) {
        abi::find_or_throw(device->memory.spaces(), "mem_write", address, bytes);
        if (bytes != 0) device->memory.write(address, buffer, bytes);
        return 0;
    });
}

int dlavm_mem_map(dlavm_device* device, uint64_t address, uint32_t channel, const char* path,
                  uint64_t bytes) {
    return call([&](std::string&) {
        device->memory.map(address, channel, path, bytes);
        ++reached()["images mapped"];
        return 0;
    });
}

int dlavm_csr_read(dlavm_device* device, uint32_t offset, uint32_t* value) {
    return call([&](std::string&) {
        abi::check_readable(device->config, offset);
        *value = offset;
        return 0;
    });
}

int dlavm_csr_write(dlavm_device* device, uint32_t offset, uint32_t value) {
    return call([&](std::string& text) {
        abi::check_writable(device->config, offset);
        if (offset == isa::kRegControl && (value & abi::kReset) != 0) {
            const std::lock_guard<std::mutex> lock(device->mutex);
            device->stop = true;
            waiting_for_stop = false;
            device->changed.notify_all();
        }
        if (offset == isa::kRegLaunch) text = "a command that failed";
        return offset == isa::kRegLaunch ? static_cast<int>(value & 1) : 0;
    });
}

int dlavm_run(dlavm_device* device, uint64_t max_commands, uint64_t* executed) {
    return call([&](std::string& text) {
        *executed = max_commands;
        text = "a program that failed";
        if (max_commands != 0) return static_cast<int>(max_commands & 1);
        std::unique_lock<std::mutex> lock(device->mutex);
        waiting_for_stop = !device->stop;
        device->changed.wait(lock, [&] { return device->stop; });
        device->stop = false;
        return 0;
    });
}

int dlavm_counters_read(dlavm_device*, dlavm_counters* out) {
    *out = {1, 2, 3, 4};
    return DLAVM_OK;
}
}

namespace {

namespace protocol = device_protocol;
using fuzz::Input;

constexpr size_t kClients = 4;
constexpr uint64_t kMaxMemory = 16 << 20;
constexpr char kSecret[] = "sesame";

// A client's end of a connection.
class Client {
  public:
    explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address = {};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const auto* const name = reinterpret_cast<const sockaddr*>(&address);
        int status = 0;
        do {
            status = connect(socket_.get(), name, sizeof address);
        } while (status != 0 && (errno == EINTR || errno == EALREADY));  // a fuzzer has alarms
        check(status == 0 || errno == EISCONN, "connect: " + abi::system_text(errno));
        fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
        reset_at_close(true);
    }

    // With a reset, no port is left waiting: there are thousands of connections a second.
    void reset_at_close(bool reset) {
        const linger option = {reset ? 1 : 0, 0};
        setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &option, sizeof option);
    }

    // What does not fit is lost.
    void send(std::string_view bytes) {
        if (!bytes.empty()) (void)!::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }

    void shut() { shutdown(socket_.get(), SHUT_WR); }

    // Answers have to be frames of a server.
    void read() {
        char bytes[1 << 16];
        for (ssize_t got; (got = recv(socket_.get(), bytes, sizeof bytes, 0)) > 0;)
            heard_.append(bytes, static_cast<size_t>(got));
        size_t at = 0;
        while (heard_.size() - at >= wire::kHeaderBytes) {
            const wire::Header header = wire::parse_header(&heard_[at]);
            const wire::MessageInfo& info = protocol::check_header(header, wire::Side::kServer);
            const std::string_view rest = std::string_view(heard_).substr(at + wire::kHeaderBytes);
            if (rest.size() < header.length) break;
            ++reached()[info.name];
            last_ = header.number;
            understand(header.number, rest.substr(0, header.length));
            at += wire::kHeaderBytes + header.length;
        }
        heard_.erase(0, at);
    }

    uint16_t last() const { return last_; }

  private:
    static void understand(uint16_t number, std::string_view payload) {
        if (number == protocol::Opened::kNumber) protocol::Opened::decode(payload);
        if (number == protocol::Counted::kNumber) protocol::Counted::decode(payload);
        if (number != protocol::Result::kNumber) return;
        const auto result = protocol::Result::decode(payload);
        check((result.status == 0) == result.text.empty(), "a text where something failed");
        const auto status = static_cast<int32_t>(result.status);
        ++reached()[status > 0 ? "core errors" : "results " + std::to_string(status)];
        if (result.text.find("busy") != std::string::npos) ++reached()["busy"];
        if (result.text.find("malformed") == 0) ++reached()["malformed"];
    }

    abi::Descriptor socket_;
    std::string heard_;
    uint16_t last_ = 0;
};

std::string right_open(const std::string& secret, bool stream) {
    protocol::Open open;
    open.magic = protocol::kMagic;
    open.version = protocol::kVersion;
    open.secret = secret;
    open.numbers = {DLAVM_ABI_VERSION, 7, stream ? 2u : 0u, stream ? 32u : 0u, 32, 8, 8, 4, 8192, 4096, ~0u};
    open.opcode_mask = {~uint64_t{0}, 0, 0, 0};
    open.memories = {0, 1 << 20, 2, 16, 1 << 21, 1 << 20, 1, 32};
    return open.frame();
}

class Play {
  public:
    Play(Input& input, const std::string& secret)
        : input_(input),
          secret_(secret),
          server_({"fuzz:", "127.0.0.1:0", secret, kMaxMemory, milliseconds(5000), milliseconds(10000)}) {}

    void run() {
        constexpr Operation kOperations[] = {
            &Play::connect, &Play::send_bytes, &Play::send_frame, &Play::open,  &Play::write, &Play::image,
            &Play::read,    &Play::poll,       &Play::crowd,      &Play::clock, &Play::shut,  &Play::close,
        };
        while (!input_.empty()) {
            const uint8_t code = input_.u8(), place = input_.u8();
            const uint16_t number = input_.u16();
            variant_ = place / kClients;
            (this->*kOperations[code % std::size(kOperations)])(clients_[place % kClients], number);
            poll_once();
        }
        end();
    }

  private:
    using Place = std::unique_ptr<Client>;
    using Operation = void (Play::*)(Place& client, uint16_t number);

    void connect(Place& client, uint16_t) { client = std::make_unique<Client>(server_.port()); }

    void send_bytes(Place& client, uint16_t size) {
        const std::string_view bytes = input_.take(size);
        if (client) client->send(bytes);
    }

    void send_frame(Place& client, uint16_t size) {
        const uint8_t number = input_.u8();
        const std::string_view payload = input_.take(size);
        if (client) client->send(fuzz::frame(number, payload));
    }

    void open(Place& client, uint16_t) {
        if (client) client->send(right_open(secret_, (variant_ & 1) == 0));
    }

    // Many bytes that the input need not hold.
    void write(Place& client, uint16_t number) {
        const std::string bytes(number, '\x55');
        protocol::Write message;
        message.address = uint64_t{variant_} << 14;
        message.bytes = bytes;
        if (client) client->send(message.frame());
    }

    void image(Place& client, uint16_t number) {
        const std::string bytes(number, '\x66');
        protocol::Image message;
        message.bytes = bytes;
        if (client) client->send(message.frame());
    }

    void read(Place& client, uint16_t) {
        if (client) client->read();
    }

    void poll(Place&, uint16_t number) {
        for (int left = number % 16; left > 0; --left) poll_once();
    }

    // More than the server holds; rarely, as it takes long.
    void crowd(Place&, uint16_t number) {
        if (number != 0xffff) return;
        std::vector<Place> others;
        while (others.size() < 70) others.push_back(std::make_unique<Client>(server_.port()));
        for (int left = 3; left > 0; --left) poll_once();
    }

    void clock(Place&, uint16_t number) { clock_ms += number; }

    void shut(Place& client, uint16_t) {
        if (client) client->shut();
    }

    void close(Place& client, uint16_t) {
        if (client && (variant_ & 1) == 0) client->reset_at_close(false);
        client.reset();
    }

    void poll_once() {
        while (jobs_begun != jobs_ended && !waiting_for_stop) std::this_thread::yield();
        server_.poll(milliseconds(0));
        while (const auto line = server_.take_log()) check(!line->empty(), "a line for the log");
    }

    // Everyone leaves: the device is closed, and the next client gets it.
    void end() {
        for (Place& client : clients_) client.reset();
        for (int left = 100; open_devices != 0 && left > 0; --left) poll_once();
        check(open_devices == 0, "the device is closed when its client has left");
        Client next(server_.port());
        next.send(right_open(secret_, true));
        for (int left = 100; next.last() == 0 && left > 0; --left) {
            poll_once();
            next.read();
        }
        check(next.last() == protocol::Opened::kNumber, "the next client gets the device");
    }

    Input& input_;
    std::string secret_;
    remote::Server server_;
    std::array<Place, kClients> clients_;
    size_t variant_ = 0;  // of the operation
};

int free_descriptor() { return abi::Descriptor(dup(STDERR_FILENO)).get(); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    jobs_begun = jobs_ended = 0;  // a fuzzer has threads of its own
    const int before = free_descriptor();
    const std::string secret = (input.u8() & 1) != 0 ? kSecret : "";
    Play(input, secret).run();
    check(open_devices == 0 && free_descriptor() == before, "every device and descriptor is closed");
    return 0;
}
