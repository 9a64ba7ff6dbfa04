"""The roofline picture of a run: what its commands reached, below what the board allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlavm.profile.ops import Op
from dlavm.report.bounds import machine
from dlavm.report.roofline import HEIGHT, WIDTH, frame
from dlavm.report.svg import COLOURS, picture, tag, text, title
from dlavm.report.text import number
from dlavm.target import TargetSpec

LARGEST = 12  # places in the picture


@dataclass(frozen=True)
class Reached:
    """Commands of one place: MACs for each of their bytes in the weights' memory, and a second while they run."""

    name: str
    macs_byte: float
    macs_s: float
    cycles: int
    share_of_roof: float


def reached(ops: Sequence[Op], spec: TargetSpec) -> list[Reached]:
    """The places with a product, those of the most cycles first."""
    board, second = machine(spec), spec.board.clock_mhz * 1e6
    groups: dict[str, list[Op]] = {}
    for op in ops:
        if op.macs and op.fast_bytes:
            groups.setdefault(f"{op.group}: {op.kind}", []).append(op)
    found = []
    for name, group in groups.items():
        cycles, macs = sum(op.command.cycles for op in group), sum(op.macs for op in group)
        intensity, rate = macs / sum(op.fast_bytes for op in group), macs * second / cycles
        roof = min(board.macs_s, board.bytes_s * intensity)
        found.append(Reached(name, intensity, rate, cycles, rate / roof))
    return sorted(found, key=lambda point: (-point.cycles, point.name))[:LARGEST]


def draw(points: Sequence[Reached], spec: TargetSpec) -> str:
    """The picture; a dot a place, with a line up to the roof and its number in the table below it."""
    board = machine(spec)
    x, y, marks = frame(board, [p.macs_byte for p in points], min((p.macs_s for p in points), default=board.macs_s))
    taken: list[tuple[float, float]] = []
    for place, point in enumerate(points, 1):
        at, height = x(point.macs_byte), y(point.macs_s)
        roof = y(min(board.macs_s, board.bytes_s * point.macs_byte))
        tip = title(f"{point.name}: {number(point.macs_s)}MAC/s, {100 * point.share_of_roof:.1f} % of the roof")
        low = height + 16
        while any(abs(at - a) < 20 and abs(low - b) < 18 for a, b in taken):
            low += 2
        taken.append((at, low))
        colour = f"c{(place - 1) % COLOURS}"
        marks.append(tag("path", d=f"M{at:.1f} {roof:.1f}V{low:.1f}", class_="guide"))
        marks.append(tag("g", tip, tag("circle", cx=at, cy=height, r=3.0, class_=colour),
                         tag("circle", cx=at, cy=low, r=9.0, class_=colour),
                         text(at, low + 4, str(place), class_="inside")))  # fmt: skip
    return picture(WIDTH, HEIGHT, "roofline of the board with what the commands of the step reached", marks)
