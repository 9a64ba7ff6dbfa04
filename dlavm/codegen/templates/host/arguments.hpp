// Values on a command line. What is wrong with one throws std::runtime_error that names the option.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

namespace host {

// A whole number in low..high.
std::uint32_t integer(const std::string& option, const std::string& text, std::uint32_t low,
                      std::uint32_t high = std::numeric_limits<std::uint32_t>::max());

// A number of seconds as milliseconds.
std::uint64_t seconds(const std::string& option, const std::string& text);

// NAME=VALUE, for dlavm_set_option.
std::pair<std::string, std::string> device_option(const std::string& option, const std::string& text);

}  // namespace host
