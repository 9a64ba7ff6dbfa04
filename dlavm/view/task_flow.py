"""What flows between the commands of a task program: for each read of an activation the writes that it may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dlavm.target import TargetSpec
from dlavm.task import Call, Copy, For, If, Launch, Program, Stmt, body_of
from dlavm.task.ir import Path, buffers_in, exprs_of

Writers = dict[str, frozenset[Path]]  # by buffer


@dataclass(frozen=True)
class Access:
    """Names of the buffers of one command, in the order of its fields."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


def access(stmt: Launch | Copy, program: Program, spec: TargetSpec) -> Access:
    """What a command touches; an address that it writes at is not read, unless another field names the buffer too."""
    written = {"dst"}
    if isinstance(stmt, Launch):
        command = spec.commands.get(stmt.op)
        written = {f.name for f in command.fields if f.write} if command else set()
    names: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for name, expr in exprs_of(stmt):
        names[name in written] |= dict.fromkeys(sorted(buffers_in((expr,), program.pointers)))
    return Access(tuple(names[False]), tuple(names[True]))


@dataclass(frozen=True)
class Edge:
    """`target` reads `buffer` as `source` wrote it; `carried`: only in a later turn of a loop."""

    source: Path
    target: Path
    buffer: str
    carried: bool


def edges(program: Program, spec: TargetSpec) -> list[Edge]:
    """The edges between commands. A write counts for the whole buffer; calls are followed."""
    walk = _Walk(program, spec)
    walk.body(program.body, (0,), {}, False, ())
    return [Edge(*key, carried) for key, carried in walk.found.items()]


@dataclass
class _Walk:
    """Recursive in the nesting of blocks, which is small; a loop is gone through twice."""

    program: Program
    spec: TargetSpec
    found: dict[tuple[Path, Path, str], bool] = field(default_factory=dict)

    def body(self, stmts: Iterable[Stmt], at: Path, writers: Writers, again: bool, calls: tuple[str, ...]) -> Writers:
        """The last writers behind a body, from those before it."""
        for i, stmt in enumerate(stmts):
            writers = self._statement(stmt, (*at, i), writers, again, calls)
        return writers

    def _statement(self, stmt: Stmt, at: Path, writers: Writers, again: bool, calls: tuple[str, ...]) -> Writers:
        match stmt:
            case For(count=count):
                once = self.body(body_of(stmt), at, writers, again, calls)
                after = self.body(body_of(stmt), at, once, True, calls)
                return after if count.lo >= 1 else _joined(writers, after)
            case If():
                return _joined(writers, self.body(body_of(stmt), at, writers, again, calls))
            case Call(name=name) if name in self.program.function and name not in calls:
                root = [f.name for f in self.program.functions].index(name) + 1
                return self.body(self.program.function[name].body, (root,), writers, again, (*calls, name))
            case Launch() | Copy():
                return self._command(stmt, at, writers, again)
        return writers

    def _command(self, stmt: Launch | Copy, at: Path, writers: Writers, again: bool) -> Writers:
        touched = access(stmt, self.program, self.spec)
        for name in touched.reads:
            for source in sorted(writers.get(name, ())):
                self.found.setdefault((source, at, name), again)
        return writers | dict.fromkeys(touched.writes, frozenset({at}))


def _joined(a: Mapping[str, frozenset[Path]], b: Mapping[str, frozenset[Path]]) -> Writers:
    return {name: a.get(name, frozenset()) | b.get(name, frozenset()) for name in (*a, *b)}
