// Writes what a run did and what its parts waited for, as text (doc/profiling.md, "The file"). Behind the
// option `profile`.
#pragma once

#include <array>
#include <fstream>
#include <string>
#include <vector>

#include "timed/twin.h"

namespace dlavm::timed {

class Recorder final : public Trace, public Observer {
  public:
    // A run whose first cycle is `begin`. Waits of an engine inside a command are written one by one from
    // `least` cycles on. Throws Misuse where the file cannot be written.
    Recorder(const std::string& path, uint64_t begin, uint64_t least, const Shape& shape);

    void command(const Command& command, const Span& span) override;
    void look(const Twin& twin) override;
    void finish(const Twin& twin);

  private:
    // How memory was while something was waited for.
    enum class How : uint8_t { kMoves, kWaits, kRefreshes, kCount };
    static constexpr uint32_t kHows = static_cast<uint32_t>(How::kCount);
    static constexpr uint32_t kWaits = static_cast<uint32_t>(Wait::kCount);
    static constexpr size_t kSamples = 4096;

    // A queue, or the front end: what it has been waiting for, since when.
    struct Track {
        Wait wait = Wait::kNothing;
        uint64_t detail = 0;  // number of a semaphore, of a command of the front end
        uint64_t pc = 0;
        uint64_t since = 0, charged = 0;  // cycles up to `charged` are in `hows` and `sums`
        std::array<uint64_t, kHows> hows{};
        std::array<std::array<uint64_t, kHows>, kWaits> sums{};  // of the command that runs
    };
    struct Sample {
        uint64_t end = 0;
        std::vector<Fabric::Traffic> spaces;  // since the run began
    };

    void charge(Track& track, uint64_t end);
    void change(uint32_t number, Wait wait, uint64_t detail, uint64_t pc, uint64_t now);
    void write_run(uint32_t number, uint64_t end);
    void sample(const Twin& twin, uint64_t end);
    void write_samples();

    std::ofstream out_;
    uint64_t begin_, least_;
    size_t spaces_;
    // Of memory in the cycle that is looked at; of the cycles since the last one, those of a refresh.
    How how_ = How::kWaits;
    uint64_t looked_, refreshed_ = 0;
    uint32_t asked_ = 0;  // spaces, since then
    std::array<Track, FrontEnd::kQueues + 1> tracks_;
    std::vector<Sample> samples_;
    uint64_t window_ = 64, next_sample_;
};

}  // namespace dlavm::timed
