"""Checks a plan without knowing how it was made: a sweep over time with the live intervals sorted by place."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence

from dlavm.memory.liveness import Interval
from dlavm.support.errors import DlavmError


def validate(
    intervals: Sequence[Interval], offsets: Mapping[str, int], align: int = 1, capacity: int | None = None
) -> None:
    """Raises DlavmError naming the buffer that has no place, is misaligned or out of range, or the two that overlap."""
    for i in intervals:
        if i.name not in offsets:
            raise DlavmError(f"buffer {i.name}: expected an offset, got none")
        offset = offsets[i.name]
        if offset % align:
            raise DlavmError(f"buffer {i.name}: offset expected a multiple of {align}, got {offset!r}")
        if offset < 0 or (capacity is not None and offset + i.size > capacity):
            limit = "at least 0" if capacity is None else f"within {capacity} bytes"
            raise DlavmError(f"buffer {i.name}: expected {limit}, got bytes {offset}..{offset + i.size}")
    # Ends come before beginnings at the same time: intervals are half-open. Empty buffers cannot collide.
    events = [(i.upper, 0, n) for n, i in enumerate(intervals) if i.size] + [
        (i.lower, 1, n) for n, i in enumerate(intervals) if i.size
    ]
    live: list[tuple[int, int]] = []  # (offset, index), no two of which overlap
    for _, begins, n in sorted(events):
        key = (offsets[intervals[n].name], n)
        at = bisect_left(live, key)
        if not begins:
            live.pop(at)
            continue
        for _, other in live[max(0, at - 1) : at + 1]:
            _check_pair(intervals[n], intervals[other], offsets)
        insort(live, key)


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


def _check_pair(a: Interval, b: Interval, offsets: Mapping[str, int]) -> None:
    start_a, start_b = offsets[a.name], offsets[b.name]
    if start_a < start_b + b.size and start_b < start_a + a.size:
        raise DlavmError(
            f"buffers {a.name} and {b.name}: expected no overlap, got bytes {start_a}..{start_a + a.size} and "
            f"{start_b}..{start_b + b.size} at times {a.lower}..{a.upper} and {b.lower}..{b.upper}"
        )
