"""The work of one step: the task program run with concrete arguments, its commands counted by kind and by place."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlavm.memory import MemoryMap
from dlavm.schedule.traffic import kind, macs, operands
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import Launch, Load, Program, RegRead, execute
from dlavm.task.interpret import initial_values, instruction, value_of

# The columns of bytes, and the roles that each one holds.
COLUMNS = {
    "weights": ("weights",),
    "tables": ("tables",),
    "kv": ("kv",),
    "activations": ("activations", "input", "output"),
}
COLUMN_OF = {role: column for column, roles in COLUMNS.items() for role in roles}
_LAYER = re.compile(r"\b(layers?|blocks?)([ ._]?)\d+")


@dataclass(frozen=True)
class Work:
    """Sums over commands; bytes read and written, also split by what they hold."""

    launches: int = 0
    macs: int = 0
    weights: int = 0
    tables: int = 0
    kv: int = 0
    activations: int = 0
    read: int = 0
    written: int = 0

    @property
    def bytes(self) -> int:
        return self.read + self.written


@dataclass(frozen=True)
class Step:
    """A step of the program with concrete arguments. `once`: bytes of weights, tables and cache by column if each
    is moved only once, however many commands name it; what is appended to the cache counts with what is read."""

    args: Mapping[str, int]
    kinds: Mapping[str, Work]
    groups: Mapping[str, Work]
    total: Work
    once: Mapping[str, int]

    @property
    def tokens(self) -> int:
        return self.args["token"]


@dataclass(frozen=True)
class _Counted:
    """One command: its work, and column, address and bytes of its constants and caches."""

    kind: str
    work: Work
    fixed: tuple[tuple[str, int, int], ...]


class Places:
    """Which role an address belongs to."""

    def __init__(self, memory: MemoryMap) -> None:
        self._regions = sorted((r for r in memory.regions if r.bytes), key=lambda r: r.base)
        self._starts = [r.base for r in self._regions]

    def role(self, address: int) -> str:
        """Raises DlavmError for an address outside every region."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._regions[at].base + self._regions[at].bytes:
            raise DlavmError(f"report: expected an address of one of {len(self._regions)} regions, got 0x{address:x}")
        return self._regions[at].role


def measure(program: Program, spec: TargetSpec, memory: MemoryMap, args: Mapping[str, int]) -> Step:
    """Counts the commands of a step. What it loads from memory, such as the choice of an expert, counts up with its
    place there. Raises DlavmError as `dlavm.task.trace` does."""
    values = initial_values(program, args, memory.bases)
    places = Places(memory)
    kinds: dict[str, list[Work]] = {}
    groups: dict[str, list[Work]] = {}
    once: dict[tuple[str, int], int] = {}
    for stmt in execute(program, values):
        if isinstance(stmt, RegRead):
            raise DlavmError(f"report of {program.name}: expected no register read, got {stmt.register!r}")
        if isinstance(stmt, Load):
            choices = stmt.var.hi - stmt.var.lo + 1
            values[stmt.var.name] = stmt.var.lo + value_of(stmt.index, values) % choices
        if not isinstance(stmt, Launch):
            continue
        counted = _count(stmt, values, spec, places)
        kinds.setdefault(counted.kind, []).append(counted.work)
        groups.setdefault(group_of(stmt.where or counted.kind), []).append(counted.work)
        for column, address, size in counted.fixed:
            once[column, address] = max(once.get((column, address), 0), size)
    by_kind = {name: total(works) for name, works in kinds.items()}
    by_group = {name: total(works) for name, works in groups.items()}
    moved = {column: sum(size for (c, _), size in once.items() if c == column) for column in COLUMNS}
    return Step(dict(args), by_kind, by_group, total(by_kind.values()), moved)


def group_of(where: str) -> str:
    """The place of a command with the number of its layer left out: all layers are one line."""
    return _LAYER.sub(r"\1\2*", where)


def total(works: Iterable[Work]) -> Work:
    """The sum, field by field."""
    rows = [(w.launches, w.macs, w.weights, w.tables, w.kv, w.activations, w.read, w.written) for w in works]
    return Work(*(sum(column) for column in zip(*rows, strict=True)))


def _count(stmt: Launch, values: Mapping[str, int], spec: TargetSpec, places: Places) -> _Counted:
    numbers = {name: int(str(value)) for name, value in instruction(stmt, values).fields.items()}
    moved = dict.fromkeys((*COLUMNS, "read", "written"), 0)
    fixed = []
    for operand in operands(stmt.op, numbers, spec):
        address = numbers.get(operand.name, 0) * ADDRESS_UNIT
        column = COLUMN_OF[places.role(address)]
        moved[column] += operand.bytes
        moved["written" if operand.write else "read"] += operand.bytes
        if column != "activations":
            fixed.append((column, address, operand.bytes))
    work = Work(launches=1, macs=macs(stmt.op, numbers), **moved)
    return _Counted(kind(stmt.op, numbers, spec), work, tuple(fixed))
