// Prompt in, tokens out, as ids on standard output. The loop of `generate` is where an application begins.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "driver.hpp"
#include "model.hpp"

namespace {

constexpr char kHelp[] =
    R"(usage: generate --prompt-ids 1,2,3 [--device URL] [--artifact DIR] [--max-tokens N] [--ignore-eos]
                [--option NAME=VALUE]

Continues a prompt with the likeliest tokens. Their ids come on standard output, a summary on standard error.

  --prompt-ids 1,2,3    token ids of the prompt
  --device URL          device to run on (default sim:, the simulator)
  --artifact DIR        the artifact that this program was written for (default ..)
  --max-tokens N        tokens to generate at most (default: as many as the context holds)
  --ignore-eos          go on after an end token
  --option NAME=VALUE   option of the device, such as threads=2 (repeatable)
  --help                this text

Exit code: 0, or 2 with one line on standard error.
)";

struct Request {
    std::string device = "sim:";
    std::string artifact = "..";
    host::Tokens prompt;
    std::uint32_t max_tokens = model::kContext;
    bool ignore_end = false;
    host::DeviceOptions options;
};

struct Summary {
    std::uint32_t tokens = 0;
    double first_seconds = 0;
    double later_seconds = 0;
    std::string stop_reason;
};

host::Tokens id_list(const std::string& option, const std::string& text) {
    host::Tokens ids;
    std::size_t begin = 0;
    while (begin <= text.size()) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        ids.push_back(host::integer(option, text.substr(begin, end - begin), 0));
        begin = end + 1;
    }
    return ids;
}

// What the command line asks for; nothing where it asks for help.
std::optional<Request> parse(const std::vector<std::string>& arguments) {
    Request request;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string& option = arguments[i];
        const auto value = [&]() -> const std::string& {
            if (++i == arguments.size()) throw std::runtime_error(option + ": expected a value, got none");
            return arguments[i];
        };
        if (option == "--help" || option == "-h") return std::nullopt;
        if (option == "--device")
            request.device = value();
        else if (option == "--artifact")
            request.artifact = value();
        else if (option == "--prompt-ids")
            request.prompt = id_list(option, value());
        else if (option == "--max-tokens")
            request.max_tokens = host::integer(option, value(), 1);
        else if (option == "--ignore-eos")
            request.ignore_end = true;
        else if (option == "--option")
            request.options.push_back(host::device_option(option, value()));
        else
            throw std::runtime_error("expected an option that --help lists, got '" + option + "'");
    }
    if (request.prompt.empty()) throw std::runtime_error("--prompt-ids: expected token ids, got none");
    return request;
}

bool is_end(std::uint32_t token) {
    return std::find(model::kEndTokens.begin(), model::kEndTokens.end(), token) != model::kEndTokens.end();
}

Summary generate(host::Model& model, const Request& request) {
    using Clock = std::chrono::steady_clock;
    Summary summary;
    auto begin = Clock::now();
    host::Sequence sequence;
    model.prefill(sequence, request.prompt);
    for (;;) {
        const std::uint32_t token = model.greedy_next();
        const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
        (summary.tokens == 0 ? summary.first_seconds : summary.later_seconds) += seconds;
        std::cout << (summary.tokens == 0 ? "" : ",") << token << std::flush;
        ++summary.tokens;
        if (is_end(token) && !request.ignore_end)
            summary.stop_reason = "eos";
        else if (summary.tokens >= request.max_tokens)
            summary.stop_reason = "length";
        else if (host::Model::room(sequence) == 0)
            summary.stop_reason = "context";
        if (!summary.stop_reason.empty()) return summary;
        begin = Clock::now();
        model.step(sequence, {token});
    }
}

void print(const Summary& summary, const Request& request) {
    const double rate = summary.later_seconds > 0 ? (summary.tokens - 1) / summary.later_seconds : 0;
    std::cerr << std::fixed << "[" << request.device << " " << request.prompt.size()
              << " prompt tokens, first token after " << std::setprecision(3) << summary.first_seconds
              << " s, " << summary.tokens << " tokens at " << std::setprecision(1) << rate
              << " tok/s, stopped by " << summary.stop_reason << "]\n";
}

void run(const std::vector<std::string>& arguments) {
    const std::optional<Request> request = parse(arguments);
    if (!request) {
        std::cout << kHelp;
    } else {
        host::Model model = host::Model::open(request->device, request->artifact, request->options);
        const Summary summary = generate(model, *request);
        std::cout << "\n";
        print(summary, *request);
    }
    if (!std::cout.flush()) throw std::runtime_error("standard output: expected to write, got an error");
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "generate: " << error.what() << "\n";
        return 2;
    }
}
