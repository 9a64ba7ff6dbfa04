#include "arguments.hpp"

#include <charconv>
#include <cmath>
#include <sstream>
#include <stdexcept>

namespace host {

namespace {

[[noreturn]] void fail(const std::string& option, const std::string& expected, const std::string& got) {
    throw std::runtime_error(option + ": expected " + expected + ", got '" + got + "'");
}

}  // namespace

std::uint32_t integer(const std::string& option, const std::string& text, std::uint32_t low,
                      std::uint32_t high) {
    std::uint32_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc() && stop == end && value >= low && value <= high) return value;
    if (high == std::numeric_limits<std::uint32_t>::max())
        fail(option, "an integer of at least " + std::to_string(low), text);
    fail(option, "an integer in " + std::to_string(low) + ".." + std::to_string(high), text);
}

std::uint64_t seconds(const std::string& option, const std::string& text) {
    constexpr double kMost = 1e6;
    std::istringstream stream(text);
    stream.imbue(std::locale::classic());
    double value = 0;
    const bool starts_well = !text.empty() && (text[0] == '.' || (text[0] >= '0' && text[0] <= '9'));
    if (!starts_well || !(stream >> value) || !stream.eof() || !(value >= 0 && value <= kMost))
        fail(option, "seconds in 0..1000000", text);
    return static_cast<std::uint64_t>(std::ceil(value * 1000));
}

std::pair<std::string, std::string> device_option(const std::string& option, const std::string& text) {
    const std::size_t place = text.find('=');
    if (place == std::string::npos) fail(option, "NAME=VALUE", text);
    return {text.substr(0, place), text.substr(place + 1)};
}

}  // namespace host
