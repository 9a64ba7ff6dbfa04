"""Where the loops of a program stand on the axis of its commands, which has every body once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlavm.task import Call, Copy, For, If, Launch, Program, Stmt


@dataclass(frozen=True)
class Loop:
    """Commands `first` up to `end`, not included, that take `turns` turns; `depth`: loops around it."""

    name: str
    turns: str
    first: int
    end: int
    depth: int


def loops(program: Program) -> list[Loop]:
    """The loops that have any command, in the order of their beginnings; calls are followed."""
    found: list[Loop] = []
    _scan(program, program.body, 0, 0, found)
    return sorted(found, key=lambda loop: (loop.first, loop.depth))


def _scan(program: Program, stmts: Iterable[Stmt], time: int, depth: int, found: list[Loop]) -> int:
    """Adds the loops of a body that begins at `time`; returns when it ends. Recursive in the nesting of blocks."""
    for stmt in stmts:
        match stmt:
            case For(var=var, count=count, body=body):
                start, time = time, _scan(program, body, time, depth + 1, found)
                if time > start:
                    found.append(Loop(var.name, _turns(count.lo, count.hi), start, time, depth))
            case If(body=body):
                time = _scan(program, body, time, depth, found)
            case Call(name=name):
                time = _scan(program, program.function[name].body, time, depth, found)
            case Launch() | Copy():
                time += 1
    return time


def _turns(lo: int, hi: int) -> str:
    return f"{hi:,} turn{'s' * (hi != 1)}" if lo == hi else f"up to {hi:,} turns"


def outermost(found: Iterable[Loop]) -> str:
    """The loops around everything else as a text, equal ones once: `layer (8 turns)`."""
    return ", ".join(dict.fromkeys(f"{loop.name} ({loop.turns})" for loop in found if loop.depth == 0))
