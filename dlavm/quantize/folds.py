"""Where the input of linear layers can be scaled channel by channel, by dividing what comes before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlavm.graph import Graph, Node, Value
from dlavm.quantize.units import Matrix, Unit


@dataclass(frozen=True)
class Fold:
    """Channel j of an input is made by entry index[j] of each of the `vectors` (checkpoint tensors) and, where there is
    one, by that row of a `matrix`; dividing these divides the channel, and nothing else."""

    vectors: tuple[str, ...]
    matrix: Matrix | None
    index: NDArray[np.intp]

    @property
    def entries(self) -> int:
        return int(self.index.max()) + 1


def find_fold(graph: Graph, unit: Unit) -> Fold | None:
    """None where the input is read by others too, or comes from what cannot be scaled: a norm's weights can, the rows
    of the projection to values, and those of a factor of a product."""
    x = unit.x
    if x is None or graph.is_output(x) or not _only_read_by(graph, x, unit):
        return None
    node = graph.producers.get(x.name)
    rule = RULES.get(node.op) if node else None
    return rule(graph, node, int(x.type.shape[-1])) if rule and node else None


def _only_read_by(graph: Graph, x: Value, unit: Unit) -> bool:
    ours = {matrix.source for matrix in unit.matrices}
    return all(
        node.op == "linear"
        and [operand for operand, value in node.operands if value.name == x.name] == ["x"]
        and all(t.name in ours for t in node["w"].tensors)
        and len(graph.users[node["w"].name]) == 1
        for node in graph.users[x.name]
    )


def _norm(graph: Graph, node: Node, k: int) -> Fold | None:
    vectors = [value for name, value in node.operands if name in ("gamma", "beta")]
    if not all(_owned(graph, vector) for vector in vectors):
        return None
    return Fold(tuple(vector.source for vector in vectors), None, np.arange(k))


def _product(graph: Graph, node: Node, k: int) -> Fold | None:
    """The side of a product that a linear layer makes, without an activation in between."""
    for side in (node["b"], node["a"]):
        if side.type == node.output.type and (fold := _rows(graph, side, np.arange(k))):
            return fold
    return None


def _attention(graph: Graph, node: Node, k: int) -> Fold | None:
    """Behind an attention: a head's channels are those of the values of its kv head."""
    attention = graph.producers.get(node["x"].name)
    if attention is None or attention.op != "attention" or not _read_once(graph, attention.output):
        return None
    append = graph.producers.get(attention["v_cache"].name)
    heads = graph.producers.get(append["x"].name) if append and append.op == "kv_append" else None
    if append is None or heads is None or heads.op != "reshape" or not _read_once(graph, append["x"], append.output):
        return None
    d, kv_heads = int(attention["q"].type.shape[2]), int(attention["v_cache"].type.shape[0])
    channels = np.arange(k)
    index = channels // d // (k // d // kv_heads) * d + channels % d
    return _rows(graph, heads["x"], index)


def _rows(graph: Graph, y: Value, index: NDArray[np.intp]) -> Fold | None:
    """The rows of the linear layer that makes y and does nothing more with it, if y is read once."""
    node = graph.producers.get(y.name)
    if node is None or node.op != "linear" or node.attrs["act"] != "none" or node.attrs["aux_mode"] != "none":
        return None
    w, bias = node["w"], node.get("bias")
    if not _read_once(graph, y) or not _owned(graph, w) or (bias is not None and not _owned(graph, bias)):
        return None
    matrix = Matrix(w.source, w.source, (int(w.type.shape[0]), int(w.type.shape[1])))
    return Fold((bias.source,) if bias is not None else (), matrix, index)


def _read_once(graph: Graph, *values: Value) -> bool:
    return all(len(graph.users.get(v.name, ())) == 1 and not graph.is_output(v) for v in values)


def _owned(graph: Graph, param: Value) -> bool:
    """Whether one node reads this param, and no other param is the same tensor of the checkpoint."""
    same = [p for p in graph.params for tensor in p.tensors if param.source and tensor.name == param.source]
    return param.role == "param" and len(graph.users[param.name]) == 1 and len(same) == 1


RULES = {"rms_norm": _norm, "layer_norm": _norm, "mul": _product, "reshape": _attention}
