// The commands of tiny for v1, one after the other through its registers.
#include <algorithm>

#include "files.hpp"
#include "model.hpp"
#include "program.hpp"

namespace host {

namespace {

using Number = std::int64_t;

constexpr std::uint32_t kStart = 1;              // CONTROL: counters begin anew
constexpr std::uint32_t kBusy = 1, kFailed = 4;  // STATUS

[[maybe_unused]] Number floor_div(Number a, Number b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
[[maybe_unused]] Number floor_mod(Number a, Number b) { return a - floor_div(a, b) * b; }

// Opcodes, as the register LAUNCH takes them.
// clang-format off
[[maybe_unused]] constexpr std::uint32_t kLinear = 0x10;
[[maybe_unused]] constexpr std::uint32_t kNorm = 0x20;
[[maybe_unused]] constexpr std::uint32_t kSoftmax = 0x21;
[[maybe_unused]] constexpr std::uint32_t kRope = 0x22;
[[maybe_unused]] constexpr std::uint32_t kAct = 0x23;
[[maybe_unused]] constexpr std::uint32_t kEltwise = 0x24;
[[maybe_unused]] constexpr std::uint32_t kKvAppend = 0x30;
[[maybe_unused]] constexpr std::uint32_t kCopy = 0x32;
[[maybe_unused]] constexpr std::uint32_t kLoadTable = 0x33;
// clang-format on

// Writes the words of commands, which the registers keep from one to the next, and starts them.
class Commands {
  public:
    Commands(const Bus& bus, const std::string& what) : bus_(bus), what_(what) {}

    void op(std::uint32_t index, Number value) const {
        bus_.write_register(model::kRegisterOp + 4 * index, static_cast<std::uint32_t>(value), what_);
    }

    void launch(std::uint32_t opcode) const {
        bus_.write_register(model::kRegisterLaunch, opcode, what_);
        std::uint32_t status = kBusy;
        while ((status & kBusy) != 0) status = bus_.read_register(model::kRegisterStatus, what_);
        if ((status & kFailed) != 0)
            fail(what_, "the device to finish",
                 error_name(static_cast<int>(bus_.read_register(model::kRegisterError, what_))));
    }

  private:
    const Bus& bus_;
    const std::string& what_;
};

// clang-format off
void step(const Commands& c, [[maybe_unused]] Number token, [[maybe_unused]] Number kv_len, [[maybe_unused]] Number head_rows, [[maybe_unused]] Number kv_base) {
    c.op(0, 64);  // src
    c.op(1, 0);  // src_so
    c.op(2, 0);  // src_si
    c.op(3, 128);  // dst
    c.op(4, 0);  // dst_so
    c.op(5, 0);  // dst_si
    c.op(6, token);  // rows_o
    c.op(7, 1);  // rows_i
    c.op(8, 8);  // dim
    c.launch(kCopy);
    c.op(0, 0);  // act_slot
    c.op(1, 64);  // src
    c.op(3, 0);  // src_si
    c.op(6, 0);  // dst_si
    c.op(8, 1);  // rows_i
    c.op(9, 8);  // dim
    for (Number t = 0; t < floor_div((token + 3), 4); ++t) {
        const Number n = std::min<Number>(((-4 * t) + token), 4);
        if (Number{2 < n} != 0) {
            c.op(4, t + 128);  // dst
            c.op(7, n);  // rows_o
            c.launch(kAct);
        }
    }
}
// clang-format on

}  // namespace

void Program::load(const Bus&, const std::filesystem::path&) {}

void Program::start(const Bus& bus, const Arguments& a, const std::string& what) {
    bus.write_register(model::kRegisterControl, kStart, what);
    step(Commands(bus, what), a.token, a.kv_len, a.head_rows, a.kv_base);
}

}  // namespace host
