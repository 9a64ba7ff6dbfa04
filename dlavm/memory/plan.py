"""Placing intervals in memory: the native planner (doc/memory.md) by names, and what a plan must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlavm.memory.liveness import Interval
from dlavm.memory.native import MOST_BYTES, Answer, Limits, solve
from dlavm.support import env
from dlavm.support.errors import DlavmError


@dataclass(frozen=True)
class Plan:
    """Byte offsets by name. `optimal` says that the peak is proven the smallest."""

    offsets: Mapping[str, int]
    peak: int
    lower_bound: int
    optimal: bool


@dataclass(frozen=True)
class Search:
    """A plan and how it came about: `status` and `end` are those of memory.native.VERDICTS and ENDS.

    The plan is valid whatever the status; `infeasible` and `unknown` say that it is larger than the capacity.
    """

    plan: Plan
    status: str
    end: str
    nodes: int


def plan(intervals: Sequence[Interval], align: int = 1, capacity: int | None = None) -> Plan:
    """Offsets, multiples of `align`, such that intervals which overlap in time do not overlap in space.

    The same in every run. With a capacity any plan within it will do; without one the peak is as small as can be found.
    Raises DlavmError for a name that occurs twice, an empty or negative interval, and where no plan was found within
    `capacity`.
    """
    found = search(intervals, align, capacity)
    if capacity is not None and found.plan.peak > capacity:
        raise DlavmError(f"memory plan: expected at most {capacity} bytes, got {found.plan.peak} ({shortage(found)})")
    return found.plan


def search(
    intervals: Sequence[Interval], align: int = 1, capacity: int | None = None, limits: Limits | None = None
) -> Search:
    """As `plan`, with limits of one's own; also where the capacity is too small."""
    _check(intervals, align, capacity)
    # Only the order of times counts, and any integer is a time here.
    ranks = {time: rank for rank, time in enumerate(sorted({t for i in intervals for t in (i.lower, i.upper)}))}
    answer: Answer = solve(
        [ranks[i.lower] for i in intervals], [ranks[i.upper] for i in intervals], [i.size for i in intervals],
        align, capacity, limits or Limits(threads=env.THREADS.get()),
    )  # fmt: skip
    offsets = {i.name: offset for i, offset in zip(intervals, answer.offsets, strict=True)}
    made = Plan(offsets, answer.peak, answer.lower_bound, answer.peak == answer.lower_bound)
    return Search(made, answer.verdict, answer.end, answer.nodes)


def shortage(found: Search) -> str:
    """Why a plan is larger than its capacity, in a few words."""
    least = f"at least {found.plan.lower_bound} are needed"
    return least if found.status == "infeasible" else f"not proven: {least}, the search was {found.end}"


def _check(intervals: Sequence[Interval], align: int, capacity: int | None) -> None:
    if not 1 <= align < MOST_BYTES:
        raise DlavmError(f"memory plan: align expected at least 1 and below 2^62, got {align!r}")
    if capacity is not None and capacity < 0:
        raise DlavmError(f"memory plan: capacity expected at least 0, got {capacity!r}")
    seen: set[str] = set()
    for i in intervals:
        if i.name in seen:
            raise DlavmError(f"memory plan: expected distinct names, got {i.name!r} twice")
        seen.add(i.name)
        if not 0 <= i.size < MOST_BYTES or i.lower >= i.upper:
            raise DlavmError(f"buffer {i.name}: expected size >= 0 and lower < upper, sizes below 2^62, got {i!r}")
