// What is particular to tiny (int4g128) for v3 on nano. Written by `dlavm build`.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "dlavm/device.h"

namespace model {

inline constexpr char kName[] = "tiny";
// SHA-256 over what the device holds of the model: saved caches belong to it.
inline constexpr char kModelId[] = "33c404094e9a2d122643eb1a1a633977e05a80b5249fe922bbd2b2a6d509c530";

// SHA-256 of tokenizer.json, empty where there is none.
inline constexpr char kTokenizerId[] = "";

inline constexpr char kTarget[] = "v3 on nano";

// SHA-256 of the expanded target and board; the register ID holds its first 32 bits.
inline constexpr char kTargetHash[] = "c839a56c2913925cbdf5e5b6d3549c3e768742811dc70b111d90a7e275ca2298";
inline constexpr std::uint32_t kTargetId = 0xc839a56c;

// Token ids are 0..kVocabulary-1.
inline constexpr std::uint32_t kVocabulary = 300;

// Positions of the KV cache.
inline constexpr std::uint32_t kContext = 64;

// Tokens of one step at most.
inline constexpr std::uint32_t kChunk = 16;

// Tokens that end an answer.
// clang-format off
inline constexpr std::array<std::uint32_t, 1> kEndTokens = {1};
// clang-format on

// A file of the artifact that is mapped as one channel's part of the memory from `address` on.
struct Image {
    const char* file;
    std::uint32_t channel;
    std::uint64_t address;
    std::uint64_t bytes;
};

// clang-format off
inline constexpr std::array<Image, 2> kImages = {{
    {"weights/ch00.bin", 0, 0x80000, 1024},
    {"weights/ch01.bin", 1, 0x80000, 1024},
}};
// clang-format on

// A file of the artifact that is written at the linear address.
struct Blob {
    const char* file;
    std::uint64_t address;
    std::uint64_t bytes;
};

inline constexpr std::array<Blob, 1> kBlobs = {{
    {"tables.bin", 0xa000, 64},
}};

// Rows of numbers in device memory: at most `rows`, `row_bytes` from one to the next.
struct Port {
    std::uint64_t address;
    std::uint32_t rows;
    std::uint32_t columns;
    std::uint64_t row_bytes;
};

// u32 (token,): the tokens of a step.
inline constexpr Port kIds = {0x100, 16, 1, 4};

// A file of dense fp16 rows from which the host takes them.
struct Table {
    const char* file;
    std::uint64_t rows;
};

inline constexpr std::optional<Table> kTable = std::nullopt;

// fp16 (head_rows, kVocabulary): logits after each of the last head_rows tokens of a step.
inline constexpr Port kLogits = {0x40000, 16, 300, 608};

// u32 (head_rows,): the likeliest token after each of them, where the device chooses.
inline constexpr std::optional<Port> kNext = Port{0x8000, 16, 1, 4};

// A KV cache of the first sequence: [heads][blocks of 32 tokens]; a block is [units of 32 elements]
// [32 tokens] rows.
struct Cache {
    std::uint64_t address;
    std::uint32_t heads;
    std::uint64_t head_bytes;
    std::uint64_t block_bytes;
};

// clang-format off
inline constexpr std::array<Cache, 1> kCaches = {{
    {0x20000, 2, 4096, 2048},
}};
// clang-format on

inline constexpr std::uint32_t kBlockTokens = 32;
inline constexpr std::uint32_t kRowBytes = 64;  // 32 elements of a token, fp16
inline constexpr std::uint32_t kExponentBytes = 0;

// Sequences whose caches the memory holds, and bytes from the caches of one to those of the next.
inline constexpr std::uint32_t kSequences = 2;
inline constexpr std::uint64_t kSequenceStride = 0x2000;

// Bytes that addresses of the device count.
inline constexpr std::uint32_t kAddressUnit = 16;

// Registers by byte offset.
inline constexpr std::uint32_t kRegisterId = 0x000;
inline constexpr std::uint32_t kRegisterStatus = 0x004;
inline constexpr std::uint32_t kRegisterError = 0x008;
inline constexpr std::uint32_t kRegisterControl = 0x010;
inline constexpr std::uint32_t kRegisterProgram = 0x014;
inline constexpr std::uint32_t kRegisterProgramWords = 0x018;

// Why a core stops: positive results of the C interface.
struct ErrorName {
    int code;
    const char* name;
};

inline constexpr std::array<ErrorName, 13> kErrorNames = {{
    {0, "none"},
    {1, "illegal_opcode"},
    {2, "bad_length"},
    {3, "reserved_bits"},
    {4, "field_range"},
    {5, "bad_address"},
    {6, "buffer"},
    {7, "hazard"},
    {8, "deadlock"},
    {9, "scalar"},
    {10, "stack"},
    {11, "gather_index"},
    {12, "bus"},
}};

// What the program relies on: limits of the target, memories and buffers of the board.
constexpr dlavm_config device_config() {
    dlavm_config config = {};
    config.abi_version = DLAVM_ABI_VERSION;
    config.id = kTargetId;
    config.header_words = 2;
    config.scalar_registers = 32;
    config.semaphores = 32;
    config.loop_depth = 8;
    config.call_depth = 8;
    config.act_slots = 4;
    config.memory_count = 2;
    // hbm: base, capacity, channels, bytes of a port
    config.memories[0] = {0x0, 0x8000000, 2, 16};
    // ddr: base, capacity, channels, bytes of a port
    config.memories[1] = {0x800000000, 0x4000000, 1, 16};
    config.opcode_mask[0] = 0x000f00ff000101ff;
    config.opcode_mask[1] = 0x0000000000000000;
    config.opcode_mask[2] = 0x0000000000000000;
    config.opcode_mask[3] = 0x0000000000000000;
    config.activation_elements = 8192;
    config.accumulators = 4096;
    config.weight_formats = 0x00ffff1f;
    return config;
}

}  // namespace model
