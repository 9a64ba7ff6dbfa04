"""When each activation buffer holds something: from its first touch to its last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlavm.support.errors import DlavmError
from dlavm.task import Call, Copy, For, Launch, Program, Stmt, body_of, touched


@dataclass(frozen=True)
class Interval:
    """`size` bytes that are needed at the times lower <= t < upper."""

    name: str
    lower: int
    upper: int
    size: int


def liveness(program: Program, role: str = "activations") -> list[Interval]:
    """An interval for each touched buffer of the role, in order of declaration; time counts launches and copies.

    A touch inside a loop keeps the buffer for the outermost loop around it: another trip may read what this one
    wrote, and which touches write is not known here. Functions count where they are called.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    pending: list[tuple[int, set[str]]] = []  # the outermost loop that is open: where it began, what it touched
    time = 0
    for event, depth in _events(program):
        if event is None:
            if depth == 0:
                _, names = pending.pop()
                last |= dict.fromkeys(names, time)
        elif isinstance(event, For):
            if depth == 0:
                pending.append((time, set()))
        else:
            names = set(touched(event, program))
            start = pending[0][0] if pending else time
            time += 1
            for name in names:
                first.setdefault(name, start)
            last |= dict.fromkeys(names, time)
            if pending:
                pending[0][1].update(names)
    wanted = [b for b in program.buffers if b.role == role and b.name in first]
    return [Interval(b.name, first[b.name], last[b.name], b.bytes) for b in wanted]


def _events(program: Program) -> Iterator[tuple[Stmt | None, int]]:
    """Launches and copies in order, calls followed; a For when it begins, None when it ends; the loops around each."""
    frames: list[tuple[Iterator[Stmt], bool, str]] = [(iter(program.body), False, "")]
    loops = 0
    while frames:
        rest, is_loop, _ = frames[-1]
        stmt = next(rest, None)
        if stmt is None:
            frames.pop()
            loops -= is_loop
            if is_loop:
                yield None, loops
        elif isinstance(stmt, For):
            yield stmt, loops
            loops += 1
            frames.append((iter(stmt.body), True, ""))
        elif isinstance(stmt, Call):
            if stmt.name not in program.function or any(called == stmt.name for _, _, called in frames):
                raise DlavmError(f"call: expected a function that is not running already, got {stmt.name!r}")
            frames.append((iter(program.function[stmt.name].body), False, stmt.name))
        elif isinstance(stmt, Launch | Copy):
            yield stmt, loops
        elif inner := body_of(stmt):
            frames.append((iter(inner), False, ""))
