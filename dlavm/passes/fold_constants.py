"""Computing what depends on nothing but constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dlavm.graph import OPS, Constant, Graph, Node, Type, Value, constant_array
from dlavm.graph.constants import constant_args, stored
from dlavm.graph.opdef import Array
from dlavm.passes.rewrite import replace_values
from dlavm.sym import Expr


@dataclass(frozen=True)
class FoldConstants:
    """Replaces nodes that read constants alone by constants of their values, by the op table's numpy meaning rounded
    to fp16. Left alone: results of more than `limit` elements, of other types, beyond fp16, or that are outputs.

    The constants that they were made of stay, for `Dce`.
    """

    limit: int = 1 << 16
    name: str = "fold_constants"

    def __call__(self, graph: Graph) -> Graph:
        constants = {c.value.name: c for c in graph.constants}
        folded: dict[str, Value] = {}
        for node in graph.nodes:
            found = self._folded(graph, node, constants)
            if found is not None:
                constants[node.name] = found
                folded[node.name] = found.value
        nodes = tuple(node for node in graph.nodes if node.name not in folded)
        return replace_values(replace(graph, constants=tuple(constants.values()), nodes=nodes), folded)

    def _folded(self, graph: Graph, node: Node, constants: Mapping[str, Constant]) -> Constant | None:
        shape, definition = node.output.type.shape, OPS[node.op]
        by_position = not (definition.rowwise or node.op == "last_rows")
        fixed = all(extent.is_const for extent in shape) and not by_position
        if not fixed or graph.is_output(node.output) or node.output.type.dtype != "f16":
            return None
        if any(value.name not in constants for value in node.inputs) or np.prod([int(e) for e in shape]) > self.limit:
            return None
        operands = {name: constant_array(constants[value.name]).astype(np.float32) for name, value in node.operands}
        attrs = {name: _plain(attr) for name, attr in node.attrs.items()}
        with np.errstate(all="ignore"):
            half = definition.reference(operands, attrs, 0).astype(np.float16)
        if not np.isfinite(half).all():
            return None
        return _constant(node.name, half)


def _plain(attr: object) -> object:
    if isinstance(attr, Expr):
        return int(attr)
    return tuple(int(extent) for extent in attr) if isinstance(attr, tuple) else attr


def _constant(name: str, values: Array) -> Constant:
    value = Value(name, Type.of(values.shape, "f16"), "constant")
    return Constant(value, "values", constant_args("values", stored(values)))
