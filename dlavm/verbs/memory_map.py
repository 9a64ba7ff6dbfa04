"""The memory map as text: a line a buffer, or a line for all copies of one; activations in minimalloc's CSV form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dlavm.memory import Interval, liveness
from dlavm.memory.csv import to_csv
from dlavm.pack.manifest import TensorInfo
from dlavm.target import TargetSpec
from dlavm.target.layout import ceildiv
from dlavm.task import Program
from dlavm.task.roll import merged_name
from dlavm.verbs.common import table

NOTE = "commands: the first and the last that need an activation, as the program states them: a loop's body counts once"


def activation_csv(program: Program, spec: TargetSpec, addresses: Mapping[str, int]) -> str:
    """`id,lower,upper,size,offset` of every activation that a command touches, in order of declaration. Times count
    commands, a loop's body once; sizes are rounded up to beat rows, offsets count from the lowest activation."""
    found = liveness(program, spec)
    start = min((addresses[i.name] for i in found), default=0)
    unit = (spec.board.holding(start) or spec.space("activations")).beat_row
    intervals = [replace(i, size=ceildiv(i.size, unit) * unit) for i in found]
    return to_csv(intervals, {i.name: addresses[i.name] - start for i in intervals})


def memory_table(tensors: Iterable[TensorInfo], intervals: Iterable[Interval]) -> str:
    """A line a buffer by address, with the commands for which an activation is needed; then the sums of the roles.

    Buffers that lie at equal distances and differ in a number of their names share a line.
    """
    found = list(tensors)
    life = {i.name: f"{i.lower} to {i.upper - 1}" for i in intervals}
    cells = []
    for group in records(found):
        first, count = group[0], len(group)
        every = group[1].address - first.address if count > 1 else ""
        name = merged_name([t.name for t in group])
        cells.append((f"0x{first.address:09x}", first.bytes, count if count > 1 else "", every, first.role,
                      life.get(name, ""), name))  # fmt: skip
    header = ("address", "bytes", "copies", "every", "role", "commands", "name")
    buffers = table(header, cells, right=(1, 2, 3))
    sums = [(role, *_extent([t for t in found if t.role == role])) for role in sorted({t.role for t in found})]
    roles = table(("role", "from", "to", "bytes", "buffers"), sums, right=(3, 4))
    return f"{buffers}\n\n{roles}\n{NOTE}\n"


def records(tensors: Iterable[TensorInfo]) -> list[list[TensorInfo]]:
    """Tensors by address; those of one kind at equal distances, with names that differ in numbers, together."""
    kinds: dict[object, list[TensorInfo]] = {}
    for t in sorted(tensors, key=lambda t: (t.address, t.name)):
        kinds.setdefault((re.sub(r"\d+", "*", t.name), t.role, t.bytes, t.dtype, t.shape), []).append(t)
    groups = [group for kind in kinds.values() for group in ([kind] if _is_even(kind) else [[t] for t in kind])]
    return sorted(groups, key=lambda group: (group[0].address, group[0].name))


def _is_even(group: Sequence[TensorInfo]) -> bool:
    steps = {b.address - a.address for a, b in zip(group, group[1:], strict=False)}
    return len(steps) <= 1 and min(steps, default=0) >= (group[0].bytes if len(group) > 1 else 0)


def _extent(found: Sequence[TensorInfo]) -> tuple[str, str, int, int]:
    start, end = min(t.address for t in found), max(t.address + t.bytes for t in found)
    return f"0x{start:09x}", f"0x{end:09x}", end - start, len(found)
