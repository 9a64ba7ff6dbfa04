"""The exact planner: instances with a known optimum, proofs, limits, the same plan in every run, bad input."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dlavm.memory import Interval, lower_bound, plan, validate
from dlavm.memory.csv import read_csv
from dlavm.memory.native import _CDEF, Limits
from dlavm.memory.plan import search
from dlavm.support.errors import DlavmError
from dlavm.support.native import load

CAPACITY = 1 << 20
BAD_ARGUMENT = -1


def intervals(rows: Sequence[tuple[int, int, int]]) -> list[Interval]:
    """Of (lower, upper, size)."""
    return [Interval(f"b{n}", *row) for n, row in enumerate(rows)]


def perfect(count: int, seed: int, time: int = 100, height: int = 1000) -> list[Interval]:
    """A rectangle of `height` bytes cut into buffers: a plan without a free byte exists, which greedy orders miss."""
    rng = random.Random(seed)
    rectangles = [(0, time, height)]
    while len(rectangles) < count:
        areas = [(upper - lower) * size for lower, upper, size in rectangles]
        lower, upper, size = rectangles.pop(rng.choices(range(len(rectangles)), areas)[0])
        if rng.random() < 0.5 and upper - lower > 1:
            at = rng.randint(lower + 1, upper - 1)
            rectangles += [(lower, at, size), (at, upper, size)]
        elif size > 1:
            at = rng.randint(1, size - 1)
            rectangles += [(lower, upper, at), (lower, upper, size - at)]
        else:
            rectangles.append((lower, upper, size))
    rng.shuffle(rectangles)
    return intervals(rectangles)


# The peak of a good plan is the load, and no greedy order finds one.
HARD_FOR_GREEDY = [
    [(3, 4, 6), (2, 4, 3), (1, 2, 3), (2, 3, 3), (1, 3, 4), (1, 4, 5)],
    [(1, 6, 6), (0, 2, 3), (5, 6, 5), (1, 5, 6), (1, 3, 1), (4, 6, 5), (5, 6, 3)],
    [(0, 3, 4), (0, 4, 5), (2, 4, 6), (3, 4, 2), (0, 1, 4), (0, 3, 3), (3, 4, 6), (0, 2, 5)],
]


@pytest.mark.parametrize("rows", HARD_FOR_GREEDY, ids=["6", "7", "8"])
def test_what_greedy_orders_miss(rows: list[tuple[int, int, int]]) -> None:
    problem = intervals(rows)
    found = search(problem)
    validate(problem, found.plan.offsets, 1, found.plan.peak)
    assert found.nodes > 0
    assert found.plan.peak == found.plan.lower_bound == lower_bound(problem)
    assert (found.status, found.end, found.plan.optimal) == ("optimal", "complete", True)


# Every byte of every time would be needed for the load of 13; trying all orders gives 15.
ABOVE_THE_LOAD = [(0, 3, 2), (2, 6, 3), (1, 5, 3), (3, 5, 7), (0, 1, 11), (1, 2, 8), (2, 3, 5), (5, 6, 10)]


def test_a_peak_above_the_load_is_proven() -> None:
    problem = intervals(ABOVE_THE_LOAD)
    found = search(problem)
    validate(problem, found.plan.offsets, 1, 15)
    assert lower_bound(problem) == 13
    assert (found.plan.peak, found.plan.lower_bound, found.status) == (15, 15, "optimal")
    none = search(problem, 1, 14)
    assert (none.status, none.end, none.plan.lower_bound) == ("infeasible", "complete", 15)
    assert none.nodes > 0
    unproven = search(problem, 1, 13, Limits(nodes=1))
    assert (unproven.status, unproven.end, unproven.plan.lower_bound) == ("unknown", "out of nodes", 13)


def test_equal_sizes_with_different_rests() -> None:
    # Both take two units of 16; only the one of 17 bytes ends within 33 bytes when it is on top.
    problem = intervals([(0, 2, 17), (0, 2, 32), (0, 1, 16), (1, 2, 16)])
    found = search(problem, 16)
    validate(problem, found.plan.offsets, 16, 80)
    assert (found.plan.peak, found.status) == (65, "optimal")


@pytest.mark.parametrize("count", [20, 60, 120])
@pytest.mark.parametrize("seed", range(2))
def test_perfect_packings_are_found(count: int, seed: int) -> None:
    problem = perfect(count, seed)
    found = search(problem)
    validate(problem, found.plan.offsets, 1, 1000)
    assert found.status == "optimal" and found.plan.peak == 1000


def test_alignment_is_exact_at_the_top() -> None:
    # Two of 10 on a grid of 16: the lower one takes 16, the upper one 10.
    made = plan(intervals([(0, 2, 10), (1, 3, 10), (3, 4, 26)]), 16)
    assert (made.peak, made.lower_bound, made.optimal) == (26, 26, True)
    # The one with the larger rest has to be on top: 32 + 17, not 16 + 33.
    made = plan(intervals([(0, 1, 17), (0, 1, 16)]), 16)
    assert (made.peak, made.optimal) == (33, True)


def test_parts_that_share_no_time_are_planned_apart() -> None:
    one = HARD_FOR_GREEDY[0]
    later = [(lower + 100 * i, upper + 100 * i, size * (i + 1)) for i in range(5) for lower, upper, size in one]
    found = search(intervals(later))
    assert found.plan.peak == 5 * 15 and found.plan.optimal
    # Only the last part decides; the others need no search, since what a greedy order finds is small enough.
    assert found.nodes <= 2 * search(intervals(one)).nodes


def test_sizes_of_zero_and_times_below_zero() -> None:
    problem = intervals([(-5, 2, 0), (-3, 3, 7), (-9, -3, 7)])
    made = plan(problem)
    validate(problem, made.offsets, 1, made.peak)
    assert (made.peak, made.optimal) == (7, True)


def test_capacity() -> None:
    problem = perfect(60, 1)
    assert search(problem, 1, 1000).status == "optimal"
    assert search(problem, 1, 5000).status == "feasible"
    none = search(problem, 1, 999)
    assert (none.status, none.end, none.nodes, none.plan.lower_bound) == ("infeasible", "complete", 0, 1000)
    validate(problem, none.plan.offsets, 1, none.plan.peak)
    with pytest.raises(DlavmError, match=r"expected at most 999 bytes, got \d+ \(at least 1000 are needed\)"):
        plan(problem, 1, 999)
    assert plan(problem, 1, 1 << 70).peak >= 1000


def test_limits() -> None:
    problem = perfect(400, 1)
    few = search(problem, 1, 1000, Limits(nodes=50))
    assert (few.status, few.end) == ("unknown", "out of nodes")
    assert 0 < few.nodes <= 60
    validate(problem, few.plan.offsets, 1, few.plan.peak)
    short = search(problem, 1, None, Limits(1 << 60, 0.05))
    assert (short.status, short.end) == ("feasible", "out of time")
    validate(problem, short.plan.offsets, 1, short.plan.peak)


@pytest.mark.parametrize("capacity", [None, 1000, 1020])
def test_the_plan_depends_on_nothing_but_the_problem(capacity: int | None) -> None:
    problem = perfect(150, 7)
    plans = [search(problem, 1, capacity, Limits(nodes=60_000, threads=threads)) for threads in (1, 2, 2, 7)]
    assert plans[0].nodes > 0
    assert all(p == plans[0] for p in plans)
    backwards = search(problem[::-1], 1, capacity, Limits(nodes=60_000))
    validate(problem, backwards.plan.offsets, 1, backwards.plan.peak)


# -- the C interface -----------------------------------------------------------------------------------------------


class Call:
    """A call of dlavm_plan() that is right, to be made wrong."""

    def __init__(self, rows: Sequence[tuple[int, int, int]]) -> None:
        self.ffi, self.lib = load(_CDEF)
        self.columns = [self.ffi.new("uint64_t[]", [row[i] for row in rows]) for i in range(3)]
        self.problem = self.ffi.new("dlavm_plan_problem *", [len(rows), *self.columns, 1, (1 << 64) - 1])
        self.result = self.ffi.new("dlavm_plan_result *")
        self.offsets: Any = self.ffi.new("uint64_t[]", len(rows))

    def run(self) -> tuple[int, str]:
        status = self.lib.dlavm_plan(self.problem, self.ffi.NULL, self.result, self.offsets)
        return status, self.ffi.string(self.lib.dlavm_plan_error()).decode()


def test_a_call_without_options() -> None:
    call = Call([(0, 2, 8), (1, 3, 8)])
    assert call.run() == (0, "")
    assert call.result.peak == 16 and sorted(call.offsets) == [0, 8]
    nothing = Call([])
    nothing.offsets = nothing.ffi.NULL
    assert nothing.run() == (0, "") and nothing.result.peak == 0


@pytest.mark.parametrize("name", ["problem", "result", "offsets"])
def test_null_arguments(name: str) -> None:
    call = Call([(0, 1, 1)])
    setattr(call, name, call.ffi.NULL)
    assert call.run() == (BAD_ARGUMENT, "plan: expected problem, result and offsets, got a null pointer")


@pytest.mark.parametrize("name", ["lower", "upper", "size"])
def test_null_arrays(name: str) -> None:
    call = Call([(0, 1, 1)])
    setattr(call.problem, name, call.ffi.NULL)
    assert call.run() == (BAD_ARGUMENT, "plan: expected arrays lower, upper and size, got a null pointer")


@pytest.mark.parametrize(
    ("rows", "align", "message"),
    [
        ([(0, 1, 1), (4, 4, 1)], 1, "plan: buffer 1: expected lower < upper, got 4 and 4"),
        ([(5, 4, 1)], 1, "plan: buffer 0: expected lower < upper, got 5 and 4"),
        ([(0, 1, 1)], 0, "plan: align: expected 1 to 2^62 - 1, got 0"),
        ([(0, 1, 1)], 1 << 62, "plan: align: expected 1 to 2^62 - 1, got 4611686018427387904"),
        ([(0, 1, 1 << 63)], 1, "plan: buffer 0: expected sizes that sum up to less than 2^62, got 9223372036854775808"),
        ([(0, 1, (1 << 64) - 1)], 7, "plan: buffer 0: expected sizes that sum up"),
        ([(0, 1, 1 << 61), (2, 3, 1 << 61)], 1, "plan: buffer 1: expected sizes that sum up to less than 2^62"),
        ([(0, 1, 1)] * 4, 1 << 60, "plan: buffer 3: expected sizes that sum up to less than 2^62, got 1 more"),
    ],
)
def test_bad_numbers(rows: list[tuple[int, int, int]], align: int, message: str) -> None:
    call = Call(rows)
    call.problem.align = align
    status, error = call.run()
    assert status == BAD_ARGUMENT and error.startswith(message)


def test_too_many_buffers() -> None:
    call = Call([(0, 1, 1)])
    call.problem.count = 1 << 40
    assert call.run() == (BAD_ARGUMENT, "plan: expected below 2^31 buffers, got 1099511627776")


def test_the_largest_numbers() -> None:
    call = Call([(0, (1 << 64) - 1, (1 << 61) - 1), ((1 << 64) - 2, (1 << 64) - 1, 1 << 61)])
    assert call.run() == (0, "")
    assert call.result.peak == (1 << 62) - 1


def test_a_cancelled_search_still_has_a_plan() -> None:
    problem = perfect(400, 1)
    call = Call([(i.lower, i.upper, i.size) for i in problem])
    cancel = call.ffi.new("uint32_t *", 1)
    options = call.ffi.new("dlavm_plan_options *", [1 << 60, 0, cancel, 2])
    assert call.lib.dlavm_plan(call.problem, options, call.result, call.offsets) == 0
    assert call.result.end == 3 and call.result.nodes == 0
    validate(problem, {i.name: offset for i, offset in zip(problem, call.offsets, strict=True)}, 1, call.result.peak)


@pytest.mark.parametrize(
    ("bad", "align", "message"),
    [
        (Interval("a", 0, 1, 1 << 62), 1, "buffer a: expected size >= 0 and lower < upper, sizes below 2"),
        (Interval("a", 0, 1, 1), 0, "align expected at least 1 and below"),
        (Interval("a", 0, 1, 1), 1 << 62, "align expected at least 1 and below"),
    ],
)
def test_bad_intervals(bad: Interval, align: int, message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        plan([bad], align)


def test_sums_that_are_too_large() -> None:
    with pytest.raises(DlavmError, match="plan: buffer 1: expected sizes that sum up to less than 2"):
        plan(intervals([(0, 1, 1 << 61), (0, 1, 1 << 61)]))
    with pytest.raises(DlavmError, match="capacity expected at least 0, got -1"):
        plan([], 1, -1)


# -- known problems ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A", "B", "C", "D", "E"])
def test_minimalloc_problems(name: str, shared: Path) -> None:
    path = shared / "data" / "minimalloc" / f"{name}.{CAPACITY}.csv"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    problem, _ = read_csv(path)
    found = search(problem, 1, CAPACITY)
    validate(problem, found.plan.offsets, 1, CAPACITY)
    assert found.status in ("optimal", "feasible")
    smallest = search(problem)
    validate(problem, smallest.plan.offsets, 1, smallest.plan.peak)
    assert smallest.plan.peak <= 1.02 * lower_bound(problem)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_larger_perfect_packings(seed: int) -> None:
    problem = perfect(200, seed)
    made = plan(problem, 1, 1000)
    validate(problem, made.offsets, 1, 1000)
