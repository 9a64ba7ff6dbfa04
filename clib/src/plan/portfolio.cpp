#include "plan/portfolio.h"

#include <algorithm>
#include <future>
#include <memory>

namespace dlavm::plan {

namespace {

// Measured on the problems of doc/memory.md: each solves some at once that others take long for. The seed is
// that of the round.
constexpr Strategy kStrategies[] = {
    {Strategy::kFewest, Strategy::kByLengthUp, false, 0},
    {Strategy::kFewest, Strategy::kBySize, false, 0},
    {Strategy::kFewest, Strategy::kByLength, false, 0},
    {Strategy::kFewestByFailures, Strategy::kByArea, false, 0},
    {Strategy::kFewest, Strategy::kByArea, false, 0},
    {Strategy::kFewestByFailures, Strategy::kByLengthUp, true, 0},
    {Strategy::kLowest, Strategy::kBySize, false, 0},
    {Strategy::kLowest, Strategy::kByLengthUp, false, 0},
    {Strategy::kFewest, Strategy::kByFirst, true, 0},
    {Strategy::kFewestByFailures, Strategy::kByLast, true, 0},
    {Strategy::kFewestByFailures, Strategy::kBySize, false, 0},
    {Strategy::kFewest, Strategy::kByLengthUp, true, 0},
    {Strategy::kFewestByFailures, Strategy::kByLength, true, 0},
    {Strategy::kLowest, Strategy::kByFirst, false, 0},
};
constexpr int kLanes = 2;
constexpr uint64_t kFirstTurn = 500;  // nodes, and some more for each buffer

struct Turn {
    Strategy strategy;
    uint64_t nodes;
};

// Short turns in which a strategy is lucky or not, over and over; longer ones in time, so that one of them
// can complete the search.
std::vector<Turn> schedule(uint64_t count, uint64_t nodes) {
    std::vector<Turn> turns;
    uint64_t each = kFirstTurn + 4 * count;
    for (uint64_t round = 0; nodes != 0; ++round, each += each / 2) {
        for (Strategy strategy : kStrategies) {
            const uint64_t share = std::min(each, nodes);
            strategy.seed = round;
            if (share != 0) turns.push_back({strategy, share});
            nodes -= share;
        }
    }
    return turns;
}

// Every second turn belongs to a lane, which keeps what its turns have learned.
class Portfolio {
  public:
    Portfolio(const Problem& problem, int64_t bytes, uint64_t nodes, const Stop& stop)
        : problem_(problem),
          bytes_(bytes),
          stop_(stop),
          turns_(schedule(static_cast<uint64_t>(problem.count()), nodes)),
          nodes_(turns_.size(), 0),
          first_answer_(count()) {}

    Answer run(unsigned threads) {
        if (count() != 0) take(0);
        if (threads > 1 && going(1)) {
            std::future<void> other = std::async(std::launch::async, [this] { lane(1); });
            lane(2);
            other.get();
        } else {
            for (int64_t turn = 1; going(turn); ++turn) take(turn);
        }
        const int64_t answered = first_answer_;
        for (int64_t turn = 0; turn < std::min(count(), answered + 1); ++turn) answer_.nodes += nodes_[turn];
        if (answered < count()) {
            const int lane = static_cast<int>(answered % kLanes);
            answer_.outcome = outcome_[lane];
            if (answer_.outcome == Search::kFound) answer_.offsets = search_[lane]->offsets();
        }
        return answer_;
    }

  private:
    int64_t count() const { return static_cast<int64_t>(turns_.size()); }

    bool going(int64_t turn) const { return turn < count() && first_answer_ > turn && !stop_.now(); }

    void lane(int64_t turn) {
        for (; going(turn); turn += kLanes) take(turn);
    }

    void take(int64_t turn) {
        const int lane = static_cast<int>(turn % kLanes);
        std::unique_ptr<Search>& search = search_[lane];
        if (!search) search = std::make_unique<Search>(problem_, bytes_);
        const auto [strategy, nodes] = turns_[turn];
        const Search::Outcome outcome = search->run(strategy, nodes, stop_, first_answer_, turn);
        nodes_[turn] = search->nodes();
        if (outcome == Search::kStopped) return;
        outcome_[lane] = outcome;
        int64_t first = first_answer_;
        while (turn < first && !first_answer_.compare_exchange_weak(first, turn)) {
        }
    }

    const Problem& problem_;
    const int64_t bytes_;
    const Stop& stop_;
    const std::vector<Turn> turns_;
    std::vector<uint64_t> nodes_;        // that each turn has looked at
    std::atomic<int64_t> first_answer_;  // the first turn that has one, as far as known
    std::unique_ptr<Search> search_[kLanes];
    Search::Outcome outcome_[kLanes] = {Search::kStopped, Search::kStopped};
    Answer answer_;
};

}  // namespace

Answer ask(const Problem& problem, int64_t bytes, uint64_t nodes, const Stop& stop, unsigned threads) {
    return Portfolio(problem, bytes, nodes, stop).run(threads);
}

}  // namespace dlavm::plan
