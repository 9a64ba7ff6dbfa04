"""The graph IR for Graphviz: a node an op, a box a scope, an edge a tensor with its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dlavm.graph import Graph, Node, Value
from dlavm.graph.analysis import Layer, depths, layers, scope_of, trunk
from dlavm.graph.text import attributes_text
from dlavm.view.dot import Dot, label

FAMILIES = {
    "#cfe0f5": ("linear",),
    "#d6ead9": ("rms_norm", "layer_norm"),
    "#e4d7f0": ("attention", "rope", "kv_append"),
    "#f7e3c4": ("add", "mul", "scale", "act"),
    "#f3d3da": ("embedding", "argmax"),
    "#e8eaee": ("reshape", "slice", "last_rows", "copy"),
}
COLOUR = {op: colour for colour, ops in FAMILIES.items() for op in ops}
SOURCE_SHAPES = {"input": "ellipse", "kv": "cylinder"}


def graph_dot(graph: Graph, fold: bool = False) -> str:
    """The text for `dot`. Params and constants stand in the nodes that read them; the values that everything passes
    through are bold and in one line. With `fold`, layers equal to an earlier one become a single box."""
    return _Drawing(graph, fold).text()


class _Drawing:
    def __init__(self, graph: Graph, fold: bool) -> None:
        self.graph = graph
        self.layers = layers(graph)
        self.trunk = set(trunk(graph))
        self.boxes = _boxes(self.layers) if fold else {}
        self.dot = Dot(graph.name, self._title())

    def text(self) -> str:
        self._scope((), [*((scope_of(node), node) for node in self.graph.nodes), *self._sources()])
        for label_ in self.graph.outputs:
            self.dot.node(f"output:{label_}", label=label(label_, "output"), shape="ellipse")
        for source, target, value, is_trunk in self._edges():
            weight = {"weight": "3", "penwidth": "2"} if is_trunk else {}
            self.dot.edge(source, target, label=str(value.type), **weight)
        return self.dot.text()

    def _title(self) -> str:
        alike = sum(1 for layer in self.layers if layer.like)
        repeats = f", {alike} of {len(self.layers)} layers like an earlier one" if alike else ""
        deep = max(depths(self.graph).values(), default=0)
        return f"{self.graph.name}: {len(self.graph.nodes)} nodes, {deep} deep{repeats}"

    def _sources(self) -> Iterator[tuple[tuple[str, ...], Value]]:
        """Inputs and caches, each in the scope of its only reader."""
        for value in (*self.graph.inputs, *self.graph.kv):
            users = self.graph.users.get(value.name, ())
            yield scope_of(users[0]) if len(users) == 1 else (), value

    def _scope(self, scope: tuple[str, ...], items: Sequence[tuple[tuple[str, ...], Node | Value]]) -> None:
        """What lies directly in a scope, then the scopes in it."""
        inner: dict[tuple[str, ...], list[tuple[tuple[str, ...], Node | Value]]] = {}
        for place, item in items:
            if place == scope:
                self._item(item)
            else:
                inner.setdefault(place[: len(scope) + 1], []).append((place, item))
        drawn: set[str] = set()
        for deeper, found in inner.items():
            box = self.boxes.get(deeper[0])
            if box is None:
                with self.dot.cluster(deeper[-1]):
                    self._scope(deeper, found)
            elif box not in drawn:
                drawn.add(box)
                self.dot.node(f"box:{box}", label=label(box, notes=self._folded(box)), shape="box3d")

    def _folded(self, box: str) -> tuple[str, ...]:
        found = [layer for layer in self.layers if self.boxes.get(layer.scope) == box]
        count = f"{len(found)} layers, each" if len(found) > 1 else "a layer"
        return (f"{count} like {found[0].like}",)

    def _item(self, item: Node | Value) -> None:
        line = {"penwidth": "2", "group": "trunk"} if item.name in self.trunk else {}
        if isinstance(item, Value):
            shape, kind = SOURCE_SHAPES[item.role], f"{item.role} {item.type}"
            self.dot.node(item.name, label=label(item.name, notes=(kind,)), shape=shape, **line)
            return
        detail = item.name if scope_of(item) or item.name != item.op else ""
        notes = (attributes_text(item), *(f"{n} {v.name} {v.type}" for n, v in item.operands if _is_inside(v)))
        self.dot.node(item.name, label=label(item.op, detail, notes), fillcolor=COLOUR.get(item.op, "white"), **line)

    def _edges(self) -> Iterator[tuple[str, str, Value, bool]]:
        """Source, target, value, whether it belongs to the trunk; between two nodes at most once."""
        home = {node.name: self._home(node) for node in self.graph.nodes}
        home |= {v.name: self._home_of_source(v) for v in (*self.graph.inputs, *self.graph.kv)}
        found: dict[tuple[str, str, str], tuple[str, str, Value, bool]] = {}
        for node in self.graph.nodes:
            for value in node.inputs:
                ends = (home.get(value.name, ""), home[node.name])
                if ends[0] and ends[0] != ends[1]:
                    both = {value.name, node.name} <= self.trunk
                    found.setdefault((*ends, str(value.type)), (*ends, value, both))
        yield from found.values()
        for label_, value in self.graph.outputs.items():
            if value.name in home:
                yield home[value.name], f"output:{label_}", value, False

    def _home(self, node: Node) -> str:
        scope = scope_of(node)
        box = self.boxes.get(scope[0]) if scope else None
        return node.name if box is None else f"box:{box}"

    def _home_of_source(self, value: Value) -> str:
        users = self.graph.users.get(value.name, ())
        return value.name if len(users) != 1 or self._home(users[0]) == users[0].name else self._home(users[0])


def _is_inside(value: Value) -> bool:
    """Whether a value is drawn within its readers."""
    return value.role in ("param", "constant")


def _boxes(found: Sequence[Layer]) -> Mapping[str, str]:
    """For each scope that is folded the name of its box: neighbours like the same scope share one."""
    boxes: dict[str, str] = {}
    runs: list[list[Layer]] = []
    for before, layer in zip([None, *found], found, strict=False):
        if before is not None and layer.like and before.like == layer.like:
            runs[-1].append(layer)
        elif layer.like:
            runs.append([layer])
    for run in runs:
        name = run[0].scope if len(run) == 1 else f"{run[0].scope} .. {run[-1].scope}"
        boxes |= {layer.scope: name for layer in run}
    return boxes
