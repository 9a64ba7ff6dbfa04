// Placing buffers in memory: buffers that live at the same time must not share bytes, the peak is to be
// small.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// `count` buffers of `size` bytes that live at lower <= t < upper; their offsets are to be multiples of
// `align`.
typedef struct {
    uint64_t count;
    const uint64_t *lower, *upper, *size;
    uint64_t align;
    uint64_t capacity;  // any plan of at most so many bytes will do; UINT64_MAX: the smallest peak is wanted
} dlavm_plan_problem;

// The search ends for what comes first. Only `nodes` ends it at the same place in every run.
typedef struct {
    uint64_t nodes;          // positions that the search may look at; 0: a default by the size of the problem
    uint64_t milliseconds;   // 0: no limit
    const uint32_t* cancel;  // another thread writes a number other than 0 there; may be null
    uint32_t threads;        // 0: as many as are of use; the plan does not depend on it
} dlavm_plan_options;

typedef enum {
    DLAVM_PLAN_OPTIMAL = 0,     // the peak is proven the smallest
    DLAVM_PLAN_FEASIBLE = 1,    // within the capacity; a smaller peak may exist
    DLAVM_PLAN_INFEASIBLE = 2,  // proven: no plan is within the capacity
    DLAVM_PLAN_UNKNOWN = 3,     // the search ended without a plan within the capacity and without a proof
} dlavm_plan_verdict;

typedef enum {
    DLAVM_PLAN_COMPLETE = 0,
    DLAVM_PLAN_OUT_OF_NODES = 1,
    DLAVM_PLAN_OUT_OF_TIME = 2,
    DLAVM_PLAN_CANCELLED = 3,
} dlavm_plan_end;

typedef struct {
    uint64_t peak;         // bytes; of the plan in `offsets`, whatever the verdict
    uint64_t lower_bound;  // no plan has a smaller peak
    uint64_t nodes;        // that the search looked at
    uint32_t verdict;      // dlavm_plan_verdict
    uint32_t end;          // dlavm_plan_end: what ended the search
} dlavm_plan_result;

// Writes `count` offsets, always those of a valid plan. `options` may be null. Returns a dlavm_status
// (device.h): DLAVM_BAD_ARGUMENT for null pointers, lower >= upper, align 0, and sizes that sum up to 2^62
// and more.
int dlavm_plan(const dlavm_plan_problem* problem, const dlavm_plan_options* options,
               dlavm_plan_result* result, uint64_t* offsets);

// Text of this thread's last call of dlavm_plan(), "" where it succeeded.
const char* dlavm_plan_error(void);

#ifdef __cplusplus
}
#endif
