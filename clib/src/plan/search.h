// The exact search: is there a plan within a capacity?
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "plan/problem.h"
#include "plan/stop.h"

namespace dlavm::plan {

// Where to branch next, and what to try first there. Any strategy is complete.
struct Strategy {
    enum Niche { kFewest, kFewestByFailures, kLowest };
    enum Order { kBySize, kByLength, kByArea, kByLengthUp, kByFirst, kByLast };
    Niche niche;
    Order order;
    bool strong;    // more work at each node to see earlier that there is no way on
    uint64_t seed;  // 0: the order itself, otherwise a shuffled one, in which neighbours may change places
};

// The state of the search is, for each buffer that has no place yet, the lowest offset that it may still have
// (`low`). Nothing else matters for what can come, so that a state without a solution is remembered by this
// alone.
//
// A niche is a stretch of sections whose lowest `low` is the same and higher on both sides. A buffer of a
// niche that may lie at its floor can only be raised by the buffers of the niche: the search puts each of
// them there in turn. If none of them does (waste), each must rest on another buffer.
class Search {
  public:
    enum Outcome { kFound, kInfeasible, kStopped };

    // Plans within `bytes`. `problem` must outlive the search.
    Search(const Problem& problem, int64_t bytes);

    // Looks at no more than `nodes` states. States without a solution stay known for the next run. The run
    // also stops when `before` falls below `turn`: another search has an answer that counts more.
    Outcome run(const Strategy& strategy, uint64_t nodes, const Stop& stop,
                const std::atomic<int64_t>& before, int64_t turn);

    uint64_t nodes() const { return nodes_; }  // of the last run
    const std::vector<int64_t>& offsets() const { return offset_; }

  private:
    static constexpr int kWaste = -1;
    static constexpr int kNone = -1;

    struct Floor {
        int64_t low;  // the lowest of the section's buffers without a place, INT64_MAX if all have one
        int count;    // how many of them may lie there
    };
    struct Change {
        enum Kind { kLow, kFloor, kPlaced } kind;
        int id;
        int count;
        int64_t low;
    };
    struct Key {
        uint64_t a, b;
        bool operator==(const Key& other) const { return a == other.a && b == other.b; }
    };
    // A range of sections that shares no unplaced buffer with others, to be solved on its own.
    struct Component {
        int first, last;
        int parent;  // the branch that made it: if this component has no solution, it fails
        int next;    // component to solve after this one
    };
    // A component whose niche at `section` is filled with one option after the other.
    struct Branch {
        int component;
        int section;
        size_t changes, components;    // how many there were before
        size_t options, end, current;  // into options_
        Key key;
    };

    void order_buffers();
    bool reset();
    int open(int component);
    bool next(int branch, int& agenda);

    bool place(int buffer);
    bool waste(int section);
    bool raise(int buffer, int64_t low);
    void remove(int buffer);
    void restore(int buffer);
    void undo(size_t changes);

    void touch(int section);
    bool propagate();
    bool scan(int section);
    bool lift(int section, int64_t limit, int lowest, int64_t end1, int64_t end2);
    bool lift_strong(int section, int64_t limit);

    int niche(const Component& c) const;
    bool better(int section, int best) const;
    int split(const Component& c, int parent, int next);
    Key key(const Component& c) const;
    bool known(const Key& key) const;
    void remember(const Key& key);

    int* members(int section) { return &member_[start_[section]]; }
    const int* members(int section) const { return &member_[start_[section]]; }

    const Problem& problem_;
    int64_t capacity_;           // the most units that any buffer may end at
    std::vector<int64_t> end_;   // the same of each buffer
    std::vector<int> twin_;      // the first buffer with the same sections and bytes
    std::vector<int> begin_;     // first buffer whose first section is this one or later
    std::vector<size_t> start_;  // of a section's members
    std::vector<int> member_;    // of each section, those without a place first
    std::vector<int> alive_;     // how many these are
    std::vector<size_t> slot_;   // of a buffer's positions
    std::vector<int> position_;  // of a buffer in the lists of its sections
    std::vector<int64_t> load_;  // units of the members without a place
    std::vector<int64_t> low_, offset_;
    std::vector<char> placed_;
    std::vector<Floor> floor_;
    std::vector<uint32_t> failures_;  // of each section
    std::vector<int> rank_;           // of each buffer, small first

    std::vector<Change> changes_;
    std::vector<int> queue_;  // sections to look at again
    std::vector<char> queued_;
    std::vector<Component> components_;
    std::vector<Branch> branches_;
    std::vector<int> options_;
    std::vector<Key> memo_;
    size_t memo_used_ = 0;
    std::vector<std::pair<int64_t, int>> by_low_, by_end_;
    Strategy strategy_{};
    uint64_t nodes_ = 0;
};

}  // namespace dlavm::plan
