#include "options.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <stdexcept>

#include "arguments.hpp"

namespace host {

namespace {

using std::string;
using std::to_string;

constexpr std::uint32_t kMostConnections = 1 << 16;
constexpr std::size_t kLongestSecret = 1024;  // bytes; it comes in the first message, which is short

struct Option {
    const char* name;
    const char* value;  // as --help names it
    string help;
    void (*set)(Options& options, const string& name, const string& value);
};

string plain(Milliseconds time) { return to_string(time / 1000) + " s"; }

const std::vector<Option>& table() {
    static const Limits kDefault;
    static const std::vector<Option> options = {
        {"--device", "URL", "device to run on (default sim:, the simulator)",
         [](Options& o, const string&, const string& value) { o.device = value; }},
        {"--artifact", "DIR", "the artifact that this program was written for (default ..)",
         [](Options& o, const string&, const string& value) { o.artifact = value; }},
        {"--option", "NAME=VALUE", "option of the device, such as threads=2 (repeatable)",
         [](Options& o, const string& name, const string& value) {
             o.device_options.push_back(device_option(name, value));
         }},
        {"--listen", "HOST:PORT", "where clients connect (default 127.0.0.1:8123); port 0: any free one",
         [](Options& o, const string&, const string& value) { o.listen = value; }},
        {"--secret-file", "FILE", "clients must know the text of this file (default: no secret)",
         [](Options& o, const string&, const string& value) { o.secret_file = value; }},
        {"--max-connections", "N", "clients at once (default " + to_string(kDefault.connections) + ")",
         [](Options& o, const string& name, const string& value) {
             o.limits.connections = integer(name, value, 1, kMostConnections);
         }},
        {"--conversations", "N",
         "clients at once that have a cache, of " + to_string(model::kSequences) + " (default " +
             to_string(kDefault.conversations) + ")",
         [](Options& o, const string& name, const string& value) {
             o.limits.conversations = integer(name, value, 1, model::kSequences);
         }},
        {"--max-tokens", "N",
         "tokens of an answer (default " + to_string(kDefault.max_tokens) + ", the context)",
         [](Options& o, const string& name, const string& value) {
             o.limits.max_tokens = integer(name, value, 1, model::kContext);
         }},
        {"--message-timeout", "SECONDS",
         "from the first byte of a message to its last (default " + plain(kDefault.message) + ")",
         [](Options& o, const string& name, const string& value) {
             o.limits.message = seconds(name, value);
         }},
        {"--stall-timeout", "SECONDS",
         "that a client may leave output unread (default " + plain(kDefault.stall) + ")",
         [](Options& o, const string& name, const string& value) { o.limits.stall = seconds(name, value); }},
        {"--idle-timeout", "SECONDS", "from one request to the next (default " + plain(kDefault.idle) + ")",
         [](Options& o, const string& name, const string& value) { o.limits.idle = seconds(name, value); }},
        {"--answer-timeout", "SECONDS", "for a whole answer (default: no limit)",
         [](Options& o, const string& name, const string& value) { o.limits.answer = seconds(name, value); }},
    };
    return options;
}

bool is_help(const string& option) { return option == "--help" || option == "-h"; }

}  // namespace

string help_text() {
    constexpr std::size_t kColumn = 29;
    const auto line = [](const string& option, const string& help) {
        return "  " + option + string(kColumn - 2 - std::min(kColumn - 3, option.size()), ' ') + help + "\n";
    };
    string text = "usage: server [OPTION VALUE]... [--quiet]\n\nServes " + string(model::kName) +
                  " to clients such as `dlavm chat`.\n\n";
    for (const Option& option : table()) text += line(string(option.name) + " " + option.value, option.help);
    text += line("--quiet", "no line on standard error for each connection");
    text += line("--help", "this text");
    return text +
           "\nSECONDS may have a fraction; 0 is no limit. A line on standard output says when the server is "
           "ready\n"
           "and where it listens. SIGTERM and SIGINT end it after the step that runs; a second one at "
           "once.\n\n"
           "Exit code: 0, or 2 with one line on standard error.\n";
}

std::optional<Options> parse_options(const std::vector<string>& arguments) {
    if (std::any_of(arguments.begin(), arguments.end(), is_help)) return std::nullopt;
    Options options;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const string& name = arguments[i];
        if (name == "--quiet") {
            options.quiet = true;
            continue;
        }
        const auto same = [&](const Option& option) { return name == option.name; };
        const auto option = std::find_if(table().begin(), table().end(), same);
        if (option == table().end())
            throw std::runtime_error("expected an option that --help lists, got '" + name + "'");
        if (++i == arguments.size()) throw std::runtime_error(name + ": expected a value, got none");
        option->set(options, name, arguments[i]);
    }
    return options;
}

string read_secret(const string& path) {
    const auto fail = [&](const string& expected, const string& got) {
        throw std::runtime_error("--secret-file " + path + ": expected " + expected + ", got " + got);
    };
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("a readable file", std::strerror(errno));
    string secret(kLongestSecret + 3, '\0');  // with the end of its line, and a byte too many
    file.read(secret.data(), static_cast<std::streamsize>(secret.size()));
    if (file.bad()) fail("a readable file", std::strerror(errno));
    secret.resize(static_cast<std::size_t>(file.gcount()));
    secret.erase(secret.find_last_not_of("\r\n") + 1);
    if (secret.empty()) fail("a secret", "none");
    if (secret.size() > kLongestSecret) fail("at most " + to_string(kLongestSecret) + " bytes", "more");
    if (!dlavm::wire::is_utf8(secret)) fail("UTF-8", "other bytes");
    struct stat status = {};
    if (stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IRGRP | S_IROTH)) != 0)
        std::cerr << "server: warning: --secret-file " << path << ": others can read it\n";
    return secret;
}

}  // namespace host
