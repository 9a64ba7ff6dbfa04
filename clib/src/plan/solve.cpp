#include "plan/solve.h"

#include <algorithm>
#include <thread>

#include "plan/greedy.h"
#include "plan/portfolio.h"

namespace dlavm::plan {

namespace {

constexpr uint64_t kMostMembers = uint64_t{1} << 24;  // of all sections; the search needs some bytes for each
constexpr uint64_t kDefaultWork = uint64_t{1}
                                  << 29;  // default nodes times members: about as long for any problem
constexpr uint64_t kDefaultNodes = 1000;  // at least
constexpr uint64_t kFirstShare = 16;      // minimising: the first round takes one part in so many

uint64_t members(const Problem& problem) {
    uint64_t sum = 0;
    for (int b = 0; b < problem.count(); ++b)
        sum += static_cast<uint64_t>(problem.last[b] - problem.first[b]);
    return sum;
}

// One part of a problem on the way to its plan.
class Part {
  public:
    Part(const Problem& problem, uint64_t nodes, const Stop& stop, unsigned threads)
        : problem_(problem), stop_(stop), threads_(threads), lower_bound_(problem.lower_bound) {
        const uint64_t size = members(problem);
        usual_nodes_ = std::max(kDefaultNodes, kDefaultWork / size);
        nodes_left_ = nodes != 0 ? nodes : usual_nodes_;
        if (size > kMostMembers) nodes_left_ = 0;
    }

    int64_t peak() const { return best_.peak; }
    int64_t lower_bound() const { return lower_bound_; }
    uint64_t nodes() const { return nodes_; }
    const std::vector<int64_t>& offsets() const { return best_.offsets; }

    void fit(int64_t capacity) {
        best_ = greedy(problem_, std::max(capacity, lower_bound_), stop_);
        if (best_.peak > capacity && lower_bound_ <= capacity) probe(capacity, nodes_left_);
    }

    // Below `enough` bytes another part decides.
    void minimise(int64_t enough) {
        best_ = greedy(problem_, std::max(enough, lower_bound_), stop_);
        for (uint64_t share = usual_nodes_ / kFirstShare + 1; open(enough); share *= 2) round(enough, share);
    }

  private:
    int64_t goal(int64_t enough) const { return std::max(enough, lower_bound_); }

    bool open(int64_t enough) const { return best_.peak > goal(enough) && nodes_left_ != 0 && !stop_.now(); }

    // The goal itself, which often can be reached; after that, between it and the best plan.
    void round(int64_t enough, uint64_t share) {
        while (open(enough) && probe(goal(enough), share) != Search::kStopped) {
        }
        for (int64_t low = goal(enough); open(enough);) {
            low = std::max(low, goal(enough));
            const int64_t middle = low + (best_.peak - low) / 2;
            const int64_t least = problem_.next_peak(middle - 1);
            if (least >= best_.peak || least <= low) return;
            if (probe(least, share) == Search::kStopped) low = least;
        }
    }

    Search::Outcome probe(int64_t bytes, uint64_t share) {
        Answer answer = ask(problem_, bytes, std::min(share, nodes_left_), stop_, threads_);
        nodes_ += answer.nodes;
        nodes_left_ -= std::min(nodes_left_, answer.nodes);
        if (answer.outcome == Search::kInfeasible) lower_bound_ = problem_.next_peak(bytes);
        if (answer.outcome == Search::kFound) {
            best_.peak = problem_.peak(answer.offsets);
            best_.offsets = std::move(answer.offsets);
        }
        return answer.outcome;
    }

    const Problem& problem_;
    const Stop& stop_;
    const unsigned threads_;
    int64_t lower_bound_;
    uint64_t usual_nodes_ = 0, nodes_left_ = 0, nodes_ = 0;
    Placed best_;
};

dlavm_plan_verdict verdict(const dlavm_plan_result& r, uint64_t capacity) {
    if (r.lower_bound > capacity) return DLAVM_PLAN_INFEASIBLE;
    if (r.peak > capacity) return DLAVM_PLAN_UNKNOWN;
    return r.peak == r.lower_bound ? DLAVM_PLAN_OPTIMAL : DLAVM_PLAN_FEASIBLE;
}

}  // namespace

dlavm_plan_result solve(const dlavm_plan_problem& problem, const dlavm_plan_options& options,
                        uint64_t* offsets) {
    const Stop stop(options.milliseconds, options.cancel);
    const std::vector<Problem> found = parts(problem);
    const unsigned threads = options.threads != 0 ? options.threads : std::thread::hardware_concurrency();
    const bool smallest = problem.capacity == UINT64_MAX;
    dlavm_plan_result result = {};
    for (const Problem& p : found) result.lower_bound = std::max(result.lower_bound, uint64_t(p.lower_bound));
    std::fill(offsets, offsets + problem.count, 0);
    for (const Problem& p : found) {
        Part part(p, options.nodes, stop, threads);
        if (smallest) {
            part.minimise(static_cast<int64_t>(std::max(result.peak, result.lower_bound)));
        } else {
            part.fit(static_cast<int64_t>(std::min(problem.capacity, uint64_t{INT64_MAX})));
        }
        for (int b = 0; b < p.count(); ++b)
            offsets[p.input[b]] = static_cast<uint64_t>(part.offsets()[b] * p.unit);
        result.peak = std::max(result.peak, static_cast<uint64_t>(part.peak()));
        result.lower_bound = std::max(result.lower_bound, static_cast<uint64_t>(part.lower_bound()));
        result.nodes += part.nodes();
    }
    result.verdict = verdict(result, problem.capacity);
    if (result.verdict == DLAVM_PLAN_UNKNOWN || (smallest && result.verdict == DLAVM_PLAN_FEASIBLE)) {
        result.end = stop.cancelled() ? DLAVM_PLAN_CANCELLED
                     : stop.late()    ? DLAVM_PLAN_OUT_OF_TIME
                                      : DLAVM_PLAN_OUT_OF_NODES;
    }
    return result;
}

}  // namespace dlavm::plan
