"""Common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlavm.graph import OPS, Graph, Node, Value
from dlavm.passes.rewrite import replace_values, with_operands


@dataclass(frozen=True)
class Cse:
    """Computes once what two nodes without effect compute alike: same op, operands and attributes."""

    name: str = "cse"

    def __call__(self, graph: Graph) -> Graph:
        first: dict[object, Value] = {}
        same: dict[str, Value] = {}
        kept: list[Node] = []
        for node in graph.nodes:
            node = with_operands(node, same)
            key = (node.op, node.operands, tuple(node.attrs.items()))
            if key in first and not OPS[node.op].effect:
                same[node.name] = first[key]
            else:
                first[key] = node.output
                kept.append(node)
        return replace_values(replace(graph, nodes=tuple(kept)), same)
