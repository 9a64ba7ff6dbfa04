"""Cycles of a step by kind and by place of its commands, with the limit of each; the rows add up to the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dlavm.profile.causes import LIMITS, limit_of
from dlavm.profile.ops import Op
from dlavm.profile.path import Path
from dlavm.target import TargetSpec
from dlavm.target.sizes import matrix_lanes

BETWEEN = "between commands"


@dataclass(frozen=True)
class Row:
    """Commands of one name. `cycles`: on the critical path, also split by limit; `busy`: in which their engine runs one
    of them; shares are of the peaks of the weights' memory and of the lanes while they run, None where they use
    neither; `causes`: those of `busy`.
    """

    name: str
    commands: int
    cycles: int
    busy: int
    bytes: int
    macs: int
    memory_share: float | None
    lanes_share: float | None
    limits: Mapping[str, int]
    causes: Mapping[str, int]

    @property
    def bound(self) -> str:
        """The limit of most cycles."""
        return max(LIMITS, key=lambda name: self.limits[name]) if self.cycles else "-"


@dataclass(frozen=True)
class Table:
    """Rows with the most cycles first, then the one of the cycles between commands. `cycles`: of the step, the sum of
    the rows'; `idle`, `control`: `dlavm.profile.path.Path`."""

    cycles: int
    rows: tuple[Row, ...]
    idle: int
    control: int

    def report(self) -> dict[str, Any]:
        """For JSON."""
        rows = [{**asdict(row), "bound": row.bound, "share": row.cycles / self.cycles} for row in self.rows]
        return {"cycles": self.cycles, "rows": rows}


def tabulate(ops: Sequence[Op], path: Path, cycles: int, spec: TargetSpec, key: Callable[[Op], str]) -> Table:
    """The table of a run by what `key` calls its commands."""
    groups: dict[str, list[Op]] = {}
    for op in ops:
        groups.setdefault(key(op), []).append(op)
    rows = [_row(name, group, path, spec) for name, group in groups.items()]
    rows.sort(key=lambda row: (-row.cycles, -row.busy, row.name))
    return Table(cycles, (*rows, _between(path)), path.idle, path.control)


def _row(name: str, ops: Sequence[Op], path: Path, spec: TargetSpec) -> Row:
    on_path = [op for op in ops if op.command.number in path.numbers]
    limits: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    for op in on_path:
        for cause, count in op.command.causes.items():
            limits[limit_of(op.command.engine, cause)] += count
    for op in ops:
        causes.update(op.command.causes)
    busy, moved, macs = sum(o.command.cycles for o in ops), sum(o.bytes for o in ops), sum(o.macs for o in ops)
    peak = spec.space("weights").peak_gbs * 1e9 / (spec.board.clock_mhz * 1e6)  # bytes a cycle
    fast = sum(op.fast_bytes for op in ops)
    of_memory, of_lanes = fast / (busy * peak), macs / (busy * matrix_lanes(spec))
    return Row(name, len(ops), sum(op.command.cycles for op in on_path), busy, moved, macs, of_memory if fast else None,
               of_lanes if macs else None, _all(limits), dict(causes.most_common()))


def _between(path: Path) -> Row:
    limits: Counter[str] = Counter()
    for gap in path.gaps:
        limits.update(gap.cycles)
    return Row(BETWEEN, 0, sum(gap.end - gap.begin for gap in path.gaps), 0, 0, 0, None, None, _all(limits), {})


def _all(limits: Mapping[str, int]) -> dict[str, int]:
    return {name: limits.get(name, 0) for name in LIMITS}


def sums(rows: Iterable[Row]) -> dict[str, int]:
    """Cycles by limit of all rows."""
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update(row.limits)
    return _all(totals)
