"""Flat stream (capability `stream` alone): loops written out for the largest arguments, words that the host patches.

A turn that does not happen for some arguments stays in the stream with zero rows, which makes a command do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, free_vars, lt, maximum, minimum, select, substitute, wrap
from dlavm.target import TargetSpec
from dlavm.target.isa import Instr, encode
from dlavm.task import Await, For, If, Launch, Let, Program, Stmt

ROWS = "rows_o"


def generate(
    program: Program, spec: TargetSpec, bases: Mapping[str, int]
) -> tuple[list[int], dict[Expr, tuple[int, ...]], dict[int, str]]:
    """The words of the stream, for each expression over the arguments the offsets of the words that take its value, and
    by word offset the places of commands in the model.

    Raises DlavmError for a statement that has no form in a stream, and for a loop with commands that have no rows.
    """
    flat = _Flat(spec, {b.base: wrap(bases[b.name] // 16) for b in program.buffers})
    flat.body(program.body, {}, wrap(1))
    flat.emit(Launch("END", {}), {}, wrap(1))
    return flat.words, {expr: tuple(offsets) for expr, offsets in flat.patches.items()}, flat.places


class _Flat:
    def __init__(self, spec: TargetSpec, addresses: Mapping[Expr, Expr]) -> None:
        self._spec, self._addresses = spec, addresses
        self.words: list[int] = []
        self.patches: dict[Expr, list[int]] = {}
        self.places: dict[int, str] = {}

    def body(self, stmts: tuple[Stmt, ...], known: dict[Expr, Expr], happens: Expr) -> None:
        """`known`: values of the variables in sight; `happens`: 1 where the body runs."""
        known = dict(known)
        for stmt in stmts:
            match stmt:
                case Launch():
                    self.emit(stmt, known, happens)
                case For(var=var, count=count, body=inner):
                    trips = self._value(count, known)
                    for turn in range(max(0, trips.hi)):
                        self.body(inner, {**known, var: wrap(turn)}, _both(happens, lt(turn, trips)))
                case If(cond=cond, body=inner):
                    self.body(inner, known, _both(happens, self._value(cond, known)))
                case Let(var=var, value=value):
                    known[var] = self._value(value, known)
                case Await():
                    self.emit(Launch("FENCE", {}), known, wrap(1))
                case _:
                    raise DlavmError(f"code generation: {type(stmt).__name__} has no form in the stream of "
                                     f"{self._spec.name}")

    def emit(self, launch: Launch, known: Mapping[Expr, Expr], happens: Expr) -> None:
        if happens.hi == 0:
            return
        command = self._spec.commands[launch.op]
        fields = {name: self._value(value, known) for name, value in launch.fields.items()}
        if happens.lo == 0:
            if ROWS not in command.by_name:
                raise DlavmError(f"code generation: {launch.op} at {launch.where!r}: expected a command with rows "
                                 f"where the arguments decide whether it runs ({self._spec.name})")
            fields = {name: _clamped(value, command.by_name[name].limit) for name, value in fields.items()}
            fields[ROWS] = select(happens, fields[ROWS], 0)
        fixed = {name: value.value for name, value in fields.items() if value.is_const and value.value}
        if launch.where:
            self.places[len(self.words)] = launch.where
        start = len(self.words) + self._spec.header_words
        self.words += encode(self._spec, Instr(launch.op, fixed))
        for name, value in fields.items():
            if not value.is_const:
                self.patches.setdefault(value, []).append(start + command.by_name[name].word)

    def _value(self, expr: Expr, known: Mapping[Expr, Expr]) -> Expr:
        if expr.is_const:
            return expr
        used = {v: places[v] for v in free_vars(expr) for places in (self._addresses, known) if v in places}
        return substitute(expr, used) if used else expr


def _both(a: Expr, b: Expr) -> Expr:
    """1 where both conditions hold. Any number but zero holds."""
    return select(a, select(b, 1, 0), 0)


def _clamped(value: Expr, limit: int) -> Expr:
    """A turn that does not happen can give any number; the field's range is checked all the same."""
    if value.lo < 0:
        value = maximum(value, 0)
    return minimum(value, limit) if value.hi > limit else value
