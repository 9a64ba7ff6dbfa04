#include "timing/parameters.h"

#include <cstdlib>
#include <sstream>

#include "timing/channel.h"

namespace dlavm::timing {

namespace {

struct Field {
    const char* name;
    uint32_t dlavm_memory_timing::* member;
    uint32_t least, most;
    const char* wrong;
};

#define DLAVM_FIELD(name, least, most) \
    {#name, &dlavm_memory_timing::name, least, most, #name ": expected " #least ".." #most}

constexpr Field kFields[] = {
    DLAVM_FIELD(clocks, 1, 1000000),
    DLAVM_FIELD(cycles, 1, 1000000),
    DLAVM_FIELD(beat_bytes, 1, 4096),
    DLAVM_FIELD(burst_bytes, 1, 4096),
    DLAVM_FIELD(burst_clocks, 1, 1000),
    DLAVM_FIELD(groups, 1, 64),
    DLAVM_FIELD(banks, 1, 64),
    DLAVM_FIELD(page_bytes, 1, 1048576),
    DLAVM_FIELD(interleave, 1, 64),
    DLAVM_FIELD(cl, 0, 100000),
    DLAVM_FIELD(cwl, 0, 100000),
    DLAVM_FIELD(rcd_read, 0, 100000),
    DLAVM_FIELD(rcd_write, 0, 100000),
    DLAVM_FIELD(rp, 0, 100000),
    DLAVM_FIELD(ras, 0, 100000),
    DLAVM_FIELD(rrd_s, 0, 100000),
    DLAVM_FIELD(rrd_l, 0, 100000),
    DLAVM_FIELD(faw, 0, 100000),
    DLAVM_FIELD(ccd_s, 1, 100000),
    DLAVM_FIELD(ccd_l, 1, 100000),
    DLAVM_FIELD(wtr_s, 0, 100000),
    DLAVM_FIELD(wtr_l, 0, 100000),
    DLAVM_FIELD(rtp, 0, 100000),
    DLAVM_FIELD(wr, 0, 100000),
    DLAVM_FIELD(rtw, 0, 100000),
    DLAVM_FIELD(refresh_interval, 1, 1000000000),
    DLAVM_FIELD(refresh_clocks, 0, 1000000),
    DLAVM_FIELD(refresh_banks, 1, 4096),
    DLAVM_FIELD(refresh_postponed, 0, 64),
    DLAVM_FIELD(request, 0, 100000),
    DLAVM_FIELD(response, 0, 100000),
    DLAVM_FIELD(reads, 1, 1000),
    DLAVM_FIELD(writes, 1, 1000),
    DLAVM_FIELD(window, 1, 1000),
    DLAVM_FIELD(batch, 1, 1000000),
};

#undef DLAVM_FIELD

static_assert(sizeof(dlavm_memory_timing) == sizeof kFields / sizeof *kFields * sizeof(uint32_t),
              "a field each");

const Field* find(const std::string& name) {
    for (const Field& field : kFields)
        if (name == field.name) return &field;
    return nullptr;
}

}  // namespace

const char* problem(const dlavm_memory_timing& t) {
    for (const Field& field : kFields)
        if (t.*field.member < field.least || t.*field.member > field.most) return field.wrong;
    if (t.page_bytes % t.burst_bytes != 0) return "page_bytes: expected a multiple of burst_bytes";
    if (t.groups % t.interleave != 0) return "interleave: expected a divisor of groups";
    if (t.ccd_s < t.burst_clocks) return "ccd_s: expected at least burst_clocks";
    if (t.refresh_banks != 1 && t.refresh_banks != t.groups * t.banks)
        return "refresh_banks: expected 1, or all there are";
    if (t.refresh_postponed != 0 && t.refresh_banks != 1)
        return "refresh_postponed: expected 0 where all banks are refreshed together";
    // Less, and a channel would do nothing but refresh.
    const uint64_t round = uint64_t{t.ras} + t.rp + t.refresh_clocks + t.cl + t.cwl + t.wr + t.rtp;
    if (uint64_t{t.refresh_interval} * (t.groups * t.banks / t.refresh_banks) <= round)
        return "refresh_interval: expected longer than a refresh";
    return nullptr;
}

std::string change(dlavm_memory_timing& timing, const std::string& text) {
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        const size_t equals = word.find('=');
        const Field* field = find(word.substr(0, equals));
        if (equals == std::string::npos || field == nullptr)
            return "expected name=value with a field of a memory timing, got " + word;
        char* end = nullptr;
        const unsigned long value = std::strtoul(word.c_str() + equals + 1, &end, 10);
        if (end == word.c_str() + equals + 1 || *end != 0 || value < field->least || value > field->most)
            return std::string(field->wrong) + ", got " + word;
        timing.*field->member = static_cast<uint32_t>(value);
    }
    const char* wrong = problem(timing);
    return wrong == nullptr ? "" : wrong;
}

}  // namespace dlavm::timing
