"""Pictures of the memory map: each space to scale, and the activations over time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dlavm.memory import MemoryMap
from dlavm.memory.layout import ORDER, Region
from dlavm.memory.liveness import Interval
from dlavm.report.loops import Loop, outermost
from dlavm.report.svg import COLOURS, Axis, picture, tag, text, title
from dlavm.report.text import share, size
from dlavm.target import TargetSpec
from dlavm.target.spec import Memory

WIDTH = 960.0
LOOP_ROW = 18  # height of the brackets of one depth of loops
MAX_RECTANGLES = 1000  # above it only a stretch of the program is drawn: thinner than a pixel nobody sees them


@dataclass(frozen=True)
class SpaceView:
    """A memory space: its regions in order of address, two bars, a row a region."""

    name: str
    capacity: str
    used: str
    share: str
    bars: str
    rows: list[tuple[str, ...]]
    colours: list[str]


def spaces(memory: MemoryMap, spec: TargetSpec) -> list[SpaceView]:
    """Every space that the program uses."""
    names = dict.fromkeys(r.space for r in memory.regions)
    return [_space(spec.board.memory(name), [r for r in memory.regions if r.space == name]) for name in names]


def colour(role: str) -> str:
    """The class of a role's colour."""
    return f"c{ORDER.index(role) % COLOURS}"


def _space(memory: Memory, regions: list[Region]) -> SpaceView:
    used = sum(r.bytes for r in regions)
    return SpaceView(memory.name, size(memory.capacity), size(used), share(used, memory.capacity),
                     _bars(memory, regions, used), [_row(r, used, memory.capacity) for r in regions],
                     [colour(r.role) for r in regions])  # fmt: skip


def _row(r: Region, used: int, capacity: int) -> tuple[str, ...]:
    return r.role, f"0x{r.base:x}", f"{r.bytes:,}", size(r.bytes), share(r.bytes, used), share(r.bytes, capacity)


def _bars(memory: Memory, regions: Sequence[Region], used: int) -> str:
    """The whole space, and below it the used part spread over the width."""
    end = max(r.base + r.bytes for r in regions)
    whole = Axis(memory.base, memory.base + memory.capacity, 0, WIDTH)
    part = Axis(memory.base, end, 0, WIDTH)
    marks = [text(0.0, 12.0, f"{memory.name}: all {size(memory.capacity)}", class_="note"),
             tag("rect", x=0.0, y=18.0, width=WIDTH, height=22.0, class_="free"),
             *_strip(whole, regions, 18.0),
             tag("path", d=f"M0 40L0 62M{whole(end):.2f} 40L{WIDTH:.0f} 62", class_="guide"),
             text(8.0, 56.0, f"the first {size(end - memory.base)} enlarged", class_="note"),
             tag("rect", x=0.0, y=62.0, width=WIDTH, height=34.0, class_="free"),
             *_strip(part, regions, 62.0, 34.0)]  # fmt: skip
    return picture(WIDTH, 100, f"{memory.name}: {size(used)} of {size(memory.capacity)} used", marks)


def _strip(axis: Axis, regions: Sequence[Region], y: float, height: float = 22.0) -> list[str]:
    marks = []
    for r in regions:
        start, width = axis(r.base), axis(r.base + r.bytes) - axis(r.base)
        tip = title(f"{r.role}: {r.bytes:,} bytes at 0x{r.base:x}")
        marks.append(tag("rect", tip, x=start, y=y, width=width, height=height, class_=colour(r.role)))
        label = f"{r.role} {size(r.bytes)}"
        if height > 30 and width > 7.0 * len(label):
            marks.append(text(start + width / 2, y + height / 2 + 4, label, class_="inside"))
    return marks


@dataclass(frozen=True)
class ActivationView:
    """The picture of the activations, and the words beside it."""

    drawing: str
    commands: int
    drawn: tuple[int, int]
    peak: str
    bound: str
    over: str
    legend: list[tuple[str, str]]
    turns: str  # the loops whose bodies are drawn once


def activations(memory: MemoryMap, loops: Sequence[Loop] = ()) -> ActivationView | None:
    """A rectangle for each buffer: its life along x, its addresses along y; above them the loops of the program. None
    for a program without any activation."""
    plan, intervals = memory.activations, memory.intervals
    if not intervals or plan.peak == 0:
        return None
    commands = max(i.upper for i in intervals)
    drawn = _stretch(memory, commands)
    inside = [i for i in intervals if i.lower < drawn[1] and i.upper > drawn[0]]
    largest = sorted(inside, key=lambda i: (-_area(i), i.lower, i.name))[:MAX_RECTANGLES]
    families = _families(largest)
    shown = [loop for loop in loops if loop.first < drawn[1] and loop.end > drawn[0]]
    top = LOOP_ROW * (1 + max((loop.depth for loop in shown), default=-1))
    x = Axis(*drawn, 76, WIDTH - 4)
    y = Axis(0, plan.peak, top + 316, top + 22)
    in_time = sorted(largest, key=lambda i: (i.lower, i.name))
    boxes = [_box(i, plan.offsets[i.name], x, y, families[family(i.name)]) for i in in_time]
    brackets = [mark for loop in shown for mark in _bracket(loop, x, y)]
    marks = [*brackets, *_axes(x, y), *boxes, *_limits(plan.peak, plan.lower_bound, x, y)]
    legend = [(colour, name) for name, colour in families.items() if colour != "c7"]
    if "c7" in families.values():
        legend.append(("c7", "all others"))
    over = "" if plan.peak == plan.lower_bound else share(plan.peak - plan.lower_bound, plan.lower_bound)
    return ActivationView(picture(WIDTH, top + 352, "activations over time", marks), commands, drawn,
                          size(plan.peak), size(plan.lower_bound), over, legend, outermost(shown))  # fmt: skip


def _stretch(memory: MemoryMap, commands: int) -> tuple[int, int]:
    """The commands that are drawn: all of them, or of too many those around the first peak."""
    count = len(memory.intervals)
    if count <= MAX_RECTANGLES:
        return 0, commands
    length = max(1, commands * MAX_RECTANGLES // (2 * count))
    offsets, peak = memory.activations.offsets, memory.activations.peak
    top = min(i.lower for i in memory.intervals if offsets[i.name] + i.size == peak)
    start = max(0, min(top - length // 2, commands - length))
    return start, start + length


def _area(i: Interval) -> int:
    """What a rectangle covers: bytes times commands."""
    return i.size * (i.upper - i.lower)


def family(name: str) -> str:
    """What a buffer is called in every layer: numbers left out."""
    return re.sub(r"\d+", "*", name)


def _families(intervals: Sequence[Interval]) -> dict[str, str]:
    """A colour for each family; those that take little share the last one."""
    area: dict[str, int] = {}
    for i in intervals:
        area[family(i.name)] = area.get(family(i.name), 0) + _area(i)
    ranked = sorted(area, key=lambda name: (-area[name], name))
    return {name: f"c{min(at, COLOURS - 1)}" for at, name in enumerate(ranked)}


def _box(i: Interval, offset: int, x: Axis, y: Axis, colour: str) -> str:
    tip = title(f"{i.name}: {i.size:,} bytes at +0x{offset:x}, commands {i.lower} to {i.upper - 1}")
    start, end = x(max(i.lower, x.lo)), x(min(i.upper, x.hi))
    return tag("rect", tip, x=start, y=y(offset + i.size), width=end - start,
               height=y(offset) - y(offset + i.size), class_=f"{colour} box")  # fmt: skip


def _bracket(loop: Loop, x: Axis, y: Axis) -> list[str]:
    """A line over the commands of a loop, with its name where there is room, and its ground down to the axis."""
    words, row = f"{loop.name}: {loop.turns}", 4 + LOOP_ROW * loop.depth
    start, end = x(max(loop.first, x.lo)), x(min(loop.end, x.hi))
    marks = [tag("rect", title(words), x=start, y=row, width=end - start, height=y.start - row, class_="turns"),
             tag("path", title(words), d=f"M{start:.2f} {row + 6}V{row}H{end:.2f}V{row + 6}", class_="guide")]
    if end - start > 6.5 * len(words):
        marks.append(text((start + end) / 2, row + 13, words, class_="note middle"))
    return marks


def _axes(x: Axis, y: Axis) -> list[str]:
    marks = []
    for at in range(5):
        value = y.hi * at / 4
        marks.append(tag("path", d=f"M{x.start:.0f} {y(value):.2f}H{x.end:.0f}", class_="grid"))
        marks.append(text(x.start - 6, y(value) + 4, size(value), class_="tick end"))
    for at in range(9):
        place = round(x.lo + (x.hi - x.lo) * at / 8)
        marks.append(text(x(place), y.start + 16, str(place), class_="tick end" if at == 8 else "tick middle"))
    marks.append(text((x.start + x.end) / 2, y.start + 32, "command in the program", class_="note middle"))
    return marks


def _limits(peak: int, lower: int, x: Axis, y: Axis) -> list[str]:
    words = f"peak {size(peak)}" + (" = lower bound" if peak == lower else "")
    marks = [tag("path", d=f"M{x.start:.0f} {y(peak):.2f}H{x.end:.0f}", class_="peak"),
             text(x.end, y(peak) - 6, words, class_="note end")]  # fmt: skip
    if peak != lower:
        marks.append(tag("path", d=f"M{x.start:.0f} {y(lower):.2f}H{x.end:.0f}", class_="bound"))
        marks.append(text(x.start + 4, y(peak) - 6, f"dashed: lower bound {size(lower)}", class_="note"))
    return marks
