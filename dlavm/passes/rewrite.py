"""What passes share: new graphs from old ones. Graphs and nodes are frozen; these return copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dlavm.graph import Graph, Node, Value


def with_operands(node: Node, replacements: Mapping[str, Value]) -> Node:
    """The node with operands replaced by name; itself when none is."""
    if not any(value.name in replacements for value in node.inputs):
        return node
    operands = tuple((name, replacements.get(value.name, value)) for name, value in node.operands)
    return replace(node, operands=operands)


def replace_values(graph: Graph, replacements: Mapping[str, Value]) -> Graph:
    """The graph with every use of a value, by name, replaced; declarations stay."""
    return replace(
        graph,
        nodes=tuple(with_operands(node, replacements) for node in graph.nodes),
        outputs={label: replacements.get(value.name, value) for label, value in graph.outputs.items()},
    )
