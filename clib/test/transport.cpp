// Transports under the sanitizers (tests/unit/test_native_sanitizers.py): random bytes from clients and from
// servers, runs that are stopped by other threads, files that stand in for a card. Prints how often each
// thing was reached.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "dlavm/device.h"
#include "dlavm/device_protocol.hpp"
#include "dlavm/device_server.h"
#include "dlavm_isa.h"

namespace isa = dlavm::isa;
namespace protocol = dlavm::device_protocol;

namespace {

constexpr uint64_t kCapacity = 1 << 20;

std::mt19937 rng(4711);
std::map<std::string, int> reached;

uint32_t below(uint32_t n) { return static_cast<uint32_t>(rng() % n); }
bool chance(uint32_t percent) { return below(100) < percent; }

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "transport: %s: %s\n", what, dlavm_error(nullptr));
    std::exit(1);
}

dlavm_config config() {
    dlavm_config c = {};
    c.abi_version = DLAVM_ABI_VERSION;
    c.header_words = 2;
    c.scalar_registers = c.semaphores = 32;
    c.loop_depth = c.call_depth = 8;
    c.memory_count = 2;
    c.memories[0] = {0, kCapacity, 2, 16};
    c.memories[1] = {uint64_t{1} << 24, kCapacity, 1, 32};
    for (const isa::CommandInfo& info : isa::kCommands)
        c.opcode_mask[info.opcode / 64] |= uint64_t{1} << info.opcode % 64;
    c.activation_elements = 3000;
    c.accumulators = 4096;
    c.weight_formats = ~0u;
    return c;
}

// A server in a thread of its own.
class Serving {
  public:
    Serving() {
        const dlavm_server_options options = {nullptr, 0, 2000, 300};
        require(dlavm_server_open("sim:", "127.0.0.1:0", &options, &server_) == 0, "the server did not open");
        thread_ = std::thread([this] {
            while (!over_) {
                require(dlavm_server_poll(server_, 20) == 0, "the server failed");
                while (dlavm_server_log(server_) != nullptr) {
                }
            }
        });
    }
    ~Serving() {
        over_ = true;
        thread_.join();
        dlavm_server_close(server_);
    }
    uint16_t port() const { return dlavm_server_port(server_); }
    std::string url() const { return "tcp:127.0.0.1:" + std::to_string(port()); }

  private:
    dlavm_server* server_ = nullptr;
    std::atomic<bool> over_{false};
    std::thread thread_;
};

int raw_connection(uint16_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    require(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "no connection");
    return fd;
}

// What comes until the end, or until nothing came for some time.
void drain(int fd, int milliseconds) {
    char bytes[8192];
    pollfd entry = {fd, POLLIN, 0};
    while (poll(&entry, 1, milliseconds) > 0) {
        const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got <= 0) return;
        if (got >= 12 && bytes[4] == protocol::Result::kNumber)
            ++reached[bytes[8] == 0 ? "calls that worked" : "calls that failed"];
        if (bytes[4] == protocol::Data::kNumber) ++reached["reads"];
        if (bytes[4] == protocol::Opened::kNumber) ++reached["connections"];
        milliseconds = 0;
    }
}

std::string open_frame() {
    const dlavm_config c = config();
    protocol::Open open;
    open.magic = protocol::kMagic;
    open.version = protocol::kVersion;
    open.numbers = {c.abi_version,         c.id,           c.header_words,  c.scalar_registers,
                    c.semaphores,          c.loop_depth,   c.call_depth,    c.act_slots,
                    c.activation_elements, c.accumulators, c.weight_formats};
    open.opcode_mask.assign(std::begin(c.opcode_mask), std::end(c.opcode_mask));
    for (uint32_t i = 0; i < c.memory_count; ++i)
        for (const uint64_t n : {c.memories[i].base, c.memories[i].capacity, uint64_t{c.memories[i].channels},
                                 uint64_t{c.memories[i].port_bytes}})
            open.memories.push_back(n);
    if (chance(5)) open.memories[below(8)] = rng();
    if (chance(5)) open.numbers[below(11)] = rng();
    return open.frame();
}

uint64_t any_address() { return chance(80) ? below(2 * kCapacity) : rng() * uint64_t{rng()}; }

template <class Message, class Fill>
std::string made(Fill fill) {
    Message message;
    fill(message);
    return message.frame();
}

std::string client_frame() {
    static const std::string bytes(3000, 'x');
    switch (below(9)) {
        case 0:
            return made<protocol::Option>(
                [](auto& m) { m.name = chance(50) ? "threads" : "none", m.value = "1"; });
        case 1:
            return made<protocol::Read>([](auto& m) { m.address = any_address(), m.count = below(5000); });
        case 2:
            return made<protocol::Write>(
                [](auto& m) { m.address = any_address(), m.bytes = {bytes.data(), below(3000)}; });
        case 3:
            return made<protocol::Map>([](auto& m) {
                m.address = chance(80) ? below(20) * 8192 : any_address();
                m.channel = below(3);
                m.total = chance(90) ? below(3000) : rng() * uint64_t{rng()};
            });
        case 4:
            return made<protocol::Image>([](auto& m) { m.bytes = {bytes.data(), below(3000)}; });
        case 5:
            return made<protocol::CsrRead>([](auto& m) { m.offset = below(0x180); });
        case 6:
            return made<protocol::CsrWrite>(
                [](auto& m) { m.offset = below(0x180) & ~3u, m.value = below(4); });
        case 7:
            return made<protocol::Run>([](auto& m) { m.max_commands = 1 + below(50); });
        default:
            return chance(50) ? protocol::Stop().frame() : protocol::Counters().frame();
    }
}

std::string server_frame() {
    static const std::string bytes(5000, 'y');
    switch (below(4)) {
        case 0:
            return made<protocol::Opened>([](auto& m) { m.version = 1, m.engine = "sim", m.simd = "none"; });
        case 1:
            return made<protocol::Result>([](auto& m) {
                m.status = chance(50) ? 0 : static_cast<uint32_t>(below(40)) - 8;
                m.value = rng();
                m.text = "reason";
            });
        case 2:
            return made<protocol::Data>(
                [](auto& m) { m.bytes = {bytes.data(), chance(50) ? 64 : below(5000)}; });
        default:
            return protocol::Counted().frame();
    }
}

void mutate(std::string& bytes) {
    for (uint32_t n = below(4); n != 0 && !bytes.empty(); --n) {
        const uint32_t at = below(static_cast<uint32_t>(bytes.size()));
        if (chance(70)) {
            bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(8));
        } else if (chance(50)) {
            bytes.resize(at);
        } else {
            bytes.insert(at, 1 + below(9), static_cast<char>(rng()));
        }
    }
}

void send_all(int fd, const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
        const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return;
        sent += static_cast<size_t>(n);
    }
}

// Streams of messages, most of them damaged; some clients wait for each answer, some never read.
void stress_server(const Serving& serving, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        const int fd = raw_connection(serving.port());
        std::string stream = chance(90) ? open_frame() : "";
        const bool patient = chance(30);
        for (uint32_t n = below(30); n != 0; --n) {
            stream += client_frame();
            if (!patient) continue;
            send_all(fd, stream);
            stream.clear();
            drain(fd, 20);
        }
        if (chance(60)) mutate(stream);
        send_all(fd, stream);
        if (chance(50)) shutdown(fd, SHUT_WR);
        if (chance(70)) drain(fd, 100);
        close(fd);
    }
}

// The device, once the server has noticed that the client before is gone.
dlavm_device* open_soon(const std::string& url) {
    const dlavm_config c = config();
    dlavm_device* device = nullptr;
    for (int i = 0; i < 3000 && dlavm_open(url.c_str(), &c, &device) != 0; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    require(device != nullptr, "the server kept the device");
    return device;
}

void endless_program(dlavm_device* device) {
    const uint32_t loop = static_cast<uint32_t>(isa::Opcode::kLoop),
                   end = static_cast<uint32_t>(isa::Opcode::kEndloop);
    std::vector<uint32_t> stream;
    for (int i = 0; i < 3; ++i) stream.insert(stream.end(), {loop | 5u << 8, 0, 1, 0x7fffffff, 0});
    for (int i = 0; i < 3; ++i) stream.insert(stream.end(), {end | 2u << 8, 0});
    require(dlavm_mem_write(device, 0, stream.data(), 4 * stream.size()) == 0, "no program");
    require(dlavm_csr_write(device, isa::kRegProgramWords, static_cast<uint32_t>(stream.size())) == 0,
            "no length");
    require(dlavm_csr_write(device, isa::kRegControl, 1) == 0, "no start");
}

// A run that another thread stops, at any moment of its life.
void stress_stop(const std::string& url, int rounds) {
    dlavm_device* device = open_soon(url);
    for (int round = 0; round < rounds; ++round) {
        endless_program(device);
        std::thread other([&] { require(dlavm_run(device, 0, nullptr) == 0, "the endless program failed"); });
        std::this_thread::sleep_for(std::chrono::microseconds(below(3000)));
        require(dlavm_csr_write(device, isa::kRegControl, 2) == 0, "no reset");
        other.join();
        uint32_t status = 9;
        require(dlavm_csr_read(device, isa::kRegStatus, &status) == 0 && status == 0, "still running");
        ++reached["stops"];
    }
    dlavm_close(device);
}

// The same accesses through a transport and in the simulator.
void compare(const std::string& url, const char* name, int rounds) {
    const dlavm_config c = config();
    dlavm_device *device = open_soon(url), *sim = nullptr;
    require(dlavm_open("sim:", &c, &sim) == 0, "open failed");
    std::vector<uint8_t> data(20000), ours(20000), theirs(20000);
    for (int round = 0; round < rounds; ++round) {
        const uint64_t address = below(2) * (uint64_t{1} << 24) + below(kCapacity), bytes = below(20000);
        for (uint8_t& b : data) b = static_cast<uint8_t>(rng());
        const int wrote = dlavm_mem_write(device, address, data.data(), bytes);
        require(wrote == dlavm_mem_write(sim, address, data.data(), bytes), "writes end otherwise");
        const uint64_t from = below(kCapacity - 20000);
        require(dlavm_mem_read(device, from, ours.data(), bytes) == 0, "read failed");
        require(dlavm_mem_read(sim, from, theirs.data(), bytes) == 0, "read failed");
        require(ours == theirs, "memories differ");
        ++reached[name];
    }
    dlavm_close(device);
    dlavm_close(sim);
}

// The client's calls against a server that sends anything.
void stress_client(int rounds) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    require(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener, 8) == 0,
            "no listener");
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    const std::string url = "tcp:127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    for (int round = 0; round < rounds; ++round) {
        std::string stream = chance(90) ? made<protocol::Opened>([](auto& m) { m.version = 1; }) : "";
        for (uint32_t n = below(8); n != 0; --n) stream += server_frame();
        if (chance(50)) mutate(stream);
        std::thread server([&] {
            const int fd = accept(listener, nullptr, nullptr);
            send_all(fd, stream);
            shutdown(fd, SHUT_WR);
            char bytes[4096];
            while (recv(fd, bytes, sizeof bytes, 0) > 0) {
            }
            close(fd);
        });
        const dlavm_config c = config();
        dlavm_device* device = nullptr;
        if (dlavm_open(url.c_str(), &c, &device) == 0) {
            char bytes[64];
            dlavm_device_info info;
            dlavm_counters counters;
            uint32_t value = 0;
            reached["calls against any server"] += dlavm_mem_read(device, 0, bytes, sizeof bytes) == 0;
            dlavm_info(device, &info);
            dlavm_mem_write(device, 0, bytes, sizeof bytes);
            dlavm_run(device, 0, nullptr);
            dlavm_counters_read(device, &counters);
            dlavm_mem_map(device, 0, 0, "/proc/self/exe", 1000);
            dlavm_csr_read(device, 0, &value);
            dlavm_csr_write(device, isa::kRegControl, 2);
        }
        dlavm_close(device);
        server.join();
    }
    close(listener);
}

// Files that stand in for a card: the memory, and the registers of a core that takes what is written at once.
class Files {
  public:
    explicit Files(const std::string& folder) : prefix_(folder + "/card") {
        std::ofstream(prefix_ + "_h2c_0").close();
        require(truncate((prefix_ + "_h2c_0").c_str(), (1 << 24) + kCapacity) == 0, "no memory file");
        require(symlink((prefix_ + "_h2c_0").c_str(), (prefix_ + "_c2h_0").c_str()) == 0, "no link");
        std::ofstream(prefix_ + "_user") << std::string(4096, '\0');
    }
    std::string url() const { return "xdma:" + prefix_; }

  private:
    std::string prefix_;
};

void stress_card(const Files& files) {
    dlavm_device* device = open_soon(files.url());
    require(dlavm_set_option(device, "timeout_ms", "30") == 0, "no timeout");
    for (int round = 0; round < 5; ++round) {
        std::thread other(
            [&] { reached["cards that take nothing"] += dlavm_csr_write(device, isa::kRegControl, 1) < 0; });
        dlavm_csr_write(device, isa::kRegControl, 2);
        other.join();
        dlavm_run(device, 0, nullptr);
    }
    dlavm_close(device);
}

}  // namespace

int main(int argc, char** argv) {
    require(argc == 3, "usage: transport ROUNDS FOLDER");
    const int rounds = std::atoi(argv[1]);
    {
        const Serving serving;
        stress_server(serving, rounds);
        stress_stop(serving.url(), rounds / 10 + 1);
        compare(serving.url(), "accesses by tcp", rounds);
    }
    stress_client(rounds);
    const Files files(argv[2]);
    compare(files.url(), "accesses by xdma", rounds);
    stress_card(files);
    for (const auto& [name, count] : reached) std::printf("%s: %d\n", name.c_str(), count);
    return 0;
}
