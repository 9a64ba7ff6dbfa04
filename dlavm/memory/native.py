"""The planner of the native library (clib/include/dlavm/plan.h): arrays of numbers in, offsets out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dlavm.support.errors import DlavmError
from dlavm.support.native import load

VERDICTS = ("optimal", "feasible", "infeasible", "unknown")
ENDS = ("complete", "out of nodes", "out of time", "cancelled")
MOST_BYTES = 1 << 62

_CDEF = """
typedef struct {
    uint64_t count;
    const uint64_t *lower, *upper, *size;
    uint64_t align, capacity;
} dlavm_plan_problem;
typedef struct { uint64_t nodes, milliseconds; const uint32_t *cancel; uint32_t threads; } dlavm_plan_options;
typedef struct { uint64_t peak, lower_bound, nodes; uint32_t verdict, end; } dlavm_plan_result;
int dlavm_plan(const dlavm_plan_problem *problem, const dlavm_plan_options *options, dlavm_plan_result *result,
               uint64_t *offsets);
const char *dlavm_plan_error(void);
"""
_SMALLEST = (1 << 64) - 1  # in place of a capacity


@dataclass(frozen=True)
class Limits:
    """What ends the search: nodes (None: a number by the size of the problem) and seconds (None: no limit).

    A plan is the same in every run and for any number of threads, unless the seconds end the search.
    """

    nodes: int | None = None
    seconds: float | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Answer:
    """`verdict` is one of VERDICTS, `end` one of ENDS: what ended the search."""

    offsets: list[int]
    peak: int
    lower_bound: int
    nodes: int
    verdict: str
    end: str


def solve(lower: Sequence[int], upper: Sequence[int], size: Sequence[int], align: int, capacity: int | None,
          limits: Limits) -> Answer:  # fmt: skip
    """Offsets in bytes of buffers that live at lower <= t < upper; without a capacity those of the smallest peak.

    All numbers are below 2^64. An interrupt ends the search. Raises DlavmError as the library does.
    """
    ffi, lib = load(_CDEF)
    arrays = [ffi.new("uint64_t[]", values) for values in (lower, upper, size)]
    bound = _SMALLEST if capacity is None else min(capacity, _SMALLEST - 1)
    problem = ffi.new("dlavm_plan_problem *", [len(size), *arrays, align, bound])
    cancel = ffi.new("uint32_t *")
    # A limit of 0 means none to the library; a search without any time at all ends before its first node.
    milliseconds = 0 if limits.seconds is None else max(1, min(int(limits.seconds * 1000), 1 << 40))
    options = ffi.new("dlavm_plan_options *", [limits.nodes or 0, milliseconds, cancel, limits.threads or 0])
    result, offsets = ffi.new("dlavm_plan_result *"), ffi.new("uint64_t[]", len(size))

    def call() -> str:
        status = lib.dlavm_plan(problem, options, result, offsets)
        return str(ffi.string(lib.dlavm_plan_error()).decode(errors="replace")) if status else ""

    if error := _interruptible(call, cancel):
        raise DlavmError(error)
    return Answer(list(offsets), int(result.peak), int(result.lower_bound), int(result.nodes),
                  VERDICTS[result.verdict], ENDS[result.end])  # fmt: skip


def _interruptible(call: Any, cancel: Any) -> str:
    """Runs `call` in a thread: while a C function runs in the main thread, Python sees no Ctrl-C."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        try:
            return str(future.result())
        except BaseException:
            cancel[0] = 1
            raise
