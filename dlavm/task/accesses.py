"""What commands read and write, buffer by buffer: the dependencies that order them."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlavm.target.spec import TargetSpec
from dlavm.task.ir import Launch, Load, Program, Stmt, buffers_in, walk_body

ANYWHERE = ""  # of an address without a buffer
ADDRESSES = ("addr", "word")  # kinds of fields

Meets = Mapping[str, frozenset[str]]
"""Of a buffer: those that have bytes in common with it, itself included; none for a buffer that meets only itself."""


@dataclass(frozen=True)
class Access:
    """Names of buffers; ANYWHERE meets all of them."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    def __or__(self, other: Access) -> Access:
        return Access(self.reads | other.reads, self.writes | other.writes)

    def conflicts(self, other: Access, meets: Meets) -> bool:
        """Whether one writes what the other reads or writes."""
        return (_meet(self.writes, other.reads | other.writes, meets) or _meet(other.writes, self.reads, meets))


NOTHING = Access()


def access(stmt: Launch, program: Program, spec: TargetSpec, engine: str | None = None) -> Access:
    """What a command touches; with `engine`, what that engine touches of it: `load` fetches the weights of LINEAR."""
    command = spec.commands.get(stmt.op)
    if command is None:  # `verify` refuses it
        return Access(frozenset([ANYWHERE]), frozenset([ANYWHERE]))
    found: tuple[set[str], set[str]] = (set(), set())
    for name, value in stmt.fields.items():
        field = command.by_name.get(name)
        owner = "load" if name == "wgt" else command.engine
        if field is None or field.kind not in ADDRESSES or (engine is not None and owner != engine):
            continue
        names = buffers_in((value,), program.pointers)
        if not names and not (value.is_const and value.value == 0):
            names = frozenset([ANYWHERE])
        found[field.write].update(names)
    return Access(frozenset(found[False]), frozenset(found[True]))


def access_of_all(stmts: Iterable[Stmt], program: Program, spec: TargetSpec) -> Access:
    """What the commands among the statements touch together, those in their bodies included."""
    total = NOTHING
    for _, stmt in walk_body(tuple(stmts)):
        if isinstance(stmt, Launch):
            total |= access(stmt, program, spec)
        elif isinstance(stmt, Load):
            total |= Access(buffers_in((stmt.base,), program.pointers))
    return total


def overlaps(program: Program, bases: Mapping[str, int]) -> Meets:
    """Of the activations that lie at `bases`. All other buffers have bytes of their own."""
    placed = [(bases[b.name], bases[b.name] + b.bytes, b.name) for b in program.buffers if b.role == "activations"]
    return {name: frozenset(other for low, high, other in placed if low < end and start < high)
            for start, end, name in placed}  # fmt: skip


def _meet(some: frozenset[str], others: frozenset[str], meets: Meets) -> bool:
    if not some or not others:
        return False
    if ANYWHERE in some or ANYWHERE in others:
        return True
    return any(name in others or not others.isdisjoint(meets.get(name, ())) for name in some)
