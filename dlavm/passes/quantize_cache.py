"""Choosing the number format of the KV cache."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from dlavm.graph import Graph, Type, Value
from dlavm.passes.rewrite import with_operands
from dlavm.support.errors import DlavmError
from dlavm.target.layout import KV_FORMATS


@dataclass(frozen=True)
class QuantizeCache:
    """Retypes all caches to `format`. Raises DlavmError for a format that is not one of `available`."""

    format: str = "fp16"
    available: Collection[str] = tuple(KV_FORMATS)
    name: str = "quantize_cache"

    def __post_init__(self) -> None:
        if self.format not in self.available:
            raise DlavmError(f"quantize_cache: format expected one of {', '.join(self.available)}, got {self.format!r}")

    def __call__(self, graph: Graph) -> Graph:
        stored = {kv.name: self._stored(kv) for kv in graph.kv}
        nodes = []
        for node in graph.nodes:
            if node.output.role == "kv":
                stored[node.name] = self._stored(node.output)
                node = replace(node, outputs=(stored[node.name],))
            nodes.append(with_operands(node, stored))
        return replace(graph, kv=tuple(stored[kv.name] for kv in graph.kv), nodes=tuple(nodes))

    def _stored(self, value: Value) -> Value:
        return replace(value, type=Type(value.type.shape, KV_FORMATS[self.format].dtype))
