"""Walks a program with what is visible and known at each statement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dlavm.sym import Expr
from dlavm.task.facts import Facts
from dlavm.task.ir import For, If, Let, Path, Program, Stmt, body_of, variable_of


@dataclass
class Scope:
    """Before a statement: visible variables by name, facts, and how many loops stand around it.

    The walk keeps changing it; a caller that needs it later copies it.
    """

    visible: dict[str, Expr] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    loops: int = 0

    def inside(self, stmt: Stmt) -> Scope:
        """The scope of the statement's body."""
        if isinstance(stmt, For):
            visible = {**self.visible, stmt.var.name: stmt.var}
            return Scope(visible, self.facts.loop(stmt.var, stmt.count), self.loops + 1)
        facts = self.facts.when(stmt.cond) if isinstance(stmt, If) else self.facts
        return Scope(dict(self.visible), facts, self.loops)

    def behind(self, stmt: Stmt) -> None:
        """Adds what the statement defines for those that follow it."""
        var = variable_of(stmt)
        if var is None or isinstance(stmt, For):
            return
        self.visible[var.name] = var
        if isinstance(stmt, Let):
            self.facts = self.facts.let(var, stmt.value)


def root_scope(program: Program) -> Scope:
    """What every body of the program starts with: the arguments and the assumptions."""
    facts = Facts()
    for condition in program.assumptions:
        facts = facts.when(condition)
    return Scope({arg.name: arg for arg in program.args}, facts)


def walk_scoped(program: Program) -> Iterator[tuple[Path, Stmt, Scope]]:
    """`walk` with the scope before each statement."""
    for root, body in enumerate((program.body, *(f.body for f in program.functions))):
        frames: list[tuple[Iterator[tuple[int, Stmt]], Path, Scope]] = [(enumerate(body), (root,), root_scope(program))]
        while frames:
            rest, prefix, scope = frames[-1]
            step = next(rest, None)
            if step is None:
                frames.pop()
                continue
            i, stmt = step
            yield prefix + (i,), stmt, scope
            if inner := body_of(stmt):
                frames.append((enumerate(inner), prefix + (i,), scope.inside(stmt)))
            scope.behind(stmt)
