"""What the trace makes of operators that work element by element, move elements, or reduce rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.evaluate import apply
from dlavm.frontend.onnx_import.flow import (
    Flow,
    Mask,
    NotRecognised,
    Rows,
    Term,
    added,
    constant,
    distinct,
    select,
    together,
)
from dlavm.frontend.onnx_import.ir import Array, OnnxNode
from dlavm.frontend.onnx_import.meaning import CONTRIB, MEANINGS, Call
from dlavm.frontend.onnx_import.meaning.elementwise import CURVES
from dlavm.frontend.onnx_import.meaning.reduce import axes_of
from dlavm.frontend.onnx_import.trace import Trace, handler
from dlavm.support.errors import DlavmError

HIDDEN = -1e4  # a score this low is hidden
WIDEST = 65504.0  # bounds beyond change nothing that fp16 holds


@handler("Cast", "CastLike")
def _cast(t: Trace, node: OnnxNode, operands: list[Any]) -> Any:
    (flow, *rest), to = operands, node.attrs.get("to")
    if not isinstance(flow, Flow):
        raise NotRecognised("expected only its first operand to depend on the tokens")
    integer = {6, 7, 12, 13} if to is not None else set()  # INT32, INT64, UINT32, UINT64
    ids = all(t.space.atoms[i].kind == "ids" for i in t.space.atoms_of(flow))
    if ids != (to in integer) and (not rest or isinstance(rest[0], Flow)):
        raise NotRecognised("expected a cast of floats to floats, or of ids to integers")
    return flow


@handler("Shape")
def _shape(t: Trace, node: OnnxNode, operands: list[Any]) -> Any:
    return _shaped(node, operands[0])


@handler("Size")
def _size(t: Trace, node: OnnxNode, operands: list[Any]) -> Any:
    return _shaped(node, operands[0])


def _shaped(node: OnnxNode, flow: Flow) -> Array:
    return apply(node, MEANINGS["", node.op].function, [np.broadcast_to(np.zeros(()), flow.shape)])[0]


@handler("ConstantOfShape", "EyeLike")
def _of_shape(t: Trace, node: OnnxNode, operands: list[Any]) -> Any:
    return _shaped(node, operands[0])


@handler("IsNaN", "IsInf")
def _finite(t: Trace, node: OnnxNode, operands: list[Any]) -> Array:
    """Values are finite: no weight is NaN or infinity, and a row of scores sees its own position."""
    return np.zeros(operands[0].shape, bool)


@handler("Neg")
def _neg(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    return operands[0].times(np.array(-1.0))


@handler("Mul")
def _mul(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    a, b = operands
    if isinstance(a, Flow) and isinstance(b, Flow):
        return product(t, node, a, b)
    flow, static, name = _pair(t, node, operands)
    return settled(t, node, flow.times(static), static)


def product(t: Trace, node: OnnxNode, a: Flow, b: Flow) -> Flow:
    """Of two flows, element by element; a flow times itself is its square."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    left, right = t.rows(a.broadcast(shape)), t.rows(b.broadcast(shape))
    _same_rows(left, right)
    if left.key == right.key:
        return power(t, node, a, 2.0)
    return t.result(t.made("mul", node, left, left.columns, right), left)


def _same_rows(left: Rows, right: Rows) -> None:
    if (left.first, left.count, left.arrangement) != (right.first, right.count, right.arrangement):
        raise NotRecognised("expected operands of the same positions")


@handler("Div")
def _div(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    a, b = operands
    if not isinstance(b, Flow):
        with np.errstate(all="ignore"):
            factor = 1.0 / t.array(b).astype(np.float64)
        return settled(t, node, a.times(factor), factor)
    inverse = power(t, node, b, -1.0)
    return product(t, node, a, inverse) if isinstance(a, Flow) else inverse.times(t.array(a))


def _pair(t: Trace, node: OnnxNode, operands: list[Any]) -> tuple[Flow, Array, str]:
    """The flow among two operands, the static one and its name."""
    a, b = operands
    return (a, t.array(b), node.inputs[1]) if isinstance(a, Flow) else (b, t.array(a), node.inputs[0])


@handler("Add")
def _add(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    if all(isinstance(x, Flow) for x in operands):
        return total(t, node, operands[0], operands[1])
    flow, static, name = _pair(t, node, operands)
    return plus_static(t, node, flow, static, name)


@handler("Sub")
def _sub(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    a, b = operands
    if not isinstance(b, Flow):
        return plus_static(t, node, a, -t.array(b).astype(np.float64), node.inputs[1])
    negative = b.times(np.array(-1.0))
    return (
        total(t, node, a, negative)
        if isinstance(a, Flow)
        else plus_static(t, node, negative, t.array(a), node.inputs[0])
    )


@handler("Sum")
def _sum(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    result = operands[0]
    for index, x in enumerate(operands[1:], start=1):
        one = replace(node, op="Add", inputs=("", node.inputs[index]))
        result = _add(t, one, [result, x])
    return result


def plus_static(t: Trace, node: OnnxNode, flow: Flow, static: Array, name: str) -> Flow:
    """A sum with a static value, which is a mask where it hides scores."""
    result = flow.plus(static, name)
    if np.asarray(static).size > 1 and all(
        t.space.atoms[i].kind in ("scores", "unary") for i in t.space.atoms_of(flow)
    ):
        result = replace(result, masks=(*flow.masks, Mask(name)))
    return settled(t, node, result, static)


def settled(t: Trace, node: OnnxNode, flow: Flow, static: Array) -> Flow:
    """What was scaled by or added to a vector that is alike at all positions becomes an atom: a bias, or the weight of
    a norm, must not mix with the tables of positions that come behind it."""
    if np.asarray(static).size == 1 or (np.isin(static, (-1, 0, 1)).all() and flow.bias is None):
        return flow
    try:
        rows = t.rows(flow)
    except NotRecognised:
        return flow  # scores with a mask
    vectors = [x for x in (rows.bias, *(p.coefficient for p in rows.parts)) if x is not None]
    if len(rows.parts) != 1 or any(x.ndim > 1 for x in vectors) or rows.parts[0].atom.kind == "scores":
        return flow
    return t.result(t.made("rows", node, rows, rows.columns), rows)


def total(t: Trace, node: OnnxNode, a: Flow, b: Flow) -> Flow:
    """Of two flows: term by term where they are of one result, as a rotation is, else a sum of its own."""
    atoms = t.space.atoms_of(a)
    if len(atoms) == 1 and atoms == t.space.atoms_of(b):
        return added(a, b)
    shape = np.broadcast_shapes(a.shape, b.shape)
    left, right = t.rows(a.broadcast(shape)), t.rows(b.broadcast(shape))
    _same_rows(left, right)
    return t.result(t.made("add", node, left, left.columns, right), left)


def power(t: Trace, node: OnnxNode, flow: Flow, exponent: float) -> Flow:
    """A power; powers of powers become one."""
    rows = t.rows(flow)
    atom = rows.only
    if atom is not None and rows.gain == 1.0 and atom.kind == "power" and exponent != 2.0:
        return t.result(_power_of(t, node, atom.operands[0], atom.attrs["exponent"] * exponent), rows)
    return t.result(_power_of(t, node, rows, exponent), rows)


def _power_of(t: Trace, node: OnnxNode, rows: Rows, exponent: float) -> Any:
    return t.made("power", node, rows, rows.columns, exponent=exponent)


@handler("Pow")
def _pow(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    if not isinstance(operands[0], Flow):
        raise NotRecognised("expected a constant exponent")
    exponent = t.array(operands[1]).reshape(-1)
    if not exponent.size or (exponent != exponent[0]).any():
        raise NotRecognised("expected one exponent for all elements")
    return operands[0] if exponent[0] == 1 else power(t, node, operands[0], float(exponent[0]))


@handler("Sqrt")
def _sqrt(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    return power(t, node, operands[0], 0.5)


@handler("Reciprocal")
def _reciprocal(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    return power(t, node, operands[0], -1.0)


def unary(t: Trace, node: OnnxNode, flow: Flow, function: Callable[[Array], Array], inner: float = 1.0) -> Flow:
    """A function of each element; `inner` is a factor that it may have on its operand."""
    rows = t.rows(flow)
    return t.result(t.made("unary", node, rows, rows.columns, op=node.op, function=function, inner=inner), rows)


def _curve(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    op = "Gelu" if node.op == "BiasGelu" else node.op
    entry, call = MEANINGS[node.domain, op], Call(node.where, node.version, node.attrs)
    flow = operands[0]
    if node.op in ("BiasGelu", "FastGelu") and len(operands) > 1 and operands[1] is not None:
        flow = plus_static(t, node, flow, t.array(operands[1]), node.inputs[1])
    inner = node.attrs.get("alpha", 1.702) if op in ("QuickGelu", "Swish") else 1.0
    return unary(t, node, flow, lambda x: np.asarray(entry.function(call, x)), inner)


for _op in (*(set(CURVES) - {"Sqrt", "Reciprocal"}), "Relu", "Abs"):
    handler(_op)(_curve)
for _op in ("QuickGelu", "FastGelu", "Gelu", "BiasGelu"):
    handler(_op, domain=CONTRIB)(_curve)


@handler("SwiGLU")
def _swiglu(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    call, alpha = Call(node.where, node.version, node.attrs), node.attrs.get("alpha", 1.0)
    gate = unary(t, node, operands[0], lambda x: np.asarray(MEANINGS["", "Swish"].function(call, x)), alpha)
    return product(t, node, gate, operands[1])


@handler("Clip", "Max", "Min")
def _clip(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    """Bounds that fp16 does not reach; what Max(score, lowest) of older exporters does to scores."""
    flows = [x for x in operands if isinstance(x, Flow)]
    bounds = [np.abs(t.array(x)) for x in operands if x is not None and not isinstance(x, Flow)]
    if len(flows) != 1 or any((bound < WIDEST).any() for bound in bounds):
        raise NotRecognised(f"expected bounds of at least {WIDEST}")
    return flows[0]


@handler("Concat")
def _concat(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    flows = [x if isinstance(x, Flow) else constant(t.array(x)) for x in operands]
    if any(t.space.atoms[i].kind == "past" for f in flows for i in t.space.atoms_of(f)):
        flows = [plain(t, node, f) for f in flows]
    flows = [f for f in flows if f.terms[0].address.size or len(flows) == 1] or flows[:1]
    return together(flows, lambda xs: _applied(node, xs))


def _applied(node: OnnxNode, arrays: list[Array]) -> Array:
    try:
        return apply(node, MEANINGS[node.domain, node.op].function, arrays)[0]
    except DlavmError as error:
        raise NotRecognised(str(error)) from None


def plain(t: Trace, node: OnnxNode, flow: Flow) -> Flow:
    """The flow with one number an element and no gain: what is rotated or scaled becomes an atom of kind rows."""
    if flow.plain and flow.gain == 1.0:
        return flow
    rows = t.rows(flow)
    first, which = distinct(rows)  # heads of keys may be repeated
    output = next(name for name in node.outputs if name)
    ordinal = sum(a.kind == "rows" and a.where == node.where for a in t.space.atoms)
    atom = t.made("rows", node, replace(select(rows, first), mark=(output, ordinal)), len(first))
    return Flow((Term(rows.arrangement.back(atom.addresses[:, which])),))


@handler("Where")
def _where(t: Trace, node: OnnxNode, operands: list[Any]) -> Any:
    condition, a, b = operands
    if isinstance(condition, Flow):
        raise NotRecognised("expected a condition that does not depend on the tokens")
    keep = isinstance(a, Flow)
    chosen = t.array(condition).astype(bool)
    if not (keep and isinstance(b, Flow)):
        flow, other = (a, t.array(b)) if keep else (b, t.array(a))
        if (chosen if keep else ~chosen).all():
            return flow.broadcast(np.broadcast_shapes(flow.shape, chosen.shape, other.shape))
    flows = [x if isinstance(x, Flow) else constant(t.array(x)) for x in (a, b)]
    shape = np.broadcast_shapes(chosen.shape, *(f.shape for f in flows))
    result = together([f.broadcast(shape) for f in flows], lambda xs: np.where(chosen, *xs))
    return replace(result, masks=(*result.masks, Mask(node.inputs[0], keep)))


@handler("Trilu", "Pad")
def _filled(t: Trace, node: OnnxNode, operands: list[Any]) -> Any:
    """Zeros, where they put something: the address of nothing, and coefficients of it."""
    if node.op == "Pad" and len(operands) > 2 and operands[2] is not None and t.array(operands[2]).any():
        raise NotRecognised("expected to be filled with zeros")
    kept = operands[:2] + ([None] + operands[3:] if node.op == "Pad" else operands[2:])
    return t.moved(node, kept)


@handler("ScatterND", "ScatterElements")
def _scatter(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    if node.attrs.get("reduction", "none") != "none":
        raise NotRecognised("expected reduction none")
    indices = t.array(operands[1])
    flows = [x if isinstance(x, Flow) else constant(t.array(x)) for x in (operands[0], operands[2])]
    return together(flows, lambda xs: _applied(node, [xs[0], indices, xs[1]]))


@handler("Gather")
def _gather(t: Trace, node: OnnxNode, operands: list[Any]) -> Any:
    table, indices = operands
    if not isinstance(indices, Flow):
        return t.moved(node, operands)
    if isinstance(table, Flow) or node.attrs.get("axis", 0) != 0:
        raise NotRecognised("expected a constant table with a row for each id")
    name = node.inputs[0]
    shape = t.constants.shape(name) if name in t.constants else t.array(table).shape
    if len(shape) != 2:
        raise NotRecognised(f"expected a table of two axes, got {list(shape)}")
    return embedded(t, node, indices, shape[1], weight=name, vocabulary=shape[0])


def embedded(t: Trace, node: OnnxNode, indices: Flow, columns: int, **attrs: Any) -> Flow:
    """Rows of a table, chosen by the ids."""
    rows = t.rows(indices)
    if rows.only is None or rows.only.kind != "ids":
        raise NotRecognised("expected the ids themselves as indices")
    atom = t.made("embedding", node, rows, columns, **attrs)
    return Flow((Term(atom.addresses.reshape(*indices.shape, columns)),))


@handler("ReduceMean", "ReduceSum")
def _reduce(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    flow = operands[0]
    axes = t.array(operands[1]) if len(operands) > 1 and operands[1] is not None else None
    rank = len(flow.shape)
    chosen = axes_of(Call(node.where, node.version, node.attrs), rank, axes)
    if chosen is None:
        return flow
    if sorted(chosen) != list(range(rank - len(chosen), rank)):
        raise NotRecognised(f"expected to reduce the last axes of {rank}, got {list(chosen)}")
    rows, group = t.rows(flow), int(np.prod([flow.shape[a] for a in chosen]))
    if rows.arrangement.axis in chosen or rows.columns % group:
        raise NotRecognised("expected to reduce within rows, got across positions")
    atom = t.made("mean", node, rows, rows.columns // group, group=group)
    kept = (*flow.shape[: rank - len(chosen)], *[1] * len(chosen))
    arrangement = replace(rows.arrangement, shape=kept)
    result = Flow((Term(arrangement.back(atom.addresses)),))
    if node.op == "ReduceSum":
        result = result.times(np.array(float(group)))
    if not node.attrs.get("keepdims", 1):
        result = result.move(lambda x: x.reshape(kept[: rank - len(chosen)]))
    return result
