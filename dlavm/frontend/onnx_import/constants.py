"""Values of a graph that depend on its initialisers alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.evaluate import constant, run_node
from dlavm.frontend.onnx_import.ir import Array, OnnxGraph, OnnxNode
from dlavm.support.errors import DlavmError

SMALL = 1 << 16  # elements of a constant that is kept once it is computed
VIEWS = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice")


class Constants:
    """Computed when they are asked for. Views of the mapped file stay views; other large ones are not kept, but for the
    last."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.makers: dict[str, OnnxNode] = {}
        self._kept: dict[str, Array] = {}
        self._last: tuple[str, Array] | None = None
        known = set(graph.tensors)
        for node in graph.nodes:
            if node.op != "If" and all(name in known for name in node.needs):
                known.update(name for name in node.outputs if name)
                self.makers.update((name, node) for name in node.outputs if name)
        self._known = known

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def value(self, name: str) -> Array:
        """Raises DlavmError, naming the node, where it cannot be computed."""
        if name in self._kept:
            return self._kept[name]
        if self._last is not None and self._last[0] == name:
            return self._last[1]
        order, pending = [], [name]
        while pending:  # operands before results, without recursion
            current = pending.pop()
            order.append(current)
            if current in self.makers and current not in self._kept:
                pending += self.makers[current].needs
        made: dict[str, Array] = {}
        for current in reversed(order):
            if current not in made:
                self._make(current, made)
        self._keep(name, made[name])
        return made[name]

    def _make(self, name: str, made: dict[str, Array]) -> None:
        if name in self._kept:
            made[name] = self._kept[name]
        elif name in self.graph.tensors:
            made[name] = self.graph.tensors[name].values()
        else:
            node = self.makers[name]
            results = (constant(node),) if node.op == "Constant" and not node.domain else run_node(node, made)
            for output, array in zip(node.outputs, results, strict=False):
                if output:
                    made[output] = array
                    if array.size <= SMALL:
                        self._kept[output] = array

    def _keep(self, name: str, array: Array) -> None:
        if array.size <= SMALL:
            self._kept[name] = array
        else:
            self._last = (name, array)

    def origin(self, name: str) -> tuple[str, bool]:
        """The initialiser that a matrix is, and whether it is transposed: through nodes that only turn or cast it.
        The name itself where it is anything else."""
        current, turned = name, False
        while current not in self.graph.tensors:
            node = self.makers.get(current)
            if node is None or node.domain or node.op not in ("Identity", "Cast", "Transpose"):
                return name, False
            if node.op == "Transpose":
                if list(node.attrs.get("perm", [1, 0])) != [1, 0]:
                    return name, False
                turned = not turned
            current = node.inputs[0]
        return current, turned

    def shape(self, name: str) -> tuple[int, ...]:
        """Without computing it, where it is an initialiser or a view of one."""
        origin, turned = self.origin(name)
        if origin in self.graph.tensors:
            shape = self.graph.tensors[origin].shape
            return shape[::-1] if turned else shape
        return tuple(self.value(name).shape)

    def size(self, name: str) -> int:
        return int(np.prod(self.shape(name), dtype=object))

    def number(self, name: str) -> float:
        """The one element. Raises DlavmError for more or fewer."""
        found: Any = self.value(name)
        if found.size != 1:
            raise DlavmError(f"{self.graph.place}: {name}: expected one number, got {list(found.shape)}")
        return float(found.reshape(-1)[0])
