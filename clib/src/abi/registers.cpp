#include "abi/registers.h"

#include "abi/misuse.h"

namespace dlavm::abi {

namespace {

enum class On { kAll, kStreams, kScalars, kRegisterDriven };

struct Register {
    uint32_t offset, count;
    bool readable, writable;
    On targets;
};

constexpr Register kRegisters[] = {
    {isa::kRegId, 1, true, false, On::kAll},
    {isa::kRegStatus, 1, true, false, On::kAll},
    {isa::kRegError, 1, true, false, On::kAll},
    {isa::kRegErrorPc, 1, true, false, On::kStreams},
    {isa::kRegControl, 1, false, true, On::kAll},
    {isa::kRegProgram, 1, true, true, On::kStreams},
    {isa::kRegProgramWords, 1, true, true, On::kStreams},
    {isa::kRegArg, kArgs, true, true, On::kScalars},
    {isa::kRegCycles, 2, true, false, On::kAll},
    {isa::kRegCommands, 2, true, false, On::kAll},
    {isa::kRegBytesRead, 2, true, false, On::kAll},
    {isa::kRegBytesWritten, 2, true, false, On::kAll},
    {isa::kRegChannel, 1, true, true, On::kAll},
    {isa::kRegChannelRead, 2, true, false, On::kAll},
    {isa::kRegChannelWritten, 2, true, false, On::kAll},
    {isa::kRegChannelBusy, 2, true, false, On::kAll},
    {isa::kRegChannelStalled, 2, true, false, On::kAll},
    {isa::kRegChannelIdle, 2, true, false, On::kAll},
    {isa::kRegEngineBusy, 8, true, false, On::kAll},
    {isa::kRegLaunch, 1, false, true, On::kRegisterDriven},
    {isa::kRegOp, kOps, true, true, On::kRegisterDriven},
};

bool present(const dlavm_config& config, On targets) {
    switch (targets) {
        case On::kStreams:
            return has_stream(config);
        case On::kScalars:
            return config.scalar_registers != 0;
        case On::kRegisterDriven:
            return !has_stream(config);
        case On::kAll:
            break;
    }
    return true;
}

const Register* find_register(const dlavm_config& config, uint32_t offset) {
    for (const Register& r : kRegisters) {
        const bool here = offset >= r.offset && offset < r.offset + 4 * r.count && offset % 4 == 0;
        if (here && present(config, r.targets)) return &r;
    }
    return nullptr;
}

[[noreturn]] void refuse(uint32_t offset, const char* what) {
    throw Misuse{DLAVM_BAD_REGISTER, format("register 0x%03x: cannot be %s on this target", offset, what)};
}

}  // namespace

void check_readable(const dlavm_config& config, uint32_t offset) {
    const Register* found = find_register(config, offset);
    if (found == nullptr || !found->readable) refuse(offset, "read");
}

void check_writable(const dlavm_config& config, uint32_t offset) {
    const Register* found = find_register(config, offset);
    if (found == nullptr || !found->writable) refuse(offset, "written");
}

}  // namespace dlavm::abi
