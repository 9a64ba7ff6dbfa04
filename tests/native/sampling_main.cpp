// The sampler of a generated host behind standard input and output; run by tests/unit/test_sampling.py.
//
// `sampling_main exp` answers doubles with their stated_exp, in binary. `sampling_main sample` answers
// requests (struct Request, then `rows` rows, each a u64 count and the logits) with lines: a token or an
// error for each row, then the counter; the error alone where the parameters are refused.
#include <cstdint>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "sampling.hpp"

namespace {

struct Request {
    double temperature;
    double top_p;
    std::uint64_t seed;
    std::uint64_t counter;
    std::uint32_t top_k;
    std::uint32_t rows;
};

using Row = std::vector<std::uint16_t>;

template <class Value>
bool read(Value* values, std::size_t count) {
    const auto bytes = static_cast<std::streamsize>(count * sizeof(Value));
    return static_cast<bool>(std::cin.read(reinterpret_cast<char*>(values), bytes));
}

bool read_row(Row& row) {
    std::uint64_t count = 0;
    if (!read(&count, 1)) return false;
    row.resize(count);
    return read(row.data(), row.size());
}

void answer(const Request& request, const std::vector<Row>& rows) {
    host::Sampler sampler(request.temperature, request.top_k, request.top_p, request.seed, request.counter);
    for (const Row& row : rows) {
        try {
            std::cout << sampler.sample(row.data(), row.size()) << "\n";
        } catch (const std::runtime_error& error) {
            std::cout << "error: " << error.what() << "\n";
        }
    }
    std::cout << "counter " << sampler.counter() << "\n";
}

int sample() {
    Request request;
    while (read(&request, 1)) {
        std::vector<Row> rows(request.rows);
        for (Row& row : rows)
            if (!read_row(row)) return 1;
        try {
            answer(request, rows);
        } catch (const std::runtime_error& error) {
            std::cout << "error: " << error.what() << "\n";
        }
    }
    return std::cin.gcount() == 0 ? 0 : 1;
}

int exponentials() {
    for (double x = 0; read(&x, 1);) {
        const double y = host::stated_exp(x);
        std::cout.write(reinterpret_cast<const char*>(&y), sizeof y);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    return argc == 2 && std::string(argv[1]) == "exp" ? exponentials() : sample();
}
