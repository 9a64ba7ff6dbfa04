// The streams of tiny for v2: before a step, words that depend on its arguments are written.
#include <algorithm>
#include <array>

#include "files.hpp"
#include "model.hpp"
#include "program.hpp"

namespace host {

namespace {

using Number = std::int64_t;
using Words = std::vector<std::uint32_t>;

constexpr std::uint32_t kStart = 1;  // CONTROL

[[maybe_unused]] Number floor_div(Number a, Number b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
[[maybe_unused]] Number floor_mod(Number a, Number b) { return a - floor_div(a, b) * b; }

template <std::size_t kCount>
void set(Words& words, const std::uint32_t (&offsets)[kCount], Number value) {
    for (const std::uint32_t offset : offsets) words[offset] = static_cast<std::uint32_t>(value);
}

// clang-format off
void patch_decode(Words& words, [[maybe_unused]] Number token, [[maybe_unused]] Number kv_len, [[maybe_unused]] Number head_rows, [[maybe_unused]] Number kv_base) {
    static constexpr std::uint32_t at_0[] = {0, 7};
    set(words, at_0, (4 * kv_len) + 7);
    static constexpr std::uint32_t at_1[] = {1, 6};
    set(words, at_1, std::min<Number>((token + -3), 1));
    static constexpr std::uint32_t at_2[] = {2, 5};
    set(words, at_2, (-1 * floor_mod(kv_len, 3)) + 1);
    static constexpr std::uint32_t at_3[] = {3, 4};
    set(words, at_3, (Number{kv_len < 9} != 0 ? Number{token} : Number{0}));
}

void patch_step(Words& words, [[maybe_unused]] Number token, [[maybe_unused]] Number kv_len, [[maybe_unused]] Number head_rows, [[maybe_unused]] Number kv_base) {
    static constexpr std::uint32_t at_0[] = {0, 7};
    set(words, at_0, (4 * kv_len) + 7);
    static constexpr std::uint32_t at_1[] = {1, 6};
    set(words, at_1, std::min<Number>((token + -3), 1));
    static constexpr std::uint32_t at_2[] = {2, 5};
    set(words, at_2, (-1 * floor_mod(kv_len, 3)) + 1);
    static constexpr std::uint32_t at_3[] = {3, 4};
    set(words, at_3, (Number{kv_len < 9} != 0 ? Number{token} : Number{0}));
}

struct Stream {
    const char* file;
    std::uint64_t address;
    std::uint32_t words, crc32;
    std::uint32_t tokens;  // of a step at most
    void (*patch)(Words&, Number token, Number kv_len, Number head_rows, Number kv_base);
};

// Those for fewer tokens first.
constexpr std::array<Stream, 2> kStreams = {{
    {"program/step.bin", 0x9000, 8, 0x8c85e33b, 1, patch_decode},
    {"program/step.bin", 0x9000, 8, 0x8c85e33b, 16, patch_step},
}};
// clang-format on

}  // namespace

void Program::load(const Bus&, const std::filesystem::path& artifact) {
    for (const Stream& stream : kStreams)
        streams_.push_back(read_words(artifact / stream.file, stream.words, stream.crc32));
    selected_ = kNone;
}

void Program::start(const Bus& bus, const Arguments& a, const std::string& what) {
    const auto* const stream = std::find_if(kStreams.begin(), kStreams.end(),
                                            [&](const Stream& one) { return a.token <= one.tokens; });
    const auto index = static_cast<std::size_t>(stream - kStreams.begin());
    Words& words = streams_.at(index);
    stream->patch(words, a.token, a.kv_len, a.head_rows, a.kv_base);
    bus.write(stream->address, words.data(), 4 * words.size(), stream->file);
    if (selected_ != index) {
        bus.write_register(model::kRegisterProgram,
                           static_cast<std::uint32_t>(stream->address / model::kAddressUnit),
                           "register PROGRAM");
        bus.write_register(model::kRegisterProgramWords, stream->words, "register PROGRAM_WORDS");
    }
    selected_ = kNone;
    bus.write_register(model::kRegisterControl, kStart, what);
    bus.run(what);
    selected_ = index;
}

}  // namespace host
