"""Functions of one number, told apart by their values: whatever operators an exporter writes an activation with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.flow import Atom, Part, Rows
from dlavm.frontend.onnx_import.ir import Array
from dlavm.graph.activations import ACTIVATIONS, softcap

ELEMENTWISE = ("unary", "power", "mul", "add")
DEEPEST = 40  # operations of one function
GRID = np.concatenate([np.linspace(-12, 12, 2401), np.geomspace(1e-4, 1, 50), -np.geomspace(1e-4, 1, 50)])
CLOSE = 2e-5  # of the largest value


@dataclass(frozen=True)
class Curve:
    """outer * name(inner * x)."""

    name: str
    inner: float
    outer: float


def unit(rows: Rows, atom: Atom) -> Rows:
    """The atom itself, as a value in the place of `rows`."""
    columns = np.arange(atom.columns)
    return replace(rows, parts=(Part(atom, columns),), bias=None, gain=1.0, columns=atom.columns, first=atom.first,
                   count=atom.rows, addends=())  # fmt: skip


def scalar_bias(rows: Rows) -> float | None:
    """The one number that is added to all elements, None where they differ."""
    if rows.bias is None:
        return 0.0
    return float(rows.bias.reshape(-1)[0]) if rows.bias.size and (rows.bias == rows.bias.reshape(-1)[0]).all() else None


def simple(rows: Rows) -> Atom | None:
    """The atom of which the rows are gain * (atom + number)."""
    part = rows.parts[0] if len(rows.parts) == 1 else None
    if part is None or part.coefficient is not None or scalar_bias(rows) is None:
        return None
    if (part.atom.first, part.atom.rows, part.atom.columns) != (rows.first, rows.count, rows.columns):
        return None
    return part.atom if np.array_equal(part.columns, np.arange(rows.columns)) else None


class Curves:
    """Looks for the value that elementwise operations start from, and for what they do to it."""

    def __init__(self) -> None:
        self._leaves: dict[int, Rows] = {}

    def leaf(self, rows: Rows, depth: int = 0) -> Rows:
        """The value of which `rows` is a function element by element: the furthest one."""
        atom = simple(rows)
        if atom is None:
            return replace(rows, gain=1.0)
        if atom.index not in self._leaves:
            own = unit(rows, atom)
            if atom.kind in ELEMENTWISE and depth < DEEPEST:
                found = {x.key: x for x in (self.leaf(o, depth + 1) for o in atom.operands)}
                own = next(iter(found.values())) if len(found) == 1 else own
            self._leaves[atom.index] = own
        return self._leaves[atom.index]

    def curve(self, rows: Rows) -> tuple[Curve, Rows] | None:
        """The known function that `rows` is, and of what; None where it is none."""
        atom, leaf = simple(rows), self.leaf(rows)
        if atom is None or atom.kind not in ELEMENTWISE or leaf.key == unit(rows, atom).key:
            return None
        inner: set[float] = {1.0}
        with np.errstate(all="ignore"):
            values = self._values(rows, leaf.key, inner, {})
        found = _known(values, sorted(inner)) if np.isfinite(values).all() else None
        return None if found is None else (found, leaf)

    def _values(self, rows: Rows, key: Any, inner: set[float], made: dict[int, Array]) -> Array:
        """On GRID, of the value `key`."""
        if replace(rows, gain=1.0).key == key:
            inner.add(rows.gain)
            return rows.gain * GRID
        atom = simple(rows)
        assert atom is not None
        if atom.index not in made:
            inner.update((atom.operands[0].gain, float(atom.attrs.get("inner", 1.0))))
            operands = [self._values(o, key, inner, made) for o in atom.operands]
            made[atom.index] = _applied(atom, operands) if unit(rows, atom).key != key else GRID
        return rows.gain * (made[atom.index] + (scalar_bias(rows) or 0.0))


def _applied(atom: Atom, operands: list[Array]) -> Array:
    if atom.kind == "unary":
        return np.asarray(atom.attrs["function"](operands[0]), np.float64)
    if atom.kind == "power":
        return operands[0] ** atom.attrs["exponent"]
    return operands[0] * operands[1] if atom.kind == "mul" else operands[0] + operands[1]


def _known(values: Array, inner: list[float]) -> Curve | None:
    """The activation with these values on GRID."""
    largest = int(np.argmax(np.abs(values)))
    for scale in inner:
        for name, function in ACTIVATIONS.items():
            known = np.asarray(function((scale * GRID).astype(np.float32)), np.float64)
            if known[largest] == 0:
                continue
            outer = values[largest] / known[largest]
            if np.abs(values - outer * known).max() <= CLOSE * max(1.0, abs(values[largest])):
                return _named(name, scale, float(outer))
    return None


def _named(name: str, inner: float, outer: float) -> Curve:
    outer = 1.0 if abs(outer - 1) < 1e-6 else outer
    if name == "tanh" and inner != 1.0 and abs(inner * outer - 1) < 1e-5:
        return Curve(softcap(_short(1 / inner)), 1.0, 1.0)
    return Curve(name, inner, outer)


def _short(value: float) -> float:
    """With six digits, where it is that number but for rounding."""
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= 1e-6 * abs(value) else value
