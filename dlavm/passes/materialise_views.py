"""Copies where a view cannot do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlavm.graph import Graph, Node, Value
from dlavm.passes.rewrite import fresh_name, with_operands
from dlavm.target.spec import ADDRESS_UNIT

VIEWS = ("reshape", "slice", "last_rows")  # lowering launches nothing for them
ALIGNED = ADDRESS_UNIT // 2  # fp16 numbers; rows begin at multiples
FLAT = ("reshape", "linear", "argmax")  # they take all heads of a token as one row


@dataclass(frozen=True)
class MaterialiseViews:
    """Puts a `copy` behind a view that is an output, since outputs lie in buffers of their own, and behind parts of
    heads that something reads as one row: they do not lie side by side before.

    What no copy helps stays for lowering to refuse: rows that would begin at other places than multiples of 16 bytes.
    """

    name: str = "materialise_views"

    def __call__(self, graph: Graph) -> Graph:
        taken, copies, nodes = set(graph.values), dict[str, Value](), list[Node]()
        for node in graph.nodes:
            nodes.append(with_operands(node, copies))
            if _needs_copy(graph, node):
                made = replace(node.output, name=fresh_name(f"{node.name}.copy", taken))
                nodes.append(Node("copy", (("x", node.output),), {}, (made,), node.where))
                copies[node.name] = made
        outputs = {label: copies.get(value.name, value) for label, value in graph.outputs.items()}
        return replace(graph, nodes=tuple(nodes), outputs=outputs)


def _needs_copy(graph: Graph, node: Node) -> bool:
    if node.op not in VIEWS:
        return False
    flat = any(user.op in FLAT for user in graph.users.get(node.name, ()))
    return graph.is_output(node.output) or (flat and _has_gaps(graph, node))


def _has_gaps(graph: Graph, node: Node) -> bool:
    """Whether the heads of a view lie apart, but would lie side by side in a copy."""
    shape = node.output.type.shape
    if len(shape) < 3 or int(shape[-1]) % ALIGNED:
        return False
    before: Node | None = node
    while before is not None and before.op in ("slice", "last_rows"):
        if before.op == "slice" and before["x"].type != before.output.type:
            return True
        before = graph.producers.get(before["x"].name)
    return False
