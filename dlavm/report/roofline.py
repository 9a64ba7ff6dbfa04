"""The roofline picture: where the steps and their largest places meet the limits of the board."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlavm.report.bounds import Machine, fast_bytes, machine
from dlavm.report.steps import Step, Work
from dlavm.report.svg import Axis, picture, tag, text, title
from dlavm.report.text import number, seconds, share
from dlavm.target import TargetSpec

LARGEST = 6  # places of each step
WIDTH, HEIGHT = 960.0, 400.0


@dataclass(frozen=True)
class Point:
    """Work with a mark: the colour's class, a step or one of its places, least seconds by memory and by lanes."""

    mark: str
    colour: str
    name: str
    macs_byte: float
    memory_s: float
    lanes_s: float
    share: str

    @property
    def limit(self) -> str:
        return "bandwidth" if self.memory_s >= self.lanes_s else "lanes"

    def cells(self) -> tuple[str, ...]:
        """The point as a row of the table."""
        least = max(self.memory_s, self.lanes_s)
        return (self.name, f"{self.macs_byte:.2f}", seconds(self.memory_s), seconds(self.lanes_s), self.limit,
                seconds(least), self.share)  # fmt: skip


def points(steps: Mapping[str, Step], spec: TargetSpec) -> list[Point]:
    """Each step and its places of the longest least time; those without a product are not in the picture."""
    board, found = machine(spec), []
    for at, (name, step) in enumerate(steps.items()):
        whole = sum(_least(work, board, spec) for work in step.groups.values())
        letter = chr(ord("A") + at)
        found.append(_point(letter, f"c{at}", f"{name}, whole step", step.total, board, spec, ""))
        ranked = sorted(step.groups.items(), key=lambda item: (-_least(item[1], board, spec), item[0]))
        for place, (group, work) in enumerate([r for r in ranked if r[1].macs][:LARGEST], 1):
            part = share(_least(work, board, spec), whole)
            found.append(_point(f"{letter}{place}", f"c{at}", group, work, board, spec, part))
    return found


def _least(work: Work, board: Machine, spec: TargetSpec) -> float:
    return max(board.memory_s(fast_bytes(work, spec)), board.lanes_s(work.macs))


def _point(mark: str, colour: str, name: str, work: Work, board: Machine, spec: TargetSpec, part: str) -> Point:
    count = fast_bytes(work, spec)
    return Point(mark, colour, name, work.macs / count if count else 0.0, board.memory_s(count),
                 board.lanes_s(work.macs), part)  # fmt: skip


def draw(found: Sequence[Point], spec: TargetSpec) -> str:
    """The picture: MACs a byte along x, MAC/s along y, both logarithmic; every point on the roof that bounds it."""
    board = machine(spec)
    shown = [p for p in found if p.macs_byte > 0]
    x, y, marks = frame(board, [p.macs_byte for p in shown])
    return picture(WIDTH, HEIGHT, "roofline of the board with the steps of the program",
                   [*marks, *_marks(shown, board, x, y)])  # fmt: skip


def frame(board: Machine, macs_bytes: Sequence[float], least: float = math.inf) -> tuple[Axis, Axis, list[str]]:
    """The axes that have room for points at so many MACs a byte and for `least` MAC/s, and the roof with its labels."""
    places = [*macs_bytes, board.balance]
    x = Axis(min(places) / 4, max(places) * 4, 84, WIDTH - 10, log=True)
    y = Axis(min(board.bytes_s * x.lo, least) / 3, board.macs_s * 3, HEIGHT - 44, 12, log=True)
    roof = f"M{x.start:.1f} {y(board.bytes_s * x.lo):.1f}L{x(board.balance):.1f} {y(board.macs_s):.1f}H{x.end:.1f}"
    return x, y, [*_grid(x, y), tag("path", d=roof, class_="roof"), *_labels(board, x, y)]


def _grid(x: Axis, y: Axis) -> list[str]:
    marks = []
    for value in x.decades():
        marks.append(tag("path", d=f"M{x(value):.1f} {y.end:.0f}V{y.start:.0f}", class_="grid"))
        marks.append(text(x(value), y.start + 16, f"{value:g}", class_="tick middle"))
    for value in y.decades():
        marks.append(tag("path", d=f"M{x.start:.0f} {y(value):.1f}H{x.end:.0f}", class_="grid"))
        marks.append(text(x.start - 6, y(value) + 4, f"{number(value)}MAC/s", class_="tick end"))
    words = "MACs for each byte that the commands name"
    marks.append(text((x.start + x.end) / 2, y.start + 34, words, class_="note middle"))
    return marks


def _labels(board: Machine, x: Axis, y: Axis) -> list[str]:
    ridge, top = x(board.balance), y(board.macs_s)
    lanes = f"{board.lanes:,} lanes: {number(board.macs_s)}MAC/s"
    memory = f"{board.memory}: {board.bytes_s / 1e9:.1f} GB/s"
    drop = tag("path", d=f"M{ridge:.1f} {top:.1f}V{y.start:.0f}", class_="bound")
    return [drop, text(x.end, top - 8, lanes, class_="note end"), text(x.start + 6, y.end + 12, memory, class_="note"),
            text(ridge + 5, y.start - 8, f"balance {board.balance:.2f} MAC/byte", class_="note")]  # fmt: skip


def _marks(shown: Sequence[Point], board: Machine, x: Axis, y: Axis) -> list[str]:
    """Bubbles hang below the roof at their MACs a byte; those that would overlap hang lower."""
    marks: list[str] = []
    taken: list[tuple[float, float]] = []
    for p in shown:
        at, roof = x(p.macs_byte), y(min(board.macs_s, board.bytes_s * p.macs_byte))
        low = roof + 18
        while any(abs(at - a) < 25 and abs(low - b) < 20 for a, b in taken):
            low += 4
        taken.append((at, low))
        marks.insert(0, tag("path", d=f"M{at:.1f} {roof:.1f}V{low:.1f}", class_="guide"))
        tip = title(f"{p.mark} {p.name}: {p.macs_byte:.2f} MAC/byte, bounded by {p.limit}")
        whole = len(p.mark) == 1
        marks.append(tag("g", tip, tag("circle", cx=at, cy=roof, r=2.5, class_=p.colour),
                         tag("rect", x=at - 12, y=low - 9, width=24.0, height=18.0, rx=9.0,
                             class_=p.colour if whole else f"{p.colour} soft"),
                         text(at, low + 4, p.mark, class_="inside" if whole else "mark")))  # fmt: skip
    return marks
