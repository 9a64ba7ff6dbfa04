"""In-place reuse: a result that is computed row by row over an operand which ends there takes the operand's bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dlavm.sym import Expr, free_vars, substitute, wrap
from dlavm.target.spec import TargetSpec
from dlavm.task.ir import Launch, Program, Stmt, base_of, exprs_of, map_exprs, walk_body

STRIDES = ("_so", "_si", "_b")


def share_in_place(program: Program, spec: TargetSpec) -> Program:
    """The program with fewer buffers of activations: operands that the instruction set lists under `in_place`, of the
    size of the result, that nothing touches afterwards. Programs with functions are left alone."""
    if program.functions:
        return program
    first, last = _ends(program)
    heirs: dict[str, str] = {}  # a result -> the buffer whose bytes it takes
    for place, stmt in enumerate(program.body):
        begun, ended = first.get(place, []), list(last.get(place, []))
        for result in begun:
            size = program.buffer[result].bytes
            for operand in ended:
                if program.buffer[operand].bytes == size and _in_place(stmt, operand, result, spec):
                    heirs[result] = heirs.get(operand, operand)
                    ended.remove(operand)
                    break
    bases = {base_of(old): base_of(new) for old, new in heirs.items()}
    buffers = tuple(b for b in program.buffers if b.name not in heirs)
    return replace(program, buffers=buffers, body=tuple(_renamed(stmt, bases) for stmt in program.body))


def _ends(program: Program) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """By the place of a statement in the body: activations that it touches first, and those it touches last."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for place, stmt in enumerate(program.body):
        for name in dict.fromkeys(_names(stmt)):
            if program.buffer[name].role == "activations":
                first.setdefault(name, place)
                last[name] = place
    begun: dict[int, list[str]] = {}
    ended: dict[int, list[str]] = {}
    for name, place in first.items():
        begun.setdefault(place, []).append(name)
        if last[name] > place:
            ended.setdefault(last[name], []).append(name)
    return begun, ended


def _names(stmt: Stmt) -> Iterator[str]:
    for _, inner in walk_body((stmt,)):
        for _, expr in exprs_of(inner):
            if not expr.is_const:
                yield from sorted(v.name[1:] for v in free_vars(expr) if v.name.startswith("@"))


def _in_place(stmt: Stmt, operand: str, result: str, spec: TargetSpec) -> bool:
    """Whether every launch that touches one of them computes rows of the result from the same rows of the operand."""
    found = False
    for _, inner in walk_body((stmt,)):
        touched = {operand, result} & set(_names(inner)) if isinstance(inner, Launch) else set()
        if not touched:
            continue
        assert isinstance(inner, Launch)
        if touched == {result} and inner.fields.get("acc_out") is wrap(1):
            continue  # writes nothing yet
        if not any(_same_rows(inner, field, operand, result) for field in spec.commands[inner.op].in_place):
            return False
        found = True
    return found


def _same_rows(launch: Launch, field: str, operand: str, result: str) -> bool:
    """Whether `field` alone uses the operand, dst alone the result, at the same places."""
    fields = launch.fields
    if field not in fields or "dst" not in fields:
        return False
    for name, expr in fields.items():
        bases = set() if expr.is_const else {v.name[1:] for v in free_vars(expr)}
        if (operand in bases) != (name == field) or (result in bases) != (name == "dst"):
            return False
    here, there = substitute(fields["dst"], {base_of(result): base_of(operand)}), fields[field]
    zero = wrap(0)
    return here is there and all(fields.get("dst" + s, zero) is fields.get(field + s, zero) for s in STRIDES)


def _renamed(stmt: Stmt, bases: Mapping[Expr, Expr]) -> Stmt:
    def rename(expr: Expr) -> Expr:
        used = {} if expr.is_const else {v: bases[v] for v in free_vars(expr) if v in bases}
        return substitute(expr, used) if used else expr

    return map_exprs(stmt, rename)
