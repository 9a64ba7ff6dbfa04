"""Computing only the rows that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dlavm.graph import OPS, Graph, Node, Value
from dlavm.passes.rewrite import fresh_name, with_operands
from dlavm.sym import Expr

Rows = Expr | None  # that many of the last ones; None: all


@dataclass(frozen=True)
class LastTokens:
    """Moves `last_rows` towards the inputs, through every op that makes its rows one by one, as long as nobody needs
    the others: behind the last attention, everything works on the rows of the head alone. No bit of them changes."""

    name: str = "last_tokens"

    def __call__(self, graph: Graph) -> Graph:
        narrowing = _Narrowing(graph, _enough_rows(graph))
        for node in graph.nodes:
            narrowing.add(node)
        outputs = {label: narrowing.values.get(value.name, value) for label, value in graph.outputs.items()}
        return replace(graph, nodes=tuple(narrowing.nodes), outputs=outputs)


def _enough_rows(graph: Graph) -> dict[str, Expr]:
    """How many rows suffice, for each node of which not all are needed."""
    wanted: dict[str, set[Rows]] = {value.name: {None} for value in graph.outputs.values()}
    found: dict[str, Expr] = {}
    for node in reversed(graph.nodes):
        rows = wanted.get(node.name, {None})
        enough = next(iter(rows)) if len(rows) == 1 else None
        by_row = _row_operands(node) if enough is not None else {}
        if enough is not None and by_row:
            found[node.name] = enough
        for name, value in node.operands:
            wanted.setdefault(value.name, set()).add(enough if name in by_row else _count(node))
    return found


def _count(node: Node) -> Rows:
    """The rows that a node picks of its operand."""
    count = node.attrs["count"] if node.op == "last_rows" else None
    assert count is None or isinstance(count, Expr)
    return count


def _row_operands(node: Node) -> dict[str, Value]:
    """The operands whose rows make those of the result one by one. Empty where this is not so of the first axis, and
    where one of them is no activation, so that its rows cannot be looked at alone."""
    first, result = node.inputs[0].type, node.output.type
    names = OPS[node.op].rowwise if first.rank > 1 and first.shape[0] == result.shape[0] else ()
    found = {name: value for name, value in node.operands if name in names and value.type.rank == first.rank}
    return found if all(value.role == "activation" for value in found.values()) else {}


class _Narrowing:
    """Collects the nodes, those of `enough` with fewer rows. `values`: what stands for an old value, by its name."""

    def __init__(self, graph: Graph, enough: Mapping[str, Expr]) -> None:
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self._enough = enough
        self._picked: dict[tuple[str, Expr], Value] = {}
        self._taken = set(graph.values)

    def add(self, node: Node) -> None:
        if node.op == "last_rows" and node["x"].name in self._enough:
            self.values[node.name] = self.values[node["x"].name]
        elif node.name in self._enough:
            self.nodes.append(self._narrowed(node, self._enough[node.name]))
        else:
            self.nodes.append(with_operands(node, self.values))

    def _narrowed(self, node: Node, count: Expr) -> Node:
        by_row = _row_operands(node)
        operands = {name: self._rows(value, count, node) if name in by_row else value for name, value in node.operands}
        attrs = dict(node.attrs)
        if isinstance(shape := attrs.get("shape"), tuple):
            attrs["shape"] = (count, *shape[1:])
        type_ = OPS[node.op].derive(operands, attrs, node.where or node.name)
        self.values[node.name] = made = replace(node.output, type=type_)
        return replace(node, operands=tuple(operands.items()), attrs=attrs, outputs=(made,))

    def _rows(self, value: Value, count: Expr, user: Node) -> Value:
        """The last rows of an operand: all that is left of it, or a view."""
        if value.name in self._enough:
            return self.values[value.name]
        if (value.name, count) not in self._picked:
            given = {"x": self.values.get(value.name, value)}
            type_ = OPS["last_rows"].derive(given, {"count": count}, user.where)
            made = Value(fresh_name(f"{value.name}.last", self._taken), type_, "activation")
            self.nodes.append(Node("last_rows", tuple(given.items()), {"count": count}, (made,), user.where))
            self._picked[value.name, count] = made
        return self._picked[value.name, count]
