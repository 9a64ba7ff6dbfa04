"""Register driver (capability `mmio`): launches become register writes, and writes that change nothing go.

A register of the array OP keeps its value, so a command writes only the words in which it differs from the one before.
What is the same in every turn of a loop is written before the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, free_vars, substitute, wrap
from dlavm.target import TargetSpec
from dlavm.task import Await, For, If, Launch, Program, RegWrite, Stmt, map_exprs, variable_of, walk_body

OP, LAUNCH = "OP", "LAUNCH"
Known = dict[int, Expr]  # register of OP -> its value


def generate(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> Program:
    """The program over registers, with addresses in place of buffers. Raises DlavmError for functions."""
    if program.functions:
        raise DlavmError(f"code generation: {program.name}: expected no functions on {spec.name}, got "
                         f"{len(program.functions)}")
    addresses = {b.base: wrap(bases[b.name] // 16) for b in program.buffers}

    def resolve(expr: Expr) -> Expr:
        used = {} if expr.is_const else {v: addresses[v] for v in free_vars(expr) if v in addresses}
        return substitute(expr, used) if used else expr

    body = tuple(_expand([map_exprs(stmt, resolve) for stmt in program.body], spec))
    return replace(program, buffers=(), body=_changing(_hoist(body), {})[0])


def _expand(stmts: list[Stmt] | tuple[Stmt, ...], spec: TargetSpec) -> Iterator[Stmt]:
    for stmt in stmts:
        if isinstance(stmt, For | If):
            yield replace(stmt, body=tuple(_expand(stmt.body, spec)))
        elif isinstance(stmt, Launch):
            yield from _writes(stmt, spec)
        else:
            yield stmt


def _writes(launch: Launch, spec: TargetSpec) -> Iterator[Stmt]:
    """Every payload word of a command, its opcode, and the wait for its end."""
    command = spec.commands[launch.op]
    words = [wrap(0)] * command.payload_words
    for f in command.fields:
        value = launch.fields.get(f.name, wrap(0))
        words[f.word] = words[f.word] + value * (1 << f.lsb)
    for index, word in enumerate(words):
        yield RegWrite(OP, wrap(index), word)
    yield RegWrite(LAUNCH, wrap(0), wrap(command.opcode))
    yield Await()


# -- hoisting ------------------------------------------------------------------------------------------------------


def _hoist(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Words that every write in a loop gives the same value, which the loop does not change, are written before it."""
    out: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, If):
            stmt = replace(stmt, body=_hoist(stmt.body))
        if isinstance(stmt, For):
            inner = _hoist(stmt.body)
            own = {stmt.var, *(var for _, s in walk_body(inner) if (var := variable_of(s)) is not None)}
            same = {i: next(iter(values)) for i, values in _written(inner).items() if len(values) == 1}
            fixed = {i: value for i, value in same.items() if value.is_const or own.isdisjoint(free_vars(value))}
            out += [RegWrite(OP, wrap(index), value) for index, value in fixed.items()]
            stmt = replace(stmt, body=inner)
        out.append(stmt)
    return tuple(out)


def _written(body: tuple[Stmt, ...]) -> dict[int, set[Expr]]:
    """The values that a body writes to each register of OP."""
    found: dict[int, set[Expr]] = {}
    for _, stmt in walk_body(body):
        if isinstance(stmt, RegWrite) and stmt.register == OP:
            found.setdefault(int(stmt.index), set()).add(stmt.value)
    return found


# -- unchanged writes ----------------------------------------------------------------------------------------------


def _changing(stmts: tuple[Stmt, ...], known: Known) -> tuple[tuple[Stmt, ...], Known]:
    """The statements without writes of what the register holds already, and what is known behind them."""
    known, out = dict(known), list[Stmt]()
    for stmt in stmts:
        if isinstance(stmt, RegWrite) and stmt.register == OP:
            index = int(stmt.index)
            if known.get(index) is stmt.value:
                continue
            known[index] = stmt.value
        elif isinstance(stmt, For | If):
            stmt, known = _block(stmt, known)
        out.append(stmt)
    return tuple(out), known


def _block(stmt: For | If, before: Known) -> tuple[Stmt, Known]:
    entry = dict(before)
    if isinstance(stmt, For):  # a later turn finds what an earlier one wrote
        for index, values in _written(stmt.body).items():
            if values != {before.get(index)}:
                entry.pop(index, None)
    body, end = _changing(stmt.body, entry)
    runs = isinstance(stmt, For) and stmt.count.lo >= 1
    own = {var for _, s in walk_body((stmt,)) if (var := variable_of(s)) is not None}
    behind = {index: value for index, value in end.items()
              if (runs or before.get(index) is value) and (value.is_const or own.isdisjoint(free_vars(value)))}
    return replace(stmt, body=body), behind
