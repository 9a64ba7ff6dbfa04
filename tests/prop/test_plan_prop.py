"""The planner's plans are valid, and the validator agrees with a comparison of all pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlavm.memory import Interval, lower_bound, plan, validate
from dlavm.memory.csv import parse_csv, to_csv
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
