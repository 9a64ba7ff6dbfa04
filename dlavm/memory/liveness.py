"""When each activation buffer holds something: from its first touch to its last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dlavm.schedule import beside
from dlavm.schedule.order import Beside
from dlavm.support.errors import DlavmError
from dlavm.target.spec import TargetSpec
from dlavm.task import Call, Copy, For, If, Launch, Load, Program, Stmt
from dlavm.task.ir import buffers_in, exprs_of


@dataclass(frozen=True)
class Interval:
    """`size` bytes that are needed at the times lower <= t < upper."""

    name: str
    lower: int
    upper: int
    size: int


@dataclass(frozen=True)
class _Use:
    """Touches of a buffer in a body: from `first` to `last`, or from `outer_first` to `outer_last` if the buffer is
    touched outside of that body too. `defined`: whatever is read there was written there before."""

    first: int
    last: int
    outer_first: int
    outer_last: int
    defined: bool

    def until_end(self, end: int, later: int) -> _Use:
        """Of a statement that ends at `end` in the order of the program, and runs until `later`."""
        return replace(self, last=later if self.last == end else self.last,
                       outer_last=later if self.outer_last == end else self.outer_last)  # fmt: skip

    def joined(self, later: _Use) -> _Use:
        first, last = min(self.outer_first, later.outer_first), max(self.outer_last, later.outer_last)
        return _Use(first, last, first, last, self.defined)


def liveness(
    program: Program, spec: TargetSpec, role: str = "activations", beside: Beside = beside
) -> list[Interval]:
    """An interval for each touched buffer of the role, in order of declaration; time counts launches and copies, and
    what the program loads from a buffer it reads with the next of them. Where engines run beside each other, what one
    of them uses is needed until all have begun that others begin meanwhile (`schedule.beside`).

    A buffer that every turn of a loop writes before it reads it lives within a turn, if nothing outside touches it; any
    other is needed for the whole loop: another turn may read what this one wrote. A write counts for the whole
    buffer, functions where they are called.
    """
    uses, _ = _Scan(program, spec, beside).body(program.body, 0, ())
    wanted = [b for b in program.buffers if b.role == role and b.name in uses]
    return [Interval(b.name, uses[b.name].first, uses[b.name].last, b.bytes) for b in wanted]


class _Scan:
    """Recursive in the nesting of blocks and calls, which is small, and a loop over statements, which are many."""

    def __init__(self, program: Program, spec: TargetSpec, beside: Beside) -> None:
        self._program, self._spec, self._beside = program, spec, beside

    def body(self, stmts: Sequence[Stmt], time: int, calls: tuple[str, ...]) -> tuple[dict[str, _Use], int]:
        """The uses of a body that begins at `time`, and when it ends."""
        each: list[dict[str, _Use]] = []
        ends: list[int] = []
        for stmt in stmts:
            found, time = self._statement(stmt, time, calls)
            each.append(found)
            ends.append(time)
        uses: dict[str, _Use] = {}
        for found, end, last in zip(each, ends, self._beside(stmts, self._program, self._spec), strict=True):
            for name, use in found.items():
                kept = use.until_end(end, ends[last])
                uses[name] = uses[name].joined(kept) if name in uses else kept
        return uses, time

    def _statement(self, stmt: Stmt, time: int, calls: tuple[str, ...]) -> tuple[dict[str, _Use], int]:
        match stmt:
            case For(count=count, body=body):
                found, end = self.body(body, time, calls)
                return {name: _in_loop(use, time, end, count.lo >= 1) for name, use in found.items()}, end
            case If(body=body):
                found, end = self.body(body, time, calls)
                return {name: replace(use, defined=False) for name, use in found.items()}, end
            case Call(name=name):
                if name not in self._program.function or name in calls:
                    raise DlavmError(f"call: expected a function that is not running already, got {name!r}")
                return self.body(self._program.function[name].body, time, (*calls, name))
            case Load():
                return self._accesses(stmt, time), time
            case Launch() | Copy():
                return self._accesses(stmt, time), time + 1
        return {}, time

    def _accesses(self, stmt: Launch | Copy | Load, time: int) -> dict[str, _Use]:
        written = {"dst"}
        if isinstance(stmt, Launch):
            command = self._spec.commands.get(stmt.op)
            written = {f.name for f in command.fields if f.write} if command else set()
        names: dict[bool, set[str]] = {True: set(), False: set()}
        for field, expr in exprs_of(stmt):
            names[field in written] |= buffers_in((expr,), self._program.pointers)
        touched = names[True] | names[False]
        return {name: _Use(time, time + 1, time, time + 1, name not in names[False]) for name in touched}


def _in_loop(use: _Use, start: int, end: int, runs: bool) -> _Use:
    """What a use in a loop's body is for the body around the loop."""
    first, last = (use.first, use.last) if use.defined else (start, end)
    return _Use(first, last, start, end, use.defined and runs)
