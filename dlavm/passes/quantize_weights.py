"""Choosing the number format of weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlavm.graph import Graph, Node, Type, Value
from dlavm.support.errors import DlavmError

FORMATS = ("int4g128",)


@dataclass(frozen=True)
class QuantizeWeights:
    """Retypes the weights of linear layers to `format`. A param that something else reads too, such as the
    embedding table of a tied head, keeps its type there; the linear gets a param of its own with the same `source`.

    Raises DlavmError for an unknown format.
    """

    format: str = "int4g128"
    name: str = "quantize_weights"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DlavmError(f"quantize_weights: format expected one of {FORMATS!r}, got {self.format!r}")

    def __call__(self, graph: Graph) -> Graph:
        weights = {node["w"].name for node in graph.nodes if node.op == "linear" and node["w"].role == "param"}
        shared = {
            value.name
            for node in graph.nodes
            for operand, value in node.operands
            if value.name in weights and not (node.op == "linear" and operand == "w")
        }
        shared |= {value.name for value in graph.outputs.values()} & weights
        params: list[Value] = []
        quantised: dict[str, Value] = {}
        for param in graph.params:
            if param.name not in weights or param.name in shared:
                params.append(param)
            if param.name in weights:
                name = f"{param.name}.{self.format}" if param.name in shared else param.name
                quantised[param.name] = replace(param, name=name, type=Type(param.type.shape, self.format))
                params.append(quantised[param.name])
        nodes = tuple(_with_weight(node, quantised) for node in graph.nodes)
        return replace(graph, params=tuple(params), nodes=nodes)


def _with_weight(node: Node, quantised: dict[str, Value]) -> Node:
    if node.op != "linear" or node["w"].name not in quantised:
        return node
    operands = tuple((name, quantised[value.name] if name == "w" else value) for name, value in node.operands)
    return replace(node, operands=operands)
