"""A program for some of its arguments only: what they decide disappears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dlavm.sym import Const, Expr, Var, substitute
from dlavm.task.ir import Program, Stmt, map_exprs


def restrict(program: Program, bounds: Mapping[str, tuple[int, int]]) -> Program:
    """The program where each argument of `bounds` lies in its inclusive bounds, which are within the present ones.

    An argument that can have one value is none any more.
    """
    chosen = {arg: _narrowed(arg, *bounds[arg.name]) for arg in program.args if arg.name in bounds}

    def narrowed(expr: Expr) -> Expr:
        return expr if expr.is_const else substitute(expr, chosen)

    def body(stmts: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(map_exprs(stmt, narrowed) for stmt in stmts)

    return replace(
        program,
        args=tuple(arg for old in program.args if not (arg := chosen.get(old, old)).is_const),
        body=body(program.body),
        functions=tuple(replace(f, body=body(f.body)) for f in program.functions),
        assumptions=tuple(a for old in program.assumptions if not (a := narrowed(old)).is_const),
    )


def _narrowed(arg: Expr, low: int, high: int) -> Expr:
    return Const(low) if low == high else Var(arg.name, low, high)
