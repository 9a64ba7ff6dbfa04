"""Which tensors the steps of a decoder read: entries of the weight source, and their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.flow import MISFITS, NotRecognised, reason
from dlavm.frontend.onnx_import.ir import Array, OnnxNode
from dlavm.frontend.onnx_import.plan import Step
from dlavm.frontend.onnx_import.source import Blocks, Entry, Matrix, OnnxSource, Vector
from dlavm.frontend.onnx_import.trace import Trace
from dlavm.support.errors import DlavmError

VIEWS = ("Identity", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Cast", "Dropout")


@dataclass(frozen=True)
class Param:
    """A tensor of the source."""

    name: str
    shape: tuple[int, ...]


class Params:
    """Makes entries of the source for steps; `problems` are those that have none."""

    def __init__(self, trace: Trace, source: OnnxSource, steps: Iterable[Step]) -> None:
        self.trace, self.source, self.constants = trace, source, trace.constants
        self.problems: list[tuple[str, str, str]] = []
        self._found: dict[tuple[Any, str], Param] = {}
        self._names: dict[Any, str] = {}
        self._positions: dict[Any, tuple[str, int]] = {}
        for step in steps:
            try:
                ASSIGN.get(step.op, lambda *_: None)(self, step)
            except (NotRecognised, DlavmError, *MISFITS) as error:
                self.problems.append((step.where, step.op, reason(error)))

    def of(self, step: Step, role: str) -> Param | None:
        return self._found.get((step.rows.key, role))

    def indices(self, step: Step) -> str:
        """The value whose numbers choose rows of the table of positions."""
        return self._positions[step.rows.key][0]

    def offset(self, step: Step) -> int:
        return self._positions[step.rows.key][1]

    def put(self, step: Step, role: str, wanted: str, entry: Entry, key: Any) -> None:
        """An entry under a name of its own, or under that which an equal one has."""
        if key not in self._names:
            name = base = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("_.") or "tensor"
            count = 1
            while name in self._names.values():
                count += 1
                name = f"{base}_{count}"
            self._names[key] = name
            self.source.add(name, entry)
        self._found[step.rows.key, role] = Param(self._names[key], entry.shape)

    def vector(self, step: Step, role: str, values: Array, names: tuple[str, ...] = ()) -> None:
        """A vector of numbers, called like the initialiser that it is, if it is one."""
        wanted = next((n for n in reversed(names) if n in self.constants.graph.tensors), f"{step.where}.{role}")
        numbers = np.ascontiguousarray(values, np.float32)
        self.put(step, role, wanted, Vector(numbers), (wanted, numbers.tobytes()))


def _embedding(p: Params, step: Step) -> None:
    blocks: OnnxNode | None = step.attrs.get("blocks")
    if blocks is not None:
        shape = (step.attrs["vocabulary"], step.rows.columns)
        p.put(step, "table", blocks.inputs[0], Blocks(blocks, shape), ("blocks", blocks.inputs[0]))
    else:
        _matrix(p, step, "table", step.attrs["weight"], False, None)


def _linear(p: Params, step: Step) -> None:
    columns, total = step.attrs["columns"], step.attrs["total"]
    chosen = None if np.array_equal(columns, np.arange(total)) else columns
    blocks: OnnxNode | None = step.attrs.get("blocks")
    if blocks is not None:
        shape = (len(columns), blocks.attrs["K"])
        wanted = blocks.inputs[1] + _suffix(chosen)
        p.put(step, "w", wanted, Blocks(blocks, shape, chosen), ("blocks", blocks.inputs[1], _bytes(chosen)))
    else:
        _matrix(p, step, "w", step.attrs["weight"], step.attrs["turned"], chosen)
    if step.attrs["bias"] is not None:
        p.vector(step, "bias", step.attrs["bias"], step.attrs["addends"] if chosen is None else ())


def _matrix(p: Params, step: Step, role: str, weight: str, turned: bool, chosen: Array | None) -> None:
    origin, inner = p.constants.origin(weight)
    shape = p.constants.shape(weight)
    rows, k = shape[::-1] if turned else shape
    rows = rows if chosen is None else len(chosen)
    entry = Matrix(weight, turned, (rows, k), chosen)
    p.put(step, role, origin + _suffix(chosen), entry, (origin, turned != inner, _bytes(chosen)))


def _suffix(chosen: Array | None) -> str:
    """Which rows of a matrix are taken."""
    if chosen is None:
        return ""
    return f".rows{int(chosen[0])}-{int(chosen[-1])}"


def _bytes(chosen: Array | None) -> bytes:
    return b"" if chosen is None else chosen.tobytes()


def _norm(p: Params, step: Step) -> None:
    gamma, beta, group = step.attrs["gamma"], step.attrs["beta"], step.attrs["group"]
    whole = np.broadcast_to(1.0 if gamma is None else gamma, (step.rows.columns,))
    if _periodic(whole, group):
        p.vector(step, "gamma", whole[:group])
    else:
        p.vector(step, "gamma", np.ones(group))
        p.vector(step, "factor", whole)
    if beta is not None and np.any(beta):
        inside = _periodic(beta, group) and step.attrs["centred"] and _periodic(whole, group)
        p.vector(step, "beta", beta[:group] if inside else beta)


def _periodic(x: Array, group: int) -> bool:
    return bool((x.reshape(-1, group) == x[:group]).all())


def _affine(p: Params, step: Step) -> None:
    factor, bias = step.attrs["factor"], step.attrs["bias"]
    if isinstance(factor, np.ndarray):
        p.vector(step, "factor", factor)
    if bias is None or not np.any(bias):
        return
    if bias.ndim == 1:
        p.vector(step, "bias", bias, step.attrs["addends"])
        return
    table, indices, offset, rows = _table(p, step)
    rest = bias - rows
    if np.abs(rest - rest[0]).max() > 1e-6:
        raise NotRecognised("expected what is added to positions to be rows of one table")
    if offset == 0:
        _matrix(p, step, "positions", table, False, None)
    else:
        _matrix(p, step, "positions", table, False, np.arange(offset, p.constants.shape(table)[0]))
    p._positions[step.rows.key] = indices, offset
    if np.abs(rest).max() > 1e-6:
        p.vector(step, "bias", rest[0])


def _table(p: Params, step: Step) -> tuple[str, str, int, Array]:
    """Table, value of the indices, their distance from positions, and the rows at the probe."""
    makers = {name: node for node in p.trace.graph.nodes for name in node.outputs}
    for name in step.attrs["addends"]:
        node = makers.get(name)
        while node is not None and node.op in VIEWS and not node.domain:
            node = makers.get(node.inputs[0])
        if node is None or node.op != "Gather" or node.inputs[0] not in p.constants or node.inputs[1] in p.constants:
            continue
        trace = Trace(p.trace.graph, p.constants, p.trace.inputs, p.trace.probe)
        trace.run([node.inputs[1]])
        indices = np.asarray(trace.values[node.inputs[1]]).reshape(-1)
        offsets = indices - p.trace.probe.first - np.arange(p.trace.probe.tokens)
        if indices.size == p.trace.probe.tokens and (offsets == offsets[0]).all() and offsets[0] >= 0:
            rows = p.constants.value(node.inputs[0])[indices].astype(np.float64)
            return node.inputs[0], node.inputs[1], int(offsets[0]), rows
    raise NotRecognised("expected what is added to positions to be rows of a constant table, one a position")


ASSIGN: dict[str, Any] = {"embedding": _embedding, "linear": _linear, "norm": _norm, "affine": _affine}
