"""Choosing the number format of weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from dlavm.formats import FORMATS
from dlavm.graph import Graph, Node, Type, Value
from dlavm.support.errors import DlavmError

OPERANDS = {"linear": ("w",), "moe": ("gate", "up", "down")}  # of each op, what the matrix engine multiplies with


@dataclass(frozen=True)
class QuantizeWeights:
    """Retypes the weights of linear layers and of experts. A checkpoint tensor takes the format of the first of
    `patterns` (globs of names) that fits its name, else that which `own` says the checkpoint has, else `format`.

    A param that something else reads too, such as the embedding table of a tied head, keeps its type there; the linear
    gets a param of its own with the same `source`. Raises DlavmError for a format that is not one of `available`, for a
    pattern without a weight, and where the tensors of one param would have different formats.
    """

    format: str = "int4g128"
    patterns: tuple[tuple[str, str], ...] = ()
    own: Callable[[str], str | None] = lambda name: None
    available: Collection[str] = tuple(FORMATS)
    name: str = "quantize_weights"

    def __post_init__(self) -> None:
        chosen = {"": self.format} | dict(self.patterns)
        for place, format in chosen.items():
            self._check(f" of {place!r}" if place else "", format)

    def _check(self, place: str, format: str) -> None:
        if format not in self.available:
            expected = ", ".join(name for name in FORMATS if name in self.available)
            raise DlavmError(f"quantize_weights: format{place} expected one of {expected}, got {format!r}")

    def __call__(self, graph: Graph) -> Graph:
        weights = {value.name: value for _, _, value in _weights(graph)}
        self._check_patterns(list(weights.values()))
        read = {value.name for node in graph.nodes for value in _others(node)}
        shared = (read | {value.name for value in graph.outputs.values()}) & set(weights)
        params: list[Value] = []
        quantised: dict[str, Value] = {}
        for param in graph.params:
            if param.name not in weights or param.name in shared:
                params.append(param)
            if param.name in weights:
                format = self._format(param)
                name = f"{param.name}.{format}" if param.name in shared else param.name
                quantised[param.name] = replace(param, name=name, type=Type(param.type.shape, format))
                params.append(quantised[param.name])
        nodes = tuple(_with_weights(node, quantised) for node in graph.nodes)
        return replace(graph, params=tuple(params), nodes=nodes)

    def _format(self, param: Value) -> str:
        formats = {tensor.name: self._of_tensor(tensor.name) for tensor in param.tensors}
        if len(set(formats.values())) > 1:
            found = ", ".join(f"{format!r} of {name}" for name, format in formats.items())
            raise DlavmError(f"quantize_weights: {param.name}: expected one format for all of its tensors, got {found}")
        return next(iter(formats.values()))

    def _of_tensor(self, name: str) -> str:
        for pattern, format in self.patterns:
            if fnmatchcase(name, pattern):
                return format
        format = self.own(name) or self.format
        self._check(f" of {name}", format)
        return format

    def _check_patterns(self, weights: list[Value]) -> None:
        names = [tensor.name for weight in weights for tensor in weight.tensors]
        for pattern, _ in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                first = f", the first of which is {names[0]!r}" if names else ""
                raise DlavmError(f"quantize_weights: pattern expected to fit one of the {len(names)} weights{first}, "
                                 f"got {pattern!r}")


def _weights(graph: Graph) -> Iterator[tuple[Node, str, Value]]:
    """Params that the matrix engine multiplies with: node, operand, value."""
    for node in graph.nodes:
        for operand, value in node.operands:
            if operand in OPERANDS.get(node.op, ()) and value.role == "param":
                yield node, operand, value


def _others(node: Node) -> Iterator[Value]:
    """The operands that are no weights."""
    return (value for operand, value in node.operands if operand not in OPERANDS.get(node.op, ()))


def _with_weights(node: Node, quantised: Mapping[str, Value]) -> Node:
    weights = OPERANDS.get(node.op, ())
    operands = tuple((o, quantised.get(v.name, v) if o in weights else v) for o, v in node.operands)
    return replace(node, operands=operands) if weights else node
