#include "driver.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "model.hpp"

namespace host {

namespace {

using std::to_string;
using std::filesystem::path;

constexpr std::uint32_t kStart = 1;  // CONTROL

[[noreturn]] void fail(const std::string& where, const std::string& expected, const std::string& got) {
    throw std::runtime_error(where + ": expected " + expected + ", got " + got);
}

std::string hex(std::uint32_t value) {
    constexpr char digits[] = "0123456789abcdef";
    std::string text = "0x";
    for (int shift = 28; shift >= 0; shift -= 4) text += digits[value >> shift & 15];
    return text;
}

void check_size(const path& file, std::uint64_t bytes) {
    std::error_code error;
    const std::uint64_t got = std::filesystem::file_size(file, error);
    if (error) fail(file.string(), "a file of the artifact", error.message());
    if (got != bytes) fail(file.string(), to_string(bytes) + " bytes", to_string(got));
}

std::vector<char> read_file(const path& file, std::uint64_t bytes) {
    check_size(file, bytes);
    std::vector<char> content(bytes);
    std::ifstream stream(file, std::ios::binary);
    if (!stream.read(content.data(), static_cast<std::streamsize>(bytes)))
        fail(file.string(), "a readable file", "an error after " + to_string(stream.gcount()) + " bytes");
    return content;
}

// The CRC of Ethernet and zip.
std::uint32_t crc32(const std::vector<char>& content) {
    std::uint32_t crc = ~0u;
    for (const char byte : content) {
        crc ^= static_cast<unsigned char>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
    }
    return ~crc;
}

std::string error_name(int code) {
    for (const model::ErrorName& error : model::kErrorNames)
        if (error.code == code) return error.name;
    return "error " + to_string(code);
}

// Rows of a port as they lie in memory; what fills a row up to row_bytes is not copied. (rows, columns)
template <class Number>
std::vector<Number> dense(const std::vector<char>& raw, const model::Port& port) {
    std::vector<Number> numbers(raw.size() / port.row_bytes * port.columns);
    for (std::size_t row = 0; row * port.row_bytes < raw.size(); ++row)
        std::memcpy(&numbers[row * port.columns], &raw[row * port.row_bytes], port.columns * sizeof(Number));
    return numbers;
}

std::uint32_t blocks(std::uint32_t cached) {
    return (cached + model::kBlockTokens - 1) / model::kBlockTokens;
}

// A head's part of a state: blocks of tokens, the first byte at `address` of the device.
struct HeadPart {
    std::uint64_t address;
    std::uint64_t bytes;
    std::uint64_t block_bytes;
};

// Calls `visit(part, begin, end)` for the bytes [begin, end) of each part that lie in [offset, offset +
// bytes) of the state.
template <class Visit>
void for_parts(const Sequence& sequence, std::uint64_t offset, std::uint64_t bytes, Visit visit) {
    const std::uint64_t base = sequence.place * model::kSequenceStride;
    std::uint64_t start = 0;
    for (const model::Cache& cache : model::kCaches) {
        const std::uint64_t size = blocks(sequence.cached) * cache.block_bytes;
        for (std::uint32_t head = 0; head < cache.heads; ++head, start += size) {
            if (start + size <= offset || offset + bytes <= start) continue;
            const HeadPart part = {base + cache.address + head * cache.head_bytes, size, cache.block_bytes};
            visit(part, std::max(offset, start) - start, std::min(offset + bytes, start + size) - start);
        }
    }
}

// Zeroes what the bytes [begin, end) of a part hold behind the last token: rows of the units of its last
// block.
void clear_behind(std::uint32_t cached, const HeadPart& part, std::uint64_t begin, std::uint64_t end,
                  char* out) {
    const std::uint64_t rows = (cached - 1) % model::kBlockTokens + 1;
    const std::uint64_t used = rows * (model::kUnitBytes / model::kBlockTokens);
    for (std::uint64_t unit = part.bytes - part.block_bytes; unit < part.bytes; unit += model::kUnitBytes) {
        const std::uint64_t from = std::max(begin, unit + used), to = std::min(end, unit + model::kUnitBytes);
        if (from < to) std::memset(out + (from - begin), 0, to - from);
    }
}

std::uint32_t argument(model::Argument which, const Sequence& sequence, std::uint32_t token,
                       std::uint32_t head_rows) {
    switch (which) {
        case model::Argument::kToken:
            return token;
        case model::Argument::kKvLen:
            return sequence.cached;
        case model::Argument::kHeadRows:
            return head_rows;
        case model::Argument::kKvBase:
            return static_cast<std::uint32_t>(sequence.place * model::kSequenceStride / model::kAddressUnit);
    }
    return 0;  // not reached
}

void check_place(const Sequence& sequence) {
    if (sequence.place >= model::kSequences)
        fail("sequence", "a place in 0.." + to_string(model::kSequences - 1), to_string(sequence.place));
}

bool is_finite(std::uint16_t half) { return (half & 0x7c00) != 0x7c00; }

}  // namespace

Model Model::open(const std::string& url, const path& artifact, const DeviceOptions& options) {
    const dlavm_config config = model::device_config();
    dlavm_device* device = nullptr;
    if (dlavm_open(url.c_str(), &config, &device) != DLAVM_OK)
        throw std::runtime_error("device '" + url + "': " + dlavm_error(nullptr));
    Model model(device);
    for (const auto& [name, value] : options)
        model.check_status(dlavm_set_option(device, name.c_str(), value.c_str()), "device option " + name);
    model.check_identity();
    model.upload(artifact);
    model.upload_program(artifact);
    return model;
}

std::uint32_t Model::room(const Sequence& sequence) { return model::kContext - sequence.cached; }

void Model::step(Sequence& sequence, const Tokens& tokens, std::uint32_t head_rows) {
    check_tokens(sequence, tokens);
    if (tokens.size() > model::kChunk)
        fail("step", "1.." + to_string(model::kChunk) + " tokens", to_string(tokens.size()));
    if (head_rows > tokens.size())
        fail("step: head_rows", "0.." + to_string(tokens.size()), to_string(head_rows));
    head_rows_ = 0;
    run(sequence, tokens, head_rows);
    sequence.cached += static_cast<std::uint32_t>(tokens.size());
    head_rows_ = head_rows;
}

void Model::prefill(Sequence& sequence, const Tokens& tokens) {
    check_tokens(sequence, tokens);
    for (std::size_t begin = 0; begin < tokens.size(); begin += model::kChunk) {
        const std::size_t end = std::min<std::size_t>(begin + model::kChunk, tokens.size());
        const auto first = tokens.begin();
        step(sequence,
             Tokens(first + static_cast<std::ptrdiff_t>(begin), first + static_cast<std::ptrdiff_t>(end)),
             end == tokens.size() ? 1 : 0);
    }
}

Tokens Model::next_tokens() const {
    if (model::kNext) {
        std::vector<char> raw(head_rows_ * model::kNext->row_bytes);
        check_status(dlavm_mem_read(device_.get(), model::kNext->address, raw.data(), raw.size()), "next");
        return dense<std::uint32_t>(raw, *model::kNext);
    }
    const std::vector<float> all = logits();
    Tokens next;
    for (auto row = all.begin(); row != all.end(); row += model::kVocabulary) {
        const auto likeliest = std::max_element(row, row + model::kVocabulary);
        next.push_back(static_cast<std::uint32_t>(likeliest - row));
    }
    return next;
}

std::uint32_t Model::greedy_next() const {
    if (head_rows_ == 0) fail("greedy_next", "a step with head_rows of at least 1 before", "none");
    return next_tokens().back();
}

std::vector<std::uint16_t> Model::half_logits() const {
    std::vector<char> raw(head_rows_ * model::kLogits.row_bytes);
    check_status(dlavm_mem_read(device_.get(), model::kLogits.address, raw.data(), raw.size()), "logits");
    return dense<std::uint16_t>(raw, model::kLogits);
}

std::vector<float> Model::logits() const {
    const std::vector<std::uint16_t> halves = half_logits();
    std::vector<float> values(halves.size());
    std::transform(halves.begin(), halves.end(), values.begin(), to_float);
    return values;
}

std::uint64_t Model::state_bytes(std::uint32_t cached) {
    std::uint64_t bytes = 0;
    for (const model::Cache& cache : model::kCaches) bytes += cache.heads * cache.block_bytes;
    return blocks(cached) * bytes;
}

void Model::read_state(const Sequence& sequence, std::uint64_t offset, char* out, std::uint64_t bytes) const {
    check_state(sequence, offset, bytes);
    for_parts(sequence, offset, bytes, [&](const HeadPart& part, std::uint64_t begin, std::uint64_t end) {
        check_status(dlavm_mem_read(device_.get(), part.address + begin, out, end - begin), "state");
        clear_behind(sequence.cached, part, begin, end, out);
        out += end - begin;
    });
}

void Model::write_state(const Sequence& sequence, std::uint64_t offset, const char* in, std::uint64_t bytes) {
    check_state(sequence, offset, bytes);
    for (std::uint64_t i = 0; i < bytes; i += sizeof(std::uint16_t)) {
        std::uint16_t half = 0;
        std::memcpy(&half, in + i, sizeof half);
        if (!is_finite(half)) throw BadState("state: expected finite numbers, got one that is not");
    }
    for_parts(sequence, offset, bytes, [&](const HeadPart& part, std::uint64_t begin, std::uint64_t end) {
        check_status(dlavm_mem_write(device_.get(), part.address + begin, in, end - begin), "state");
        in += end - begin;
    });
}

dlavm_counters Model::counters() const {
    dlavm_counters counters = {};
    check_status(dlavm_counters_read(device_.get(), &counters), "counters");
    return counters;
}

void Model::check_identity() const {
    std::uint32_t id = 0;
    check_status(dlavm_csr_read(device_.get(), model::kRegisterId, &id), "register ID");
    if (id != model::kTargetId)
        fail("register ID", hex(model::kTargetId) + " (" + model::kTarget + ")",
             hex(id) + ": a device of another target or version");
}

void Model::upload(const path& artifact) const {
    for (const model::Image& image : model::kImages) {
        const path file = artifact / image.file;
        check_size(file, image.bytes);
        if (image.bytes == 0) continue;
        const char* name = file.c_str();
        check_status(dlavm_mem_map(device_.get(), image.address, image.channel, name, image.bytes), file);
    }
    for (const model::Blob& blob : model::kBlobs) {
        const path file = artifact / blob.file;
        const std::vector<char> content = read_file(file, blob.bytes);
        check_status(dlavm_mem_write(device_.get(), blob.address, content.data(), content.size()), file);
    }
}

void Model::upload_program(const path& artifact) const {
    constexpr model::Program program = model::kProgram;
    const path file = artifact / program.file;
    const std::vector<char> content = read_file(file, 4 * std::uint64_t{program.words});
    const std::uint32_t crc = crc32(content);
    if (crc != program.crc32)
        fail(file.string(), "CRC-32 " + hex(program.crc32),
             hex(crc) + ": this driver was written for another artifact");
    check_status(dlavm_mem_write(device_.get(), program.address, content.data(), content.size()), file);
    write_register(model::kRegisterProgram, static_cast<std::uint32_t>(program.address / model::kAddressUnit),
                   "PROGRAM");
    write_register(model::kRegisterProgramWords, program.words, "PROGRAM_WORDS");
}

void Model::check_tokens(const Sequence& sequence, const Tokens& tokens) {
    check_place(sequence);
    if (tokens.empty()) fail("tokens", "at least one", "none");
    for (std::size_t i = 0; i < tokens.size(); ++i)
        if (tokens[i] >= model::kVocabulary)
            fail("token " + to_string(i), "an id in 0.." + to_string(model::kVocabulary - 1),
                 to_string(tokens[i]));
    if (tokens.size() > room(sequence))
        fail("tokens",
             "at most " + to_string(room(sequence)) + " (context " + to_string(model::kContext) +
                 ", in the cache " + to_string(sequence.cached) + ")",
             to_string(tokens.size()));
}

void Model::check_state(const Sequence& sequence, std::uint64_t offset, std::uint64_t bytes) {
    check_place(sequence);
    const std::uint64_t size = state_bytes(sequence.cached);
    if (offset > size || bytes > size - offset || (offset | bytes) % sizeof(std::uint16_t) != 0)
        fail("state", "whole numbers within " + to_string(size) + " bytes",
             to_string(bytes) + " bytes at " + to_string(offset));
}

void Model::run(const Sequence& sequence, const Tokens& tokens, std::uint32_t head_rows) const {
    const auto count = static_cast<std::uint32_t>(tokens.size());
    check_status(dlavm_mem_write(device_.get(), model::kIds.address, tokens.data(), 4 * count), "ids");
    for (const model::ArgumentRegister& scalar : model::kArguments) {
        const std::uint32_t value = argument(scalar.argument, sequence, count, head_rows);
        if (value < scalar.low || value > scalar.high)
            fail(scalar.name, to_string(scalar.low) + ".." + to_string(scalar.high), to_string(value));
        write_register(scalar.offset, value, scalar.name);
    }
    const std::string what = "step of " + to_string(count) + " tokens at " + to_string(sequence.cached);
    check_status(dlavm_csr_write(device_.get(), model::kRegisterControl, kStart), what);
    check_status(dlavm_run(device_.get(), 0, nullptr), what);
}

void Model::write_register(std::uint32_t offset, std::uint32_t value, const std::string& name) const {
    check_status(dlavm_csr_write(device_.get(), offset, value), "register " + name);
}

void Model::check_status(int status, const std::string& what) const {
    if (status == DLAVM_OK) return;
    const std::string stopped = status > 0 ? "the device stopped: " + error_name(status) + ": " : "";
    throw std::runtime_error(what + ": " + stopped + dlavm_error(device_.get()));
}

float to_float(std::uint16_t half) {
    const int exponent = half >> 10 & 31;
    const auto fraction = static_cast<float>(half & 1023);
    const float sign = half >> 15 ? -1.0f : 1.0f;
    if (exponent == 31)
        return fraction != 0 ? std::numeric_limits<float>::quiet_NaN()
                             : sign * std::numeric_limits<float>::infinity();
    if (exponent == 0) return sign * std::ldexp(fraction, -24);
    return sign * std::ldexp(1024 + fraction, exponent - 25);
}

}  // namespace host
