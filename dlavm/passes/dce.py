"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlavm.graph import OPS, Graph, Node


@dataclass(frozen=True)
class Dce:
    """Drops nodes that no output and no state needs, then params and constants that no node reads."""

    name: str = "dce"

    def __call__(self, graph: Graph) -> Graph:
        needed = {value.name for value in graph.outputs.values()}
        kept: list[Node] = []
        for node in reversed(graph.nodes):
            if OPS[node.op].effect or any(value.name in needed for value in node.outputs):
                kept.append(node)
                needed.update(value.name for value in node.inputs)
        return replace(
            graph,
            nodes=tuple(reversed(kept)),
            params=tuple(value for value in graph.params if value.name in needed),
            constants=tuple(constant for constant in graph.constants if constant.value.name in needed),
        )
