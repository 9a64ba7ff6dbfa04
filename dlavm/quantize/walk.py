"""A graph in float32 over many samples: all of them come to a place before one goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.graph import Graph, Node, Value
from dlavm.graph.constants import constant_values
from dlavm.graph.evaluate import apply
from dlavm.graph.moe import add_expert, routes
from dlavm.graph.opdef import Array
from dlavm.graph.parts import joined
from dlavm.quantize.store import Store
from dlavm.support.progress import Bar

Values = Callable[[str, slice], NDArray[np.float32]]
Visit = Callable[[Array], None]
ALL = slice(None)


class Walk:
    """Fresh sequences of token ids, all of the same length, through the nodes of a graph in their order.

    Between two calls of `to` only what later nodes read is kept, in `store`. `values(tensor, rows)` gives weights as
    float32 when their node's turn comes, `table` those of embeddings.
    """

    def __init__(
        self, graph: Graph, samples: Sequence[Sequence[int]], store: Store, values: Values, table: Values
    ) -> None:
        self.graph, self.store, self.values, self.table, self.count = graph, store, values, table, len(samples)
        self.at = 0  # the node that is next
        self._last = {value.name: at for at, node in enumerate(graph.nodes) for value in node.inputs}
        self._constants = {c.value.name: c for c in graph.constants}
        tokens = len(samples[0])
        self._env = {"token": tokens, "kv_len": 0, "head_rows": tokens}
        for sample, ids in enumerate(samples):
            store.put(sample, {graph.inputs[0].name: np.asarray(ids, np.int32)})

    def to(self, stop: int, x: Value | None, visit: Visit, bar: Bar) -> None:
        """Runs the nodes before `stop`; then `visit` sees the value `x` of each sample. The bar advances by samples."""
        while True:
            here = next((i for i in range(self.at, stop) if self.graph.nodes[i].op == "moe"), stop)
            final = here == stop
            self._run(here, x if final else None, visit, bar if final else None)
            if final:
                return
            self._experts(here)

    def _run(self, stop: int, x: Value | None, visit: Visit, bar: Bar | None) -> None:
        nodes, first = self.graph.nodes[self.at : stop], self.at
        weights = {value.name: self._param(node, value) for node in nodes for value in node.inputs
                   if value.role == "param"}  # fmt: skip
        weights |= {value.name: constant_values(self._constants[value.name])
                    for node in nodes for value in node.inputs if value.role == "constant"}  # fmt: skip
        for sample in range(self.count):
            live = self.store.get(sample)
            for at, node in enumerate(nodes, first):
                operands = {name: self._operand(value, weights, live) for name, value in node.operands}
                live[node.name] = apply(node, operands, self._env)
                self._forget(node, at, live)
            if x is not None:
                visit(live[x.name])
            if nodes:
                self.store.put(sample, live)
            if bar is not None:
                bar.advance()
        self.at = stop

    def _operand(self, value: Value, weights: dict[str, Any], live: dict[str, Array]) -> Any:
        if value.name in weights:
            return weights[value.name]
        if value.role == "kv" and value.name not in live:
            return np.zeros([int(extent) for extent in value.type.shape], np.float32)
        return live[value.name]

    def _param(self, node: Node, value: Value) -> Any:
        if node.op == "embedding":
            return _Rows(lambda rows: self.table(value.source, rows))
        return joined(value, lambda name: self.values(name, ALL))

    def _experts(self, at: int) -> None:
        """A `moe`, an expert after the other, so that each is read once."""
        node = self.graph.nodes[at]
        attrs = dict(node.attrs)
        for sample in range(self.count):
            live = self.store.get(sample)
            self.store.put(sample, {**live, node.name: np.zeros_like(live[node["x"].name])})
        for expert in range(len(node["gate"].tensors)):
            names = [node[operand].tensors[expert].name for operand in ("gate", "up", "down")]
            gate, up, down = (self.values(name, ALL) for name in names)
            for sample in range(self.count):
                live = self.store.get(sample)
                y = live[node.name].copy()
                to = routes(live[node["logits"].name], attrs)
                add_expert(y, live[node["x"].name], to, expert, (gate, up, down), str(attrs["act"]))
                self.store.put(sample, {**live, node.name: y})
        for sample in range(self.count):
            live = self.store.get(sample)
            self._forget(node, at, live)
            self.store.put(sample, live)
        self.at = at + 1

    def _forget(self, node: Node, at: int, live: dict[str, Array]) -> None:
        for value in (*node.inputs, node.output):
            if self._last.get(value.name, at) <= at:
                live.pop(value.name, None)


class _Rows:
    """A table of which only the rows that are asked for are read."""

    def __init__(self, read: Callable[[slice], NDArray[np.float32]]) -> None:
        self._read = read

    def __getitem__(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        wanted, places = np.unique(ids, return_inverse=True)
        rows = [self._read(slice(int(row), int(row) + 1)) for row in wanted]
        return np.concatenate(rows)[places]
