// Runs a fuzz target without a fuzzer: on the files given, then on inputs made of them by changes that are
// the same every time. Prints how often each thing was reached.
//
//   fuzz_main MUTATIONS FILE...
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes read_file(const char* path) {
    std::ifstream stream(path, std::ios::binary);
    fuzz::check(stream.is_open(), std::string(path) + ": expected a readable file");
    return Bytes(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
}

// Changes of one place; the distributions of <random> differ between libraries, its generators do not.
class Mutator {
  public:
    explicit Mutator(const std::vector<Bytes>& seeds) : seeds_(seeds) {}

    Bytes next() {
        Bytes bytes = seeds_[below(seeds_.size())];
        for (std::size_t count = 1 + below(8); count > 0; --count) change(bytes);
        return bytes;
    }

  private:
    void change(Bytes& bytes) {
        const auto at = static_cast<std::ptrdiff_t>(below(bytes.size() + 1));
        const auto size = static_cast<std::ptrdiff_t>(
            below(std::min<std::size_t>(bytes.size() - static_cast<std::size_t>(at), 40) + 1));
        const Bytes& other = seeds_[below(seeds_.size())];
        const auto from = static_cast<std::ptrdiff_t>(below(other.size() + 1));
        constexpr std::uint8_t kEdges[] = {0, 1, 2, 127, 128, 254, 255};
        switch (below(6)) {
            case 0:
                if (size > 0) bytes[static_cast<std::size_t>(at)] ^= static_cast<std::uint8_t>(1 << below(8));
                break;
            case 1:
                if (size > 0) bytes[static_cast<std::size_t>(at)] = kEdges[below(std::size(kEdges))];
                break;
            case 2:
                bytes.erase(bytes.begin() + at, bytes.begin() + at + size);
                break;
            case 3:
                bytes.insert(bytes.begin() + at, other.begin() + from,
                             other.begin() + std::min(from + 60, end(other)));
                break;
            case 4:
                bytes.resize(static_cast<std::size_t>(at));
                bytes.insert(bytes.end(), other.begin() + from, other.end());
                break;
            default:
                bytes.insert(bytes.begin() + at, static_cast<std::size_t>(size),
                             static_cast<std::uint8_t>(below(256)));
        }
    }

    static std::ptrdiff_t end(const Bytes& bytes) { return static_cast<std::ptrdiff_t>(bytes.size()); }
    std::size_t below(std::size_t limit) { return random_() % limit; }

    const std::vector<Bytes>& seeds_;
    std::mt19937_64 random_{1};
};

}  // namespace

int main(int argc, char** argv) {
    fuzz::check(argc > 2, "arguments: expected MUTATIONS FILE...");
    std::vector<Bytes> seeds;
    for (char** path = argv + 2; *path != nullptr; ++path) seeds.push_back(read_file(*path));
    for (const Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
    Mutator mutator(seeds);
    for (long left = std::strtol(argv[1], nullptr, 10); left > 0; --left) {
        const Bytes bytes = mutator.next();
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
    for (const auto& [name, count] : fuzz::reached())
        std::printf("%s %llu\n", name.c_str(), static_cast<unsigned long long>(count));
}
