"""Placing intervals: greedy orders, then rounds that place earlier what reached the top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dlavm.memory.liveness import Interval
from dlavm.support.errors import DlavmError

ROUNDS = 8
_Key = Callable[[Interval], tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """Byte offsets by name. `optimal` says that the peak is proven the smallest."""

    offsets: Mapping[str, int]
    peak: int
    lower_bound: int
    optimal: bool


ORDERS: dict[str, _Key] = {
    "size": lambda i: (-i.size, i.lower),
    "area": lambda i: (-i.size * (i.upper - i.lower), i.lower),
    "lower": lambda i: (i.lower, -i.size),
    "duration": lambda i: (i.lower - i.upper, -i.size),
}


def plan(intervals: Sequence[Interval], align: int = 1, capacity: int | None = None) -> Plan:
    """Offsets, multiples of `align`, such that intervals which overlap in time do not overlap in space.

    Raises DlavmError for a name that occurs twice, an empty or negative interval, and where the best plan found is
    larger than `capacity`.
    """
    _check(intervals, align)
    bound = lower_bound(intervals, align)
    neighbours = _neighbours(intervals)
    best: dict[str, int] | None = None
    peak = 0
    for key in ORDERS.values():
        order = sorted(intervals, key=key)
        for _ in range(ROUNDS):
            offsets = _place(order, neighbours, align)
            top = _peak(order, offsets)
            if best is None or top < peak:
                best, peak = offsets, top
            if peak == bound:
                break
            tops = {i.name for i in order if offsets[i.name] + i.size == top}
            order = [i for i in order if i.name in tops] + [i for i in order if i.name not in tops]
        if peak == bound:
            break
    if capacity is not None and peak > capacity:
        raise DlavmError(f"memory plan: expected at most {capacity} bytes, got {peak} (at least {bound} are needed)")
    return Plan({i.name: (best or {})[i.name] for i in intervals}, peak, bound, peak == bound)


def lower_bound(intervals: Iterable[Interval], align: int = 1) -> int:
    """The most bytes that are live at one time. Every interval but the last one in space ends on `align`."""
    changes: dict[int, int] = {}
    padding = 0
    for i in intervals:
        rounded = -(-i.size // align) * align
        padding = max(padding, rounded - i.size)
        changes[i.lower] = changes.get(i.lower, 0) + rounded
        changes[i.upper] = changes.get(i.upper, 0) - rounded
    live = most = 0
    for time in sorted(changes):
        live += changes[time]
        most = max(most, live)
    return max(0, most - padding)


def _check(intervals: Sequence[Interval], align: int) -> None:
    if align < 1:
        raise DlavmError(f"memory plan: align expected at least 1, got {align!r}")
    seen: set[str] = set()
    for i in intervals:
        if i.name in seen:
            raise DlavmError(f"memory plan: expected distinct names, got {i.name!r} twice")
        seen.add(i.name)
        if i.size < 0 or i.lower >= i.upper:
            raise DlavmError(f"buffer {i.name}: expected size >= 0 and lower < upper, got {i!r}")


def _neighbours(intervals: Sequence[Interval]) -> dict[str, list[Interval]]:
    """For each interval, those that overlap it in time."""
    found: dict[str, list[Interval]] = {i.name: [] for i in intervals}
    alive: list[Interval] = []
    for new in sorted(intervals, key=lambda i: i.lower):
        alive = [old for old in alive if old.upper > new.lower]
        for old in alive:
            found[old.name].append(new)
            found[new.name].append(old)
        alive.append(new)
    return found


def _place(order: Sequence[Interval], neighbours: Mapping[str, list[Interval]], align: int) -> dict[str, int]:
    """Best fit: the smallest gap that is large enough, the space behind everything else if there is none."""
    offsets: dict[str, int] = {}
    for new in order:
        taken = sorted((offsets[n.name], offsets[n.name] + n.size) for n in neighbours[new.name] if n.name in offsets)
        end, best, best_gap = 0, -1, 0
        for lo, hi in taken:
            gap = lo - end
            if gap >= new.size and (best < 0 or gap < best_gap):
                best, best_gap = end, gap
            end = max(end, -(-hi // align) * align)
        offsets[new.name] = best if best >= 0 else end
    return offsets


def _peak(order: Iterable[Interval], offsets: Mapping[str, int]) -> int:
    return max((offsets[i.name] + i.size for i in order), default=0)
