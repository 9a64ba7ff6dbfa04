"""Removes what bounds decide: conditions that always or never hold, loops of no or one trip, constant definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dlavm.sym import Const, Expr, Var, free_vars, le, substitute
from dlavm.task.facts import Facts
from dlavm.task.ir import (
    Copy,
    For,
    Function,
    If,
    Launch,
    Let,
    Load,
    Program,
    RegRead,
    RegWrite,
    Stmt,
    variable_of,
    walk,
)
from dlavm.task.scope import root_scope


def simplify(program: Program) -> Program:
    """A program with the same trace for all legal arguments. The program must verify."""
    names = _Names(program)
    body = _simplify_body(program.body, program, names)
    functions = tuple(Function(f.name, _simplify_body(f.body, program, names)) for f in program.functions)
    return replace(program, body=body, functions=functions)


class _Names:
    """Gives a new name to a variable that an inlined block brings into a scope where its name is used twice."""

    def __init__(self, program: Program) -> None:
        defined = [v.name for _, stmt in walk(program) if (v := variable_of(stmt)) is not None]
        self._count = Counter(defined)
        self._taken = {*defined, *(arg.name for arg in program.args)}

    def fresh(self, var: Expr) -> Expr:
        if self._count[var.name] < 2:
            return var
        number = 1
        while f"{var.name}_{number}" in self._taken:
            number += 1
        self._taken.add(f"{var.name}_{number}")
        return Var(f"{var.name}_{number}", var.lo, var.hi)


@dataclass
class _Frame:
    """A body being rewritten: what is left of it, what came out, replacements, facts; `head` is its new header.

    The statements of an inlined block go to the `out` of the body around it.
    """

    rest: Iterator[Stmt]
    facts: Facts
    head: For | If | None = None
    inlined: bool = False
    out: list[Stmt] = field(default_factory=list)
    known: dict[Expr, Expr] = field(default_factory=dict)


def _simplify_body(body: tuple[Stmt, ...], program: Program, names: _Names) -> tuple[Stmt, ...]:
    frames = [_Frame(iter(body), root_scope(program).facts)]
    while True:
        frame = frames[-1]
        stmt = next(frame.rest, None)
        if stmt is not None:
            inner = _step(stmt, frame, names)
            if inner is not None:
                frames.append(inner)
            continue
        frames.pop()
        if not frames:
            return tuple(frame.out)
        if frame.head is not None and frame.out:
            frames[-1].out.append(replace(frame.head, body=tuple(frame.out)))
        elif frame.inlined:
            frames[-1].facts = frame.facts


def _step(stmt: Stmt, frame: _Frame, names: _Names) -> _Frame | None:
    """Rewrites one statement into `frame.out`; returns the frame of its body if it has one."""
    match stmt:
        case For(var=var, count=count):
            return _loop(frame, stmt, var, _apply(count, frame))
        case If(cond=cond):
            return _condition(frame, stmt.body, _apply(cond, frame), dict(frame.known))
        case Let(var=var, value=value):
            _define(frame, var, _apply(value, frame), names)
        case RegRead(var=var, register=register, index=index):
            frame.out.append(RegRead(_renamed(frame, var, names), register, _apply(index, frame)))
        case Load(var=var, base=base, index=index):
            frame.out.append(Load(_renamed(frame, var, names), _apply(base, frame), _apply(index, frame)))
        case Launch(op=op, fields=fields, where=where):
            frame.out.append(Launch(op, {name: _apply(v, frame) for name, v in fields.items()}, where))
        case RegWrite(register=register, index=index, value=value):
            frame.out.append(RegWrite(register, _apply(index, frame), _apply(value, frame)))
        case Copy(dst=dst, src=src, bytes=size):
            frame.out.append(Copy(_apply(dst, frame), _apply(src, frame), _apply(size, frame)))
        case _:
            frame.out.append(stmt)
    return None


def _loop(frame: _Frame, stmt: For, var: Expr, count: Expr) -> _Frame | None:
    lo, hi = frame.facts.bounds(count)
    if hi <= 0 or lo > hi:
        return None
    count = Const(lo) if lo == hi else count
    known = {key: v for key, v in frame.known.items() if key is not var}
    if hi == 1:
        return _condition(frame, stmt.body, Const(1) if lo == 1 else le(1, count), {**known, var: Const(0)})
    last = min(var.hi, hi - 1, count.hi - 1)
    # the old default of a loop over a smaller count would otherwise widen every expression of its body
    tight = var if last == var.hi else Var(var.name, 0, last)
    if tight is not var:
        known[var] = tight
    return _Frame(iter(stmt.body), frame.facts.loop(tight, count), For(tight, count, ()), known=known)


def _condition(frame: _Frame, body: tuple[Stmt, ...], cond: Expr, known: dict[Expr, Expr]) -> _Frame | None:
    if frame.facts.never(cond):
        return None
    if frame.facts.always(cond):
        return _Frame(iter(body), frame.facts, None, True, frame.out, known)
    return _Frame(iter(body), frame.facts.when(cond), If(cond, ()), known=known)


def _define(frame: _Frame, var: Expr, value: Expr, names: _Names) -> None:
    lo, hi = frame.facts.bounds(value)
    value = Const(lo) if lo == hi else value
    inside = var.lo <= value.lo and value.hi <= var.hi  # folding may have used the bounds of var
    if not value.args and inside:
        frame.known[var] = value
        return
    var = _renamed(frame, var, names)
    frame.out.append(Let(var, value))
    frame.facts = frame.facts.let(var, value)


def _renamed(frame: _Frame, var: Expr, names: _Names) -> Expr:
    frame.known.pop(var, None)
    if not frame.inlined:
        return var
    fresh = names.fresh(var)
    if fresh is not var:
        frame.known[var] = fresh
    return fresh


def _apply(expr: Expr, frame: _Frame) -> Expr:
    if expr.is_const or not frame.known:
        return expr
    used = {var: frame.known[var] for var in free_vars(expr) if var in frame.known}
    return substitute(expr, used) if used else expr

