"""One linear in place of several that read the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from dlavm.formats import FORMATS
from dlavm.graph import Graph, Node, Type, Value
from dlavm.graph.analysis import SCOPE
from dlavm.passes.rewrite import fresh_name
from dlavm.sym import IntoExpr
from dlavm.target.layout import PackedWeights
from dlavm.target.spec import ADDRESS_UNIT, Memory

ALIGNED = ADDRESS_UNIT // 2  # fp16 numbers; rows begin at multiples


@dataclass(frozen=True)
class FuseHorizontal:
    """Makes one linear, over the rows of all their weights, of linears with the same input and epilogue and the same
    format, such as those to queries, keys and values; slices of its result, which cost nothing, stand for theirs.

    Done where the bytes of weights that a step fetches from `memory` become fewer, because packed weights are padded
    to whole row tiles. Bytes of rows decide nothing: every result is written and read as before, and what reading the
    input once saves is small beside a tile, while a result that is a part of a row can no longer be reused in place.
    Results keep their bits, since rows of a weight are quantised apart. That is also why linears whose
    epilogues differ, as of gate and up, stay: what the epilogue does in fp32 would round once more outside.
    Weights that are not quantised stay, too: nothing is known of their size.
    """

    memory: Memory
    name: str = "fuse_horizontal"

    def __call__(self, graph: Graph) -> Graph:
        groups: dict[object, list[Node]] = {}
        for node in graph.nodes:
            if _is_candidate(graph, node):
                key = (node["x"].name, node["w"].type.dtype, node.get("bias") is not None, *node.attrs.values())
                groups.setdefault(key, []).append(node)
        fused = [group for group in groups.values() if self._gains(group)]
        return _replaced(graph, fused) if fused else graph

    def _gains(self, group: Sequence[Node]) -> bool:
        if len(group) < 2 or any(_rows(node) % ALIGNED for node in group[:-1]):
            return False
        w = group[0]["w"].type
        k, format = int(w.shape[1]), FORMATS[w.dtype]
        apart = sum(PackedWeights(self.memory, _rows(node), k, format).bytes for node in group)
        return PackedWeights(self.memory, sum(map(_rows, group)), k, format).bytes < apart


def _is_candidate(graph: Graph, node: Node) -> bool:
    """Outputs lie in buffers of their own; weights that others read too would be stored twice."""
    if node.op != "linear" or node.get("aux") is not None or node["x"].type.rank != 2 or graph.is_output(node.output):
        return False
    constants = [value for name, value in node.operands if name in ("w", "bias")]
    if node["w"].type.dtype not in FORMATS:
        return False
    return all(value.role == "param" and len(graph.users[value.name]) == 1 for value in constants)


def _rows(linear: Node) -> int:
    return int(linear["w"].type.shape[0])


def _replaced(graph: Graph, groups: Sequence[Sequence[Node]]) -> Graph:
    fusion = _Fusion(graph)
    for group in groups:
        fusion.add(group)
    params = [made for param in graph.params for made in fusion.params.get(param.name, [param])]
    nodes = [made for node in graph.nodes for made in fusion.nodes.get(node.name, [node])]
    return replace(graph, params=tuple(params), nodes=tuple(nodes))


class _Fusion:
    """What stands for params and nodes of the groups, by name: the fused ones where the first of a group stood."""

    def __init__(self, graph: Graph) -> None:
        self.params: dict[str, list[Value]] = {}
        self.nodes: dict[str, list[Node]] = {}
        self._taken = set(graph.values)

    def add(self, group: Sequence[Node]) -> None:
        first = group[0]
        constants = {name: self._stacked([node[name] for node in group]) for name in ("w", "bias") if first.get(name)}
        operands = {"x": first["x"], **constants}
        value = Value(self._name([node.name for node in group]), _type(first, operands["w"]), "activation")
        where = joined_name([node.where for node in group], SCOPE) if first.where else ""
        fused = Node("linear", tuple(operands.items()), first.attrs, (value,), where)
        for node, end in zip(group, accumulate(map(_rows, group)), strict=True):
            attrs = {"start": end - _rows(node), "size": _rows(node)}
            part = Node("slice", (("x", value),), attrs, node.outputs, node.where)
            self.nodes[node.name] = [fused, part] if node is first else [part]

    def _stacked(self, values: Sequence[Value]) -> Value:
        """One param of the rows of several."""
        parts = tuple((tensor.name, tensor.shape[0]) for value in values for tensor in value.tensors)
        shape: tuple[IntoExpr, ...] = (sum(rows for _, rows in parts), *values[0].type.shape[1:])
        made = Value(self._name([v.name for v in values]), Type.of(shape, values[0].type.dtype), "param", parts=parts)
        self.params |= {value.name: [] for value in values} | {values[0].name: [made]}
        return made

    def _name(self, names: Sequence[str]) -> str:
        return fresh_name(joined_name(names), self._taken)


def _type(linear: Node, w: Value) -> Type:
    return Type((linear["x"].type.shape[0], w.type.shape[0]), linear.output.type.dtype)


def joined_name(names: Sequence[str], separator: str = ".") -> str:
    """What names have in common once, what differs side by side: `a.q.w`, `a.k.w` become `a.q-k.w`."""
    parts = [name.split(separator) for name in names]
    front = _common(parts)
    back = _common([part[front:][::-1] for part in parts])
    middle = "-".join(separator.join(part[front : len(part) - back]) for part in parts)
    return separator.join([*parts[0][:front], middle, *parts[0][len(parts[0]) - back :]])


def _common(parts: Sequence[Sequence[str]]) -> int:
    """Leading components that all share, but for at least one of the shortest."""
    shortest = min(map(len, parts)) - 1
    return next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), max(shortest, 0))
