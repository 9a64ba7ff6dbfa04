// The command line of the server.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "driver.hpp"
#include "service.hpp"

namespace host {

struct Options {
    std::string device = "sim:";
    std::string artifact = "..";
    std::string listen = "127.0.0.1:8123";
    std::string secret_file;  // empty: no secret
    Limits limits;
    DeviceOptions device_options;
    bool quiet = false;
};

// What --help shows.
std::string help_text();

// Nothing where it asks for help. Throws std::runtime_error for what it cannot say.
std::optional<Options> parse_options(const std::vector<std::string>& arguments);

// The text of a file, without the end of its last line. Throws std::runtime_error where it is no secret that
// a client can send; a file that others can read gets a line on standard error.
std::string read_secret(const std::string& path);

}  // namespace host
