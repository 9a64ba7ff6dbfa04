// The stream of tiny for v3: the arguments of a step go into scalar registers.
#include <array>

#include "files.hpp"
#include "model.hpp"
#include "program.hpp"

namespace host {

namespace {

using std::to_string;

constexpr std::uint32_t kStart = 1;  // CONTROL

// clang-format off
struct {
    const char* file;
    std::uint64_t address;
    std::uint32_t words, crc32;
} constexpr kStream = {"program/step.bin", 0x9000, 8, 0x8c85e33b};

struct Argument {
    const char* name;
    std::uint32_t Arguments::*value;
    std::uint32_t offset, low, high;  // register, and the values that the program is made for
};

constexpr std::array<Argument, 4> kArguments = {{
    {"token", &Arguments::token, 0x20, 1, 16},
    {"kv_len", &Arguments::kv_len, 0x24, 0, 63},
    {"head_rows", &Arguments::head_rows, 0x28, 0, 16},
    {"kv_base", &Arguments::kv_base, 0x2c, 0, 512},
}};
// clang-format on

}  // namespace

void Program::load(const Bus& bus, const std::filesystem::path& artifact) {
    const auto words = read_words(artifact / kStream.file, kStream.words, kStream.crc32);
    bus.write(kStream.address, words.data(), 4 * words.size(), kStream.file);
}

void Program::start(const Bus& bus, const Arguments& arguments, const std::string& what) {
    for (const Argument& argument : kArguments) {
        const std::uint32_t value = arguments.*argument.value;
        if (value < argument.low || value > argument.high)
            fail(argument.name, to_string(argument.low) + ".." + to_string(argument.high), to_string(value));
        bus.write_register(argument.offset, value, std::string("register ") + argument.name);
    }
    if (selected_ == kNone) {
        bus.write_register(model::kRegisterProgram,
                           static_cast<std::uint32_t>(kStream.address / model::kAddressUnit),
                           "register PROGRAM");
        bus.write_register(model::kRegisterProgramWords, kStream.words, "register PROGRAM_WORDS");
    }
    selected_ = kNone;
    bus.write_register(model::kRegisterControl, kStart, what);
    bus.run(what);
    selected_ = 0;
}

}  // namespace host
