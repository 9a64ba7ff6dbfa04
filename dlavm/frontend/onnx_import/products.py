"""What the trace makes of matrix products: linears, where one side is constant, and the two of an attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.arithmetic import embedded, plain, plus_static
from dlavm.frontend.onnx_import.flow import Atom, Flow, NotRecognised, Term
from dlavm.frontend.onnx_import.ir import Array, OnnxNode
from dlavm.frontend.onnx_import.meaning import CONTRIB
from dlavm.frontend.onnx_import.trace import Trace, handler


def linear(t: Trace, node: OnnxNode, flow: Flow, columns: int, k: int, **weight: Any) -> Flow:
    """Rows times a constant matrix (k, columns)."""
    rows = t.rows(flow)
    if rows.columns != k or rows.arrangement.axis == len(flow.shape) - 1:
        raise NotRecognised(f"expected rows of {k} numbers, got {rows.columns}")
    return t.result(t.made("linear", node, rows, columns, **weight), rows, columns)


def _weight(t: Trace, node: OnnxNode, index: int) -> tuple[str, tuple[int, ...]]:
    """Name and shape of a constant operand."""
    name = node.inputs[index]
    if name not in t.constants:
        raise NotRecognised(f"expected a constant matrix, got {name!r}")
    return name, t.constants.shape(name)


@handler("MatMul")
def _matmul(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    a, b = operands
    if isinstance(a, Flow) and isinstance(b, Flow):
        return product(t, node, a, b)
    if not isinstance(a, Flow):
        raise NotRecognised("expected the constant as its second operand")
    name, shape = _weight(t, node, 1)
    if len(shape) != 2:
        raise NotRecognised(f"expected a matrix of two axes, got {list(shape)}")
    return linear(t, node, a, shape[1], shape[0], weight=name, turned=True)


@handler("Gemm")
def _gemm(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    a, b, *rest = operands
    if not isinstance(a, Flow) or isinstance(b, Flow) or node.attrs.get("transA", 0):
        raise NotRecognised("expected rows times a constant matrix")
    name, shape = _weight(t, node, 1)
    turned = not node.attrs.get("transB", 0)
    n, k = shape[::-1] if turned else shape
    result = linear(t, node, a, n, k, weight=name, turned=turned).times(np.array(node.attrs.get("alpha", 1.0)))
    if rest and rest[0] is not None:
        result = plus_static(t, node, result, t.array(rest[0]) * node.attrs.get("beta", 1.0), node.inputs[2])
    return result


@handler("MatMulNBits", domain=CONTRIB)
def _matmul_nbits(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    a = operands[0]
    if not isinstance(a, Flow) or any(isinstance(x, Flow) for x in operands[1:]):
        raise NotRecognised("expected rows times a constant matrix")
    if len(operands) > 4 and operands[4] is not None:
        raise NotRecognised("expected columns in their order, got g_idx")
    if any(name and name not in t.constants for name in node.inputs[1:4]):
        raise NotRecognised("expected constant codes, scales and zero points")
    n, k, block = (int(node.attrs.get(name, 0)) for name in ("N", "K", "block_size"))
    if block < 1 or n * -(-k // block) != np.prod(t.constants.shape(node.inputs[2]), dtype=object):
        raise NotRecognised(f"expected a scale for each block of {block} of {n} rows of {k} numbers")
    result = linear(t, node, a, n, k, blocks=node)
    if len(operands) > 5 and operands[5] is not None:
        result = plus_static(t, node, result, t.array(operands[5]), node.inputs[5])
    return result


@handler("GatherBlockQuantized", domain=CONTRIB)
def _gather_blocks(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    if isinstance(operands[0], Flow) or not isinstance(operands[1], Flow):
        raise NotRecognised("expected a constant table with a row for each id")
    codes = t.constants.shape(node.inputs[0])
    tensor = t.constants.graph.tensors.get(node.inputs[0])
    packed = tensor is not None and tensor.dtype == np.uint8
    if not packed:
        raise NotRecognised("expected codes packed in bytes")
    columns = codes[1] * (8 // node.attrs.get("bits", 4))
    return embedded(t, node, operands[1], columns, blocks=node, vocabulary=codes[0])


@handler("Einsum")
def _einsum(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    """A product of two flows, or of rows and a constant matrix, as MatMul has it: axes are put in its order."""
    equation = str(node.attrs.get("equation", "")).replace(" ", "")
    sides, arrow, result = equation.partition("->")
    if not arrow or len(operands) != 2 or "." in equation or not isinstance(operands[0], Flow):
        raise NotRecognised(f"expected an equation of two operands with a result, got {equation!r}")
    left, right = sides.split(",")
    summed = [x for x in left if x in right and x not in result]
    batch = [x for x in left if x in right and x in result]
    rows, columns = ([x for x in side if x not in summed and x not in batch] for side in (left, right))
    if (
        len(summed) != 1
        or any(len(set(s)) != len(s) for s in (left, right, result))
        or set(rows + columns) - set(result)
    ):
        raise NotRecognised(f"expected an equation that sums over one axis, got {equation!r}")
    if not isinstance(operands[1], Flow):
        if batch or len(columns) != 1 or result != "".join(rows + columns) or left != "".join(rows + summed):
            raise NotRecognised(f"expected rows times a matrix, got {equation!r}")
        name, shape = _weight(t, node, 1)
        turned = right.index(summed[0]) == 0
        n, k = shape[::-1] if turned else shape
        return linear(t, node, operands[0], n, k, weight=name, turned=turned)
    return _einsum_of_flows(t, node, (left, right, result), (batch, rows, columns, summed[0]), operands)


def _einsum_of_flows(
    t: Trace, node: OnnxNode, sides: tuple[str, str, str], letters: tuple[list[str], list[str], list[str], str],
    operands: list[Any],
) -> Flow:  # fmt: skip
    (left, right, result), (batch, rows, columns, summed) = sides, letters
    if len(columns) != 1:
        raise NotRecognised("expected one axis of the second operand in the result")
    token = rows[
        -1:
    ]  # the rows of the product; what else the first operand has is batch, over which the second repeats
    outer = [*batch, *[x for x in rows if x not in token]]
    extents = dict(zip(left, operands[0].shape, strict=True)) | dict(zip(right, operands[1].shape, strict=True))
    a = operands[0].move(lambda x: np.transpose(x, [left.index(i) for i in (*outer, *token, summed)]))

    def second(x: Array) -> Array:
        kept = [i for i in outer if i in right]
        x = np.transpose(x, [right.index(i) for i in (*kept, summed, *columns)])
        shape = [extents[i] if i in right else 1 for i in outer]
        return x.reshape(*shape, extents[summed], extents[columns[0]])

    made = product(t, node, a, operands[1].move(second))
    order = [*outer, *token, *columns]
    return made.move(lambda x: np.transpose(x, [order.index(i) for i in result]))


@dataclass(frozen=True)
class Cached:
    """Keys or values: for each of a batch the columns of an atom, and of the cached atom with the rows before it."""

    atom: Atom
    columns: Array  # (batch, size)
    past: Atom | None
    past_columns: Array | None

    @property
    def size(self) -> int:
        return int(self.columns.shape[1])


def product(t: Trace, node: OnnxNode, a: Flow, b: Flow) -> Flow:
    """Of two flows: scores of queries and keys, or a mix of values by probabilities."""
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise NotRecognised("expected operands of two axes or more")
    gain = a.gain * b.gain
    a, b = (_unit(t, node, x) for x in (a, b))
    outer = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    left = np.broadcast_to(a.terms[0].address, (*outer, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
    right = np.broadcast_to(b.terms[0].address, (*outer, *b.shape[-2:])).reshape(-1, *b.shape[-2:])
    if left.shape[2] != right.shape[1]:
        raise NotRecognised(f"expected shapes that multiply, got {list(a.shape)} and {list(b.shape)}")
    owners = {t.space.atoms[i].kind for i in t.space.owners(left)}
    atom = (_mix if owners == {"softmax"} else _scores)(t, node, left, right)
    matrix = atom.addresses.reshape(atom.rows, left.shape[0], -1).swapaxes(0, 1)
    return Flow((Term(matrix.reshape(*outer, atom.rows, -1)),), gain=gain)


def _unit(t: Trace, node: OnnxNode, flow: Flow) -> Flow:
    """Without its gain, one number an element."""
    return plain(t, node, replace(flow, gain=1.0))


def _scores(t: Trace, node: OnnxNode, q: Array, k: Array) -> Atom:
    """q (batch, tokens, size) times k (batch, size, positions)."""
    atom, columns = _by_row(t, q, 1)
    keys = _cached(t, k.swapaxes(1, 2))
    if keys.size != columns.shape[1]:
        raise NotRecognised("expected queries and keys of one size")
    return t.space.atom("scores", atom.rows, q.shape[0] * k.shape[2], atom.first, node.where,
                        q=atom, heads=columns, keys=keys, positions=k.shape[2])  # fmt: skip


def _mix(t: Trace, node: OnnxNode, p: Array, v: Array) -> Atom:
    """p (batch, tokens, positions), probabilities, times v (batch, positions, size)."""
    atom, columns = _by_row(t, p, 1)
    positions = p.shape[2]
    heads = columns[:, 0] // positions
    if (columns != heads[:, None] * positions + np.arange(positions)).any():
        raise NotRecognised("expected probabilities over all positions in their order")
    values = _cached(t, v)
    return t.space.atom("mix", atom.rows, v.shape[0] * v.shape[2], atom.first, node.where,
                        probabilities=atom, heads=heads, values=values)  # fmt: skip


def _by_row(t: Trace, x: Array, axis: int) -> tuple[Atom, Array]:
    """The one atom of (batch, rows, size) and its columns (batch, size); rows are those of the atom, in order."""
    owners = t.space.owners(x)
    if len(owners) != 1 or (x == 0).any():
        raise NotRecognised("expected the heads of one result")
    atom = t.space.atoms[owners.pop()]
    row, column = np.divmod(x - atom.base, atom.columns)
    if (
        x.shape[axis] != atom.rows
        or (row != np.arange(atom.rows)[None, :, None]).any()
        or (column != column[:, :1]).any()
    ):
        raise NotRecognised("expected a row for each token, alike in every row")
    return atom, column[:, 0]


def _cached(t: Trace, x: Array) -> Cached:
    """Of (batch, positions, size): cached rows first, new ones behind them."""
    past = t.probe.past if any(t.space.atoms[i].kind == "past" for i in t.space.owners(x)) else 0
    atom, columns = _by_row(t, x[:, past:], 1)
    if not past:
        if t.probe.past:
            raise NotRecognised("expected keys and values of the cached positions before those of the tokens")
        return Cached(atom, columns, None, None)
    cache, old = _by_row(t, x[:, :past], 1)
    if cache.kind != "past":
        raise NotRecognised("expected the rows of one cache before those of the tokens")
    return Cached(atom, columns, cache, old)


@handler("Softmax")
def _softmax(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    flow = operands[0]
    rank = len(flow.shape)
    axis = node.attrs.get("axis", -1)
    if axis % rank != rank - 1:
        raise NotRecognised(f"expected to normalise the last of {rank} axes, got {axis}")
    return softmax(t, node, flow)


def softmax(t: Trace, node: OnnxNode, flow: Flow) -> Flow:
    """Probabilities of scores, of which masks may hide some."""
    if len(flow.terms) != 1:
        owners = [term for term in flow.terms if t.space.owners(term.address)]
        if len(owners) != 1:
            raise NotRecognised("expected scores of one product")
        flow = replace(flow, terms=tuple(owners))
    arrangement, first = t.space.arrangement(flow)
    matrix = arrangement.rows(flow.terms[0].address)
    bias = None if flow.bias is None else arrangement.rows(flow.bias) * flow.gain
    owners_ = t.space.owners(matrix)
    if len(owners_) != 1 or flow.terms[0].coefficient is not None and not _hides_only(arrangement.rows(
            flow.terms[0].coefficient), matrix):  # fmt: skip
        raise NotRecognised("expected scores of one product, scaled by one number")
    scores = t.space.atoms[owners_.pop()]
    if scores.kind not in ("scores", "unary") or matrix.shape != scores.addresses.shape:
        raise NotRecognised("expected scores of queries and keys")
    if ((matrix != 0) & (matrix != scores.addresses)).any():
        raise NotRecognised("expected scores in the order of their product")
    atom = t.space.atom("softmax", scores.rows, scores.columns, first, node.where, scores=scores, gain=flow.gain,
                        bias=bias, seen=matrix != 0, masks=flow.masks, positions=flow.shape[-1])  # fmt: skip
    return Flow((Term(arrangement.back(atom.addresses)),))


def _hides_only(coefficient: Array, matrix: Array) -> bool:
    return bool((coefficient[matrix != 0] == 1).all())
