"""Inputs of linears put in the order in which a checkpoint quantised their weights (GPTQ's act-order)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dlavm.graph import Graph, Node, Type, Value
from dlavm.graph.derived import derived
from dlavm.support.errors import DlavmError

SUFFIX = ".permutation"


def with_permutations(graph: Graph, permutations: Mapping[str, str]) -> Graph:
    """The graph with a `permute` in front of every linear whose weight is in `permutations`: by checkpoint tensor the
    name of its index vector. Linears that read the same through the same vector share the node.

    Raises DlavmError for such a weight that something else reads.
    """
    params, nodes = dict[str, Value](), list[Node]()
    made: dict[tuple[str, str], Value] = {}
    for node in graph.nodes:
        for operand, value in node.operands:
            found = (
                {permutations.get(derived(tensor.name).base) for tensor in value.tensors}
                if value.role == "param"
                else set()
            )
            if found <= {None}:
                continue
            (name, *others) = found
            if (node.op, operand) != ("linear", "w") or others or name is None:
                raise DlavmError(f"{node}: {value.name} expected columns in the order of its input, got {found!r}")
            x = node["x"]
            index = params.setdefault(name, _index(name, x))
            if (x.name, name) not in made:
                y = Value(f"{x.name}.{name.removesuffix(SUFFIX)}", Type(x.type.shape, "f16"), "activation")
                made[x.name, name] = y
                nodes.append(Node("permute", (("x", x), ("index", index)), {}, (y,), node.where))
            operands = tuple((n, made[x.name, name] if n == "x" else v) for n, v in node.operands)
            node = replace(node, operands=operands)
        nodes.append(node)
    return replace(graph, params=(*graph.params, *params.values()), nodes=tuple(nodes))


def _index(name: str, x: Value) -> Value:
    return Value(name, Type((x.type.shape[-1],), "i32"), "param", name)
