"""From atoms to steps of a decoder: patterns over what the trace found, each step an op of the graph or a few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.curves import Curves, scalar_bias, simple, unit
from dlavm.frontend.onnx_import.flow import MISFITS, Atom, NotRecognised, Part, Rows, reason, select
from dlavm.frontend.onnx_import.heads import attention_of, rotation_of
from dlavm.frontend.onnx_import.ir import Array
from dlavm.frontend.onnx_import.trace import Trace

UNDER_ROOT = (-0.5,)


@dataclass(frozen=True, eq=False)
class Step:
    """What makes a value of others. `op` is one of the makers in `build.py`."""

    op: str
    rows: Rows
    operands: tuple[Rows, ...]
    where: str
    attrs: Mapping[str, Any] = field(default_factory=dict)


class Planner:
    """Steps of every value that the logits need, by key."""

    def __init__(self, trace: Trace, presents: Mapping[int, tuple[Atom, Array]]) -> None:
        """`presents`: for each cached atom the atom whose rows are added to it, and the column of that for each of
        its own."""
        self.trace, self.presents = trace, presents
        self.curves = Curves()
        self.steps: dict[Any, Step] = {}
        self.problems: list[tuple[str, str, str]] = []

    def plan(self, root: Rows) -> None:
        """Adds to `steps`, or to `problems` what fits no pattern."""
        pending = [root]
        while pending:
            rows = pending.pop()
            if rows.key in self.steps:
                continue
            atoms = [p.atom for p in rows.parts]
            try:
                step = self._step(rows)
            except (NotRecognised, *MISFITS) as error:
                where = atoms[0].where if atoms else "logits"
                self._problem(where, reason(error))
                step = Step("unknown", rows, tuple(o for a in atoms for o in a.operands), where)
            self.steps[rows.key] = step
            pending += step.operands

    def _problem(self, where: str, why: str) -> None:
        kinds = {node.where: node.kind for node in self.trace.graph.nodes}
        problem = (where, kinds.get(where, "value"), why)
        if problem not in self.problems:
            self.problems.append(problem)

    def _step(self, rows: Rows) -> Step:
        for pattern in PATTERNS:
            if step := pattern(self, rows):
                return step
        raise NotRecognised("fits no pattern of a decoder")


def _at_last(planner: Planner, rows: Rows) -> Step | None:
    """One row of a value of all tokens: the last."""
    part = rows.parts[0] if rows.parts else None
    if part is None or rows.count == part.atom.rows or any(p.atom is not part.atom for p in rows.parts):
        return None
    probe = planner.trace.probe
    if rows.count != 1 or rows.first != probe.first + probe.tokens - 1:
        raise NotRecognised("expected all tokens, or the last one")
    whole = replace(rows, first=part.atom.first, count=part.atom.rows)
    return Step("last", rows, (whole,), part.atom.where)


def _activation(planner: Planner, rows: Rows) -> Step | None:
    found = planner.curves.curve(rows)
    if found is None:
        return None
    curve, leaf = found
    return Step("act", rows, (leaf,), rows.parts[0].atom.where,
                {"fn": curve.name, "inner": curve.inner, "outer": curve.outer})  # fmt: skip


def _norm(planner: Planner, rows: Rows) -> Step | None:
    """A norm with its scale and bias: of an operator, or x * (mean(x^2) + eps)^-0.5 in its parts."""
    part = _only_part(rows)
    if part is None or (rows.bias is not None and rows.bias.ndim > 1):
        return None
    found = _norm_of(part.atom)
    if found is None:
        return None
    operand, attrs = found
    if not np.array_equal(part.columns, np.arange(part.atom.columns)):
        return None
    gamma = _times(part.coefficient, rows.gain)
    if isinstance(gamma, np.ndarray) and gamma.ndim > 1:
        return None
    beta = None if rows.bias is None else _times(rows.bias, rows.gain)
    return Step("norm", rows, (operand,), part.atom.where, {**attrs, "gamma": gamma, "beta": beta})


def _times(vector: Array | None, gain: float) -> Any:
    return (None if gain == 1.0 else gain) if vector is None else vector * gain


def _only_part(rows: Rows) -> Part | None:
    return rows.parts[0] if len(rows.parts) == 1 else None


def _norm_of(atom: Atom) -> tuple[Rows, dict[str, Any]] | None:
    """What an atom normalises, and how."""
    if atom.kind == "norm":
        return atom.operands[0], {name: atom.attrs[name] for name in ("centred", "eps", "group")}
    if atom.kind != "mul":
        return None
    for x, inverse in (atom.operands, atom.operands[::-1]):
        if found := _rms(x, inverse):
            eps, group = found
            centre = _centred(x, group)
            return centre or x, {"centred": centre is not None, "eps": eps, "group": group}
    return None


def _rms(x: Rows, inverse: Rows) -> tuple[float, int] | None:
    """eps and group, where `inverse` is (mean(x^2) + eps)^-0.5 of groups of x."""
    root = _spread(inverse)
    if root is None or root.kind != "power" or root.attrs["exponent"] not in UNDER_ROOT or inverse.gain != 1.0:
        return None
    mean = simple(root.operands[0])
    eps, gain = scalar_bias(root.operands[0]), root.operands[0].gain
    if mean is None or mean.kind != "mean" or eps is None or abs(gain - 1) > 1e-6:
        return None
    square = simple(mean.operands[0])
    if square is None or square.kind != "power" or square.attrs["exponent"] != 2.0 or mean.operands[0].gain != 1.0:
        return None
    group = mean.attrs["group"]
    groups = np.repeat(np.arange(mean.columns), group)
    same = square.operands[0].key == x.key and scalar_bias(mean.operands[0]) == 0
    return (eps * gain, group) if same and np.array_equal(inverse.parts[0].columns, groups) else None


def _spread(rows: Rows) -> Atom | None:
    """The atom of rows that repeat its columns, unchanged."""
    part = _only_part(rows)
    return part.atom if part is not None and part.coefficient is None and rows.bias is None else None


def _centred(rows: Rows, group: int) -> Rows | None:
    """x, where the rows are x - mean(x) of groups."""
    atom = simple(rows)
    if atom is None or atom.kind != "add" or rows.gain != 1.0 or scalar_bias(rows) != 0:
        return None
    for x, mean in (atom.operands, atom.operands[::-1]):
        part = _only_part(mean)
        if part is None or part.atom.kind != "mean" or mean.bias is not None or part.atom.attrs["group"] != group:
            continue
        factor = mean.gain if part.coefficient is None else part.coefficient * mean.gain
        groups = np.repeat(np.arange(part.atom.columns), group)
        if np.all(factor == -1) and part.atom.operands[0].key == x.key and np.array_equal(part.columns, groups):
            return x
    return None


def _linear(planner: Planner, rows: Rows) -> Step | None:
    """Some columns of a product with a constant matrix, scaled by one number, with a bias."""
    part = _only_part(rows)
    if part is None or part.atom.kind != "linear" or part.coefficient is not None:
        return None
    if (part.columns < 0).any() or (rows.bias is not None and rows.bias.ndim > 1):
        return None
    bias = _times(rows.bias, rows.gain) if rows.bias is not None and rows.bias.any() else None
    attrs = {"columns": part.columns, "total": part.atom.columns, "scale": rows.gain, "bias": bias}
    attrs |= {**part.atom.attrs, "addends": rows.addends}
    return Step("linear", rows, part.atom.operands, part.atom.where, attrs)


def _affine(planner: Planner, rows: Rows) -> Step | None:
    """A scale and a bias, of all, of columns or (the bias) of positions, behind a value of its own."""
    part = _only_part(rows)
    if part is None or (part.columns < 0).any():
        return None
    if part.coefficient is None and rows.gain == 1.0 and rows.bias is None:
        return None
    factor = _times(part.coefficient, rows.gain)
    if isinstance(factor, np.ndarray) and factor.ndim > 1:
        return None
    core = replace(rows, parts=(Part(part.atom, part.columns),), bias=None, gain=1.0, addends=())
    if isinstance(factor, np.ndarray) and (factor == factor[0]).all():
        factor = None if factor[0] == 1 else float(factor[0])
    return Step("affine", rows, (core,), part.atom.where,
                {"factor": factor, "bias": _times(rows.bias, rows.gain) if rows.bias is not None else None,
                 "addends": rows.addends})  # fmt: skip


def _copy(planner: Planner, rows: Rows) -> Step | None:
    """Some columns of rows that were only put together."""
    part = _only_part(rows)
    if part is None or part.atom.kind != "rows" or part.coefficient is not None or rows.bias is not None:
        return None
    if rows.gain != 1.0 or (part.columns < 0).any():
        return None
    inner = part.atom.operands[0]
    return Step("same", rows, (select(inner, part.columns),), part.atom.where)


def _of_atom(planner: Planner, rows: Rows) -> Step | None:
    """An atom, or columns of it side by side."""
    part = _only_part(rows)
    if part is None or part.coefficient is not None or rows.bias is not None or rows.gain != 1.0:
        return None
    atom, columns = part.atom, part.columns
    if not np.array_equal(columns, np.arange(atom.columns)):
        start = int(columns[0])
        if start < 0 or not np.array_equal(columns, start + np.arange(rows.columns)):
            raise NotRecognised("expected columns side by side, got others")
        return Step("slice", rows, (unit(rows, atom),), atom.where, {"start": start, "size": rows.columns})
    if atom.kind in ("mul", "add"):
        return Step(atom.kind, rows, atom.operands, atom.where)
    if atom.kind == "embedding":
        return Step("embedding", rows, (), atom.where, atom.attrs)
    return None


def _attention(planner: Planner, rows: Rows) -> Step | None:
    atom = rows.only
    if atom is None or atom.kind != "mix" or rows.gain != 1.0:
        return None
    operands, attrs = attention_of(atom, rows, planner.trace, planner.presents)
    return Step("attention", rows, operands, atom.where, attrs)


def _rotation(planner: Planner, rows: Rows) -> Step | None:
    found = rotation_of(rows)
    if found is None:
        return None
    operand, rotation = found
    return Step("rope", rows, (operand,), rows.parts[0].atom.where, {"rotation": rotation, "mark": rows.mark})


PATTERNS: tuple[Callable[[Planner, Rows], Step | None], ...] = (
    _at_last, _copy, _rotation, _norm, _linear, _activation, _affine, _attention, _of_atom,
)  # fmt: skip
