"""Inputs of linears put in the order in which a checkpoint quantised their weights (GPTQ's act-order)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def columns_of(graph: Graph) -> dict[str, str]:
    """By the name of a weight that is in another order, that of the index vector of its columns."""
    permutes = {node.name: node["index"].name for node in graph.nodes if node.op == "permute"}
    linears = [node for node in graph.nodes if node.op == "linear"]
    return {node["w"].name: permutes[node["x"].name] for node in linears if node["x"].name in permutes}


def restored(weight: NDArray[Any], index: NDArray[Any]) -> NDArray[Any]:
    """A weight [n, k] with its columns where the checkpoint had them."""
    out = np.empty_like(weight)
    out[:, index.astype(np.int64)] = weight
    return out


def _index(name: str, x: Value) -> Value:
    return Value(name, Type((x.type.shape[-1],), "i32"), "param", name)
