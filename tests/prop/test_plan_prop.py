"""The planner's plans are valid, and the validator agrees with a comparison of all pairs."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.memory import Interval, lower_bound, plan, validate
from dlavm.memory.csv import parse_csv, to_csv
from dlavm.memory.plan import search
from dlavm.support.errors import DlavmError


@st.composite
def problems(draw: st.DrawFn) -> list[Interval]:
    rows = draw(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8), st.integers(0, 40)), max_size=14))
    return [Interval(f"b{i}", lower, lower + length, size) for i, (lower, length, size) in enumerate(rows)]


@given(problems(), st.sampled_from([1, 3, 16]))
def test_plans_are_valid(intervals: list[Interval], align: int) -> None:
    made = plan(intervals, align)
    validate(intervals, made.offsets, align, made.peak)
    assert made.peak >= made.lower_bound >= 0
    assert made.optimal == (made.peak == made.lower_bound)
    assert made == plan(intervals, align)


@st.composite
def tiny_problems(draw: st.DrawFn) -> list[Interval]:
    """Few buffers, most of which live together."""
    rows = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 9)), max_size=6))
    return [Interval(f"b{i}", lower, lower + length, size) for i, (lower, length, size) in enumerate(rows)]


def smallest_peak(intervals: list[Interval], align: int) -> int:
    """By trying every order: buffers put in order of the offsets of a best plan, each as low as it can, are one."""
    best = sum(-(-i.size // align) * align for i in intervals)
    for order in permutations([i for i in intervals if i.size]):
        placed: list[tuple[int, Interval]] = []
        for new in order:
            offset = 0
            for at, old in sorted((p for p in placed if p[1].lower < new.upper and new.lower < p[1].upper),
                                  key=lambda p: p[0]):  # fmt: skip
                if at < offset + new.size and offset < at + old.size:
                    offset = -(-(at + old.size) // align) * align
            placed.append((offset, new))
        best = min(best, max((at + i.size for at, i in placed), default=0))
    return best


@settings(max_examples=150)
@given(tiny_problems(), st.sampled_from([1, 2, 4]))
def test_plans_are_as_small_as_can_be(intervals: list[Interval], align: int) -> None:
    least = smallest_peak(intervals, align)
    found = search(intervals, align)
    validate(intervals, found.plan.offsets, align, least)
    assert (found.plan.peak, found.plan.lower_bound, found.status) == (least, least, "optimal")
    assert search(intervals, align, least).plan.peak == least
    if least:
        below = search(intervals, align, least - 1)
        assert (below.status, below.plan.lower_bound <= least) == ("infeasible", True)
        validate(intervals, below.plan.offsets, align, below.plan.peak)


@given(problems())
def test_the_bound_is_the_most_bytes_live_at_once(intervals: list[Interval]) -> None:
    live = [sum(i.size for i in intervals if i.lower <= t < i.upper) for t in range(24)]
    assert lower_bound(intervals) == max(live)


@given(problems(), st.data())
def test_validator_sees_every_overlap(intervals: list[Interval], data: st.DataObject) -> None:
    offsets = {i.name: data.draw(st.integers(0, 60)) for i in intervals}
    clash = any(
        a.lower < b.upper and b.lower < a.upper
        and max(offsets[a.name], offsets[b.name]) < min(offsets[a.name] + a.size, offsets[b.name] + b.size)
        for n, a in enumerate(intervals) for b in intervals[:n]
    )  # fmt: skip
    if clash:
        with pytest.raises(DlavmError, match="expected no overlap"):
            validate(intervals, offsets)
    else:
        validate(intervals, offsets)


@given(problems())
def test_csv_round_trip(intervals: list[Interval]) -> None:
    offsets = dict(plan(intervals).offsets)
    assert parse_csv(to_csv(intervals)) == (intervals, {})
    assert parse_csv(to_csv(intervals, offsets)) == (intervals, offsets)
