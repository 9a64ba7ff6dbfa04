"""Rolls what repeats: equal layers become one loop over strided buffers, so that a program does not grow with depth.

A stretch of statements repeats where a whole number of them, the turn, follows itself with nothing changed but
buffers. In a loop over the turns, a buffer of the body stands for a column: what the turns use in its place.

* The same buffer in every turn stays.
* Constants and caches, one for each turn, become copies at equal distances: base + layer * stride.
* Activations that live within a turn share one buffer.
* What a turn hands to the next one (its last result, the next turn's input) is one buffer too, if the input is dead
  when the result is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dlavm.sym import Expr, Symbol, Var, free_vars, substitute, wrap
from dlavm.target.layout import ceildiv
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task.ir import (
    Buffer,
    For,
    If,
    Launch,
    Load,
    Program,
    Stmt,
    base_of,
    exprs_of,
    map_exprs,
    variable_of,
    walk_body,
)

PERSISTENT = ("weights", "tables", "kv")
CANDIDATES = 24  # periods that are tried
HOPS = 4  # occurrences of one statement in a turn, up to which its distances are looked at
LEAST_SAVED = 8  # statements, below which a loop is not worth it

Columns = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Rolled:
    """A program with loops for its layers. `copies`: for each buffer that has copies, the buffers of the unrolled
    program that they are, in order."""

    program: Program
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def roll(program: Program, align: Mapping[str, int]) -> Rolled:
    """The same commands in the same order as `program`'s, in loops where layers repeat.

    `align`: bytes that buffers of a role are aligned to (their beat row). Programs with functions are left alone.
    """
    copies: dict[str, tuple[str, ...]] = {}
    while not program.functions:
        found = next(_stretches(program, copies), None)
        if found is None:
            break
        program, made = _Rewriter(program, found, align).run()
        copies |= made
    return Rolled(program, copies)


class _Run(NamedTuple):
    """Statements from `start` on that equal those `length` behind them: `saved` of them."""

    start: int
    length: int
    saved: int


@dataclass(frozen=True)
class _Stretch:
    """Statements start .. start + turns * length of the body; `carried`: column of an input -> column of the result
    that becomes it in the next turn."""

    start: int
    length: int
    turns: int
    columns: Columns
    carried: Mapping[int, int]

    @property
    def end(self) -> int:
        return self.start + self.turns * self.length

    def turn_of(self, place: int) -> int:
        """Turn of a statement; -1 before the stretch, `turns` behind it."""
        return min(max((place - self.start) // self.length, -1), self.turns)


# -- finding -------------------------------------------------------------------------------------------------------


def _stretches(program: Program, copies: Mapping[str, object]) -> Iterator[_Stretch]:
    """Stretches that can be rolled, those that save most first."""
    shapes = [_shape(stmt, program) for stmt in program.body]
    numbers: dict[object, int] = {}
    ids = [numbers.setdefault(shape, len(numbers)) for shape, _ in shapes]
    slots = [buffers for _, buffers in shapes]
    users: dict[str, list[int]] = {}
    for place, stmt in enumerate(slots):
        for name in stmt:
            users.setdefault(name, []).append(place)
    runs = sorted((run for p in _periods(ids) for run in _runs(ids, p)), key=lambda r: (-r.saved, r.length, r.start))
    for run in runs:
        for phase in range(min(run.length, run.saved - run.length + 1)):
            start, turns = run.start + phase, (run.saved + run.length - phase) // run.length
            columns = _columns(slots[start : start + turns * run.length], run.length, turns)
            if columns is None or any(name in copies for column in columns for name in column):
                continue
            stretch = _Stretch(start, run.length, turns, columns, _carried(columns))
            if _is_sound(stretch, program, users):
                yield stretch


def _shape(stmt: Stmt, program: Program) -> tuple[object, tuple[str, ...]]:
    """What a statement is but for the names of its buffers, and those names in the order of their occurrence."""
    names: dict[str, int] = {}

    def nameless(expr: Expr) -> Expr:
        bases = [] if expr.is_const else sorted((v for v in free_vars(expr) if v.name.startswith("@")), key=str)
        numbered = {v: Symbol(f"@{names.setdefault(v.name[1:], len(names))}", v.lo, v.hi) for v in bases}
        return substitute(expr, numbered) if numbered else expr

    parts = []
    for path, inner in walk_body((stmt,)):
        fixed = None if isinstance(inner, Launch | For | If | Load) else inner
        op = inner.op if isinstance(inner, Launch) else type(inner).__name__
        fields = tuple((name, nameless(expr)) for name, expr in exprs_of(inner))
        parts.append((path, op, variable_of(inner), fixed, fields))
    kinds = tuple((b.role, b.bytes, b.dtype) for b in (program.buffer[name] for name in names))
    return (tuple(parts), kinds), tuple(names)


def _periods(ids: Sequence[int]) -> list[int]:
    """Distances at which statements come back, the most frequent first."""
    places: dict[int, list[int]] = {}
    for place, number in enumerate(ids):
        places.setdefault(number, []).append(place)
    distances: Counter[int] = Counter()
    for where in places.values():
        for hop in range(1, HOPS + 1):
            distances.update(b - a for a, b in zip(where, where[hop:], strict=False))
    return [distance for distance, _ in sorted(distances.items(), key=lambda d: (-d[1], d[0]))[:CANDIDATES]]


def _runs(ids: Sequence[int], length: int) -> Iterator[_Run]:
    """The longest runs of at least two turns."""
    start = 0
    for place in range(len(ids) - length + 1):
        if place < len(ids) - length and ids[place] == ids[place + length]:
            continue
        if place - start >= max(length, LEAST_SAVED):
            yield _Run(start, length, place - start)
        start = place + 1


def _columns(slots: Sequence[tuple[str, ...]], length: int, turns: int) -> Columns | None:
    """What the turns use at each place of a turn; None where they do not use their buffers alike."""
    pattern: list[int] | None = None
    rows = []
    for turn in range(turns):
        names: dict[str, int] = {}
        used = [name for stmt in slots[turn * length : (turn + 1) * length] for name in stmt]
        numbered = [names.setdefault(name, len(names)) for name in used]
        pattern = pattern or numbered
        if numbered != pattern:
            return None
        rows.append(tuple(names))
    return tuple(zip(*rows, strict=True))


def _carried(columns: Columns) -> dict[int, int]:
    """Inputs that are the result of the turn before."""
    results = {column[:-1]: place for place, column in enumerate(columns) if len(set(column)) == len(column)}
    found = {place: results[column[1:]] for place, column in enumerate(columns) if column[1:] in results}
    return {place: result for place, result in found.items() if place != result}


# -- what may share a buffer ---------------------------------------------------------------------------------------


def _is_sound(stretch: _Stretch, program: Program, users: Mapping[str, list[int]]) -> bool:
    results = set(stretch.carried.values())
    if len(results) < len(stretch.carried) or results & set(stretch.carried):
        return False
    varying = [c for c in stretch.columns if len(set(c)) > 1]
    names = Counter(name for place, column in enumerate(stretch.columns) for name in set(column)
                    if place not in stretch.carried)
    if any(names[name] > 1 for column in varying for name in column if names[name]):
        return False
    return all(_column_is_sound(stretch, place, program, users) for place in range(len(stretch.columns)))


def _column_is_sound(stretch: _Stretch, place: int, program: Program, users: Mapping[str, list[int]]) -> bool:
    column = stretch.columns[place]
    if len(set(column)) == 1:
        return True
    role = program.buffer[column[0]].role
    if place in stretch.carried:
        return role == "activations" and _input_is_sound(stretch, place, users)
    if len(set(column)) < len(column) or role not in (*PERSISTENT, "activations"):
        return False
    for turn, name in enumerate(column):
        last = turn == stretch.turns - 1
        allowed = {turn}
        if role == "activations":
            allowed |= {turn + 1} if last or place in stretch.carried.values() else set()
        if not {stretch.turn_of(user) for user in users[name]} <= allowed:
            return False
    return True


def _input_is_sound(stretch: _Stretch, place: int, users: Mapping[str, list[int]]) -> bool:
    """The first input comes from before and ends in the first turn; inputs are dead when the result is begun."""
    first, result = stretch.columns[place][0], stretch.columns[stretch.carried[place]][0]
    if not {stretch.turn_of(user) for user in users[first]} <= {-1, 0}:
        return False
    return users[first][-1] < users[result][0]


# -- rewriting -----------------------------------------------------------------------------------------------------


class _Rewriter:
    """Replaces one stretch by its loop."""

    def __init__(self, program: Program, stretch: _Stretch, align: Mapping[str, int]) -> None:
        self._program, self._stretch, self._align = program, stretch, align
        self._taken = set(program.buffer)
        self._layer = Var(self._fresh_variable(), 0, stretch.turns - 1)
        self._renamed: dict[str, str] = {}  # everywhere
        self._buffers: dict[str, Buffer] = {}  # by the name that each takes over
        self._copies: dict[str, tuple[str, ...]] = {}
        self._strides = self._record_strides()

    def run(self) -> tuple[Program, dict[str, tuple[str, ...]]]:
        for place, column in enumerate(self._stretch.columns):
            if len(set(column)) > 1 and place not in self._stretch.carried:
                self._merge(place, column)
        s, body = self._stretch, self._program.body
        turn = tuple(self._body_statement(at) for at in range(s.start, s.start + s.length))
        rolled = (
            *(self._rename(stmt) for stmt in body[: s.start]),
            For(self._layer, wrap(s.turns), turn),
            *(self._rename(stmt) for stmt in body[s.end :]),
        )
        return replace(self._program, buffers=tuple(self._new_buffers()), body=rolled), self._copies

    def _merge(self, place: int, column: tuple[str, ...]) -> None:
        buffer = self._program.buffer[column[0]]
        name = self._fresh_name(merged_name(column))
        if buffer.role in PERSISTENT:
            self._copies[name] = column
            buffer = replace(buffer, copies=len(column), stride=self._strides[buffer.role])
        inputs = [self._stretch.columns[i] for i, result in self._stretch.carried.items() if result == place]
        self._renamed |= dict.fromkeys([n for names in (column, *inputs) for n in names], name)
        self._buffers |= {old: replace(buffer, name=name) for old in (inputs or [column])[0][:1]}

    def _new_buffers(self) -> Iterator[Buffer]:
        """In the order of the old ones."""
        for buffer in self._program.buffers:
            if buffer.name in self._buffers:
                yield self._buffers[buffer.name]
            elif buffer.name not in self._renamed:
                yield buffer

    def _record_strides(self) -> dict[str, int]:
        """Bytes from the constants (or caches) of one turn to those of the next, by role."""
        strides: Counter[str] = Counter()
        for column in self._stretch.columns:
            buffer = self._program.buffer[column[0]]
            if len(set(column)) > 1 and buffer.role in PERSISTENT:
                align = self._align[buffer.role]
                strides[buffer.role] += ceildiv(buffer.bytes, align) * align
        return dict(strides)

    def _rename(self, stmt: Stmt) -> Stmt:
        return map_exprs(stmt, self._substituting({}))

    def _body_statement(self, at: int) -> Stmt:
        """A statement of the first turn, for all turns."""
        steps = {name: self._layer * (self._strides[self._program.buffer[column[0]].role] // ADDRESS_UNIT)
                 for name, column in self._copies.items()}  # fmt: skip
        stmts = [self._program.body[at + turn * self._stretch.length] for turn in (0, 1)]
        return _merged_places(map_exprs(stmts[0], self._substituting(steps)), stmts[1])

    def _substituting(self, steps: Mapping[str, Expr]) -> Callable[[Expr], Expr]:
        def substituted(expr: Expr) -> Expr:
            bases = [] if expr.is_const else [v for v in free_vars(expr) if v.name[1:] in self._renamed]
            new = {v: self._renamed[v.name[1:]] for v in bases if v.name.startswith("@")}
            return substitute(expr, {v: base_of(n) + steps.get(n, 0) for v, n in new.items()}) if new else expr

        return substituted

    def _fresh_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def _fresh_variable(self) -> str:
        taken = {var.name for _, stmt in walk_body(self._program.body) if (var := variable_of(stmt)) is not None}
        taken |= {arg.name for arg in self._program.args}
        return next(name for name in ("layer", *(f"layer_{n}" for n in range(2, 99))) if name not in taken)


def merged_name(names: Sequence[str], mark: str = "N") -> str:
    """The first name, with `mark` for the numbers in which the second differs from it."""
    parts = [re.split(r"(\d+)", name) for name in names[:2]]
    if len(parts) < 2 or len(parts[0]) != len(parts[1]) or parts[0][::2] != parts[1][::2]:
        return names[0]
    return "".join(a if a == b else mark for a, b in zip(*parts, strict=True))


def _merged_places(stmt: Stmt, other: Stmt) -> Stmt:
    """`stmt` with places in the model that stand for those of `other` too."""
    if isinstance(stmt, Launch) and isinstance(other, Launch):
        return Launch(stmt.op, stmt.fields, merged_name((stmt.where, other.where), "*"))
    if isinstance(stmt, For | If) and isinstance(other, For | If):
        return replace(stmt, body=tuple(_merged_places(a, b) for a, b in zip(stmt.body, other.body, strict=True)))
    return stmt
