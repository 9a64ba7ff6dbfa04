#include "driver.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "files.hpp"
#include "model.hpp"

namespace host {

namespace {

using std::to_string;
using std::filesystem::path;

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

// Zeroes what the bytes [begin, end) of a part hold behind the last token: rows and exponents of the units of
// its last block.
void clear_behind(std::uint32_t cached, const HeadPart& part, std::uint64_t begin, std::uint64_t end,
                  char* out) {
    constexpr std::uint64_t unit_bytes = model::kBlockTokens * (model::kRowBytes + model::kExponentBytes);
    const std::uint64_t used = (cached - 1) % model::kBlockTokens + 1, units = part.block_bytes / unit_bytes;
    std::uint64_t start = part.bytes - part.block_bytes;
    for (const std::uint64_t size : {model::kRowBytes, model::kExponentBytes}) {
        for (std::uint64_t unit = 0; unit < units; ++unit, start += model::kBlockTokens * size) {
            const std::uint64_t from = std::max(begin, start + used * size),
                                to = std::min(end, start + model::kBlockTokens * size);
            if (from < to) std::memset(out + (from - begin), 0, to - from);
        }
    }
}

void check_place(const Sequence& sequence) {
    if (sequence.place >= model::kSequences)
        fail("sequence", "a place in 0.." + to_string(model::kSequences - 1), to_string(sequence.place));
}

bool is_finite(std::uint16_t half) { return (half & 0x7c00) != 0x7c00; }

}  // namespace

Model Model::open(const std::string& url, const path& artifact, const DeviceOptions& options) {
    Model model(Bus(url, options));
    model.upload(artifact);
    model.program_.load(model.bus_, artifact);
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
        bus_.read(model::kNext->address, raw.data(), raw.size(), "next");
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
    bus_.read(model::kLogits.address, raw.data(), raw.size(), "logits");
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
        bus_.read(part.address + begin, out, end - begin, "state");
        clear_behind(sequence.cached, part, begin, end, out);
        out += end - begin;
    });
}

void Model::write_state(const Sequence& sequence, std::uint64_t offset, const char* in, std::uint64_t bytes) {
    check_state(sequence, offset, bytes);
    const std::uint64_t halves =
        model::kExponentBytes == 0 ? bytes : 0;  // of other rows all bytes are numbers
    for (std::uint64_t i = 0; i < halves; i += sizeof(std::uint16_t)) {
        std::uint16_t half = 0;
        std::memcpy(&half, in + i, sizeof half);
        if (!is_finite(half)) throw BadState("state: expected finite numbers, got one that is not");
    }
    for_parts(sequence, offset, bytes, [&](const HeadPart& part, std::uint64_t begin, std::uint64_t end) {
        bus_.write(part.address + begin, in, end - begin, "state");
        in += end - begin;
    });
}

dlavm_counters Model::counters() const { return bus_.counters(); }

void Model::upload(const path& artifact) {
    for (const model::Image& image : model::kImages) {
        const path file = artifact / image.file;
        check_size(file, image.bytes);
        if (image.bytes == 0) continue;
        bus_.map(image.address, image.channel, file, image.bytes);
    }
    for (const model::Blob& blob : model::kBlobs) {
        const path file = artifact / blob.file;
        const std::vector<char> content = read_file(file, blob.bytes);
        bus_.write(blob.address, content.data(), content.size(), file.string());
    }
    if (model::kTable)
        table_ = MappedFile(artifact / model::kTable->file,
                            model::kTable->rows * model::kIds.columns * sizeof(std::uint16_t));
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

void Model::run(const Sequence& sequence, const Tokens& tokens, std::uint32_t head_rows) {
    write_input(tokens);
    const auto count = static_cast<std::uint32_t>(tokens.size());
    const Arguments arguments = {
        count, sequence.cached, head_rows,
        static_cast<std::uint32_t>(sequence.place * model::kSequenceStride / model::kAddressUnit)};
    program_.start(bus_, arguments,
                   "step of " + to_string(count) + " tokens at " + to_string(sequence.cached));
}

// The ids, or the rows of the table that they choose.
void Model::write_input(const Tokens& tokens) const {
    const model::Port& port = model::kIds;
    if (!model::kTable)
        return bus_.write(port.address, tokens.data(), sizeof(Tokens::value_type) * tokens.size(), "ids");
    const std::size_t bytes = port.columns * sizeof(std::uint16_t);
    std::vector<char> rows(tokens.size() * port.row_bytes);
    for (std::size_t i = 0; i < tokens.size(); ++i)
        std::memcpy(&rows[i * port.row_bytes], table_.data() + tokens[i] * bytes, bytes);
    bus_.write(port.address, rows.data(), rows.size(), model::kTable->file);
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
