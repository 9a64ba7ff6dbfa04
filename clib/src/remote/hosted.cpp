#include "remote/hosted.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "abi/misuse.h"
#include "abi/registers.h"

namespace dlavm::remote {

namespace protocol = device_protocol;

using abi::Misuse;

namespace {

std::string answer(int status, uint64_t value, const std::string& text) {
    protocol::Result result;
    result.status = static_cast<uint32_t>(status);
    result.value = value;
    result.text = wire::fit_text(text);
    return result.frame();
}

// How a call of the C interface by this thread ended.
std::string answer(int status, uint64_t value = 0) {
    return answer(status, value, status == DLAVM_OK ? "" : dlavm_error(nullptr));
}

dlavm_config config_of(const protocol::Open& open) {
    if (open.numbers.size() != 11 || open.opcode_mask.size() != 4 || open.memories.size() % 4 != 0 ||
        open.memories.size() > 4 * DLAVM_MAX_MEMORIES) {
        throw Misuse{DLAVM_BAD_ARGUMENT,
                     "open: expected 11 numbers, 4 words of opcodes and 4 numbers a memory"};
    }
    dlavm_config c = {};
    uint32_t* const fields[] = {
        &c.abi_version,         &c.id,           &c.header_words,  &c.scalar_registers,
        &c.semaphores,          &c.loop_depth,   &c.call_depth,    &c.act_slots,
        &c.activation_elements, &c.accumulators, &c.weight_formats};
    for (size_t i = 0; i < open.numbers.size(); ++i) *fields[i] = open.numbers[i];
    std::copy(open.opcode_mask.begin(), open.opcode_mask.end(), c.opcode_mask);
    for (const uint64_t* m = open.memories.data(); c.memory_count < open.memories.size() / 4; m += 4) {
        if (m[2] > UINT32_MAX || m[3] > UINT32_MAX)
            throw Misuse{DLAVM_BAD_ARGUMENT, "open: a memory with more than 2^32 channels or bytes a port"};
        c.memories[c.memory_count++] = {m[0], m[1], static_cast<uint32_t>(m[2]), static_cast<uint32_t>(m[3])};
    }
    return c;
}

// errno of a write that is not complete, or 0.
int write_all(int file, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t done = write(file, bytes.data(), bytes.size());
        if (done < 0 && errno != EINTR) return errno;
        if (done > 0) bytes.remove_prefix(static_cast<size_t>(done));
    }
    return 0;
}

}  // namespace

Hosted::Hosted(const std::string& url, const protocol::Open& open, int wake) : wake_(wake) {
    const dlavm_config config = config_of(open);
    dlavm_device* device = nullptr;
    const int status = dlavm_open(url.c_str(), &config, &device);
    if (status != DLAVM_OK) throw Misuse{static_cast<dlavm_status>(status), dlavm_error(nullptr)};
    device_.reset(device);
    for (uint32_t i = 0; i < config.memory_count; ++i) mappable_ += config.memories[i].capacity;
}

Hosted::~Hosted() {
    if (busy()) {
        stop();
        job_.join();
    }
}

std::optional<std::string> Hosted::handle(uint16_t number, std::string_view payload) {
    if (number != protocol::Image::kNumber) upload_.reset();  // of an unfinished file nothing is kept
    switch (number) {
        case protocol::Option::kNumber:
            return on(protocol::Option::decode(payload));
        case protocol::Read::kNumber:
            return on(protocol::Read::decode(payload));
        case protocol::Write::kNumber:
            return on(protocol::Write::decode(payload));
        case protocol::Map::kNumber:
            return on(protocol::Map::decode(payload));
        case protocol::Image::kNumber:
            return on(protocol::Image::decode(payload));
        case protocol::CsrRead::kNumber:
            return on(protocol::CsrRead::decode(payload));
        case protocol::CsrWrite::kNumber:
            return on(protocol::CsrWrite::decode(payload));
        case protocol::Run::kNumber:
            return on(protocol::Run::decode(payload));
        case protocol::Counters::kNumber:
            return on(protocol::Counters::decode(payload));
        case protocol::Info::kNumber:
            return opened();
        default:
            throw wire::Malformed("message " + std::to_string(number) + " may not come here");
    }
}

std::string Hosted::opened() const {
    dlavm_device_info info = {};
    const int status = dlavm_info(device_.get(), &info);
    if (status != DLAVM_OK) return answer(status);
    protocol::Opened opened;
    opened.version = protocol::kVersion;
    opened.engine = info.engine;
    opened.simd = info.simd;
    opened.threads = info.threads;
    return opened.frame();
}

std::string Hosted::on(const protocol::Option& option) {
    return answer(dlavm_set_option(device_.get(), option.name.c_str(), option.value.c_str()));
}

std::string Hosted::on(const protocol::Read& read) {
    if (read.count > protocol::kMaxMessage) {
        return answer(DLAVM_BAD_ARGUMENT, 0,
                      "read: expected at most " + std::to_string(protocol::kMaxMessage) + " bytes, got " +
                          std::to_string(read.count));
    }
    std::string frame;
    wire::Writer writer(frame, protocol::Data::kNumber);
    frame.resize(frame.size() + read.count);
    const int status =
        dlavm_mem_read(device_.get(), read.address, &frame[frame.size() - read.count], read.count);
    if (status != DLAVM_OK) return answer(status);
    writer.finish(protocol::kMaxMessage);
    return frame;
}

std::string Hosted::on(const protocol::Write& write) {
    return answer(dlavm_mem_write(device_.get(), write.address, write.bytes.data(), write.bytes.size()));
}

// The bytes become a file without a name, never one that the client names.
std::string Hosted::on(const protocol::Map& map) {
    if (map.total > mappable_) {
        return answer(DLAVM_BAD_ADDRESS, 0,
                      "mem_map: expected at most the " + std::to_string(mappable_) +
                          " bytes that this connection may still map, got " + std::to_string(map.total));
    }
    Upload upload = {map, abi::Descriptor(memfd_create("dlavm-image", MFD_CLOEXEC))};
    if (!upload.file)
        return answer(DLAVM_SYSTEM, 0, "mem_map: a file for the image: " + abi::system_text(errno));
    mappable_ -= map.total;
    upload_ = std::move(upload);
    return map.total == 0 ? map_upload() : answer(DLAVM_OK);
}

std::string Hosted::on(const protocol::Image& image) {
    if (!upload_ || image.bytes.size() > upload_->map.total - upload_->received) {
        upload_.reset();
        return answer(DLAVM_BAD_ARGUMENT, 0, "image: expected a map before, and no more bytes than it says");
    }
    const int error = write_all(upload_->file.get(), image.bytes);
    if (error != 0) {
        upload_.reset();
        return answer(DLAVM_SYSTEM, 0, "mem_map: keeping the image: " + abi::system_text(error));
    }
    upload_->received += image.bytes.size();
    return upload_->received == upload_->map.total ? map_upload() : answer(DLAVM_OK);
}

std::string Hosted::map_upload() {
    const Upload upload = *std::exchange(upload_, std::nullopt);
    const std::string path = "/proc/self/fd/" + std::to_string(upload.file.get());
    return answer(
        dlavm_mem_map(device_.get(), upload.map.address, upload.map.channel, path.c_str(), upload.map.total));
}

std::string Hosted::on(const protocol::CsrRead& read) {
    uint32_t value = 0;
    const int status = dlavm_csr_read(device_.get(), read.offset, &value);
    return answer(status, value);
}

std::string Hosted::on(const protocol::Counters&) {
    dlavm_counters counters = {};
    const int status = dlavm_counters_read(device_.get(), &counters);
    if (status != DLAVM_OK) return answer(status);
    protocol::Counted counted;
    counted.cycles = counters.cycles;
    counted.commands = counters.commands;
    counted.bytes_read = counters.bytes_read;
    counted.bytes_written = counters.bytes_written;
    return counted.frame();
}

std::optional<std::string> Hosted::on(const protocol::CsrWrite& write) {
    const auto call = [this, write] {
        return answer(dlavm_csr_write(device_.get(), write.offset, write.value));
    };
    if (write.offset != isa::kRegLaunch) return call();
    start(call);
    return std::nullopt;
}

std::optional<std::string> Hosted::on(const protocol::Run& run) {
    start([this, run] {
        uint64_t executed = 0;
        const int status = dlavm_run(device_.get(), run.max_commands, &executed);
        return answer(status, executed);
    });
    return std::nullopt;
}

template <class Call>
void Hosted::start(Call call) {
    ready_ = false;
    job_ = std::thread([this, call] {
        job_answer_ = call();
        ready_ = true;
        eventfd_write(wake_, 1);
    });
}

std::string Hosted::finish() {
    job_.join();
    return std::move(job_answer_);
}

void Hosted::stop() { dlavm_csr_write(device_.get(), isa::kRegControl, abi::kReset); }

}  // namespace dlavm::remote
