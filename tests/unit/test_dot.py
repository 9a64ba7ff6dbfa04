"""Graphviz text: the golden drawings, and a reader of the DOT language that every drawing must pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lark import Lark, Transformer

from dlavm.graph import OPS, Graph, Node, Type, Value, parse_graph
from dlavm.sym import Var
from dlavm.task import parse_program
from dlavm.view.dot import Dot, label, quote
from dlavm.view.graph_dot import COLOUR, graph_dot
from dlavm.view.task_dot import task_dot
from dlavm.view.task_flow import edges
from tests.unit.view_examples import GRAPH, ODD, SPEC, TASKS, small_graph, small_program

DOT = Lark(
    r"""
start: "digraph" id body
body: "{" (statement)* "}"
?statement: "subgraph" id body -> cluster
    | id attributes? ";" -> node
    | id "->" id attributes? ";" -> edge
attributes: "[" attribute ("," attribute)* "]"
attribute: id "=" (id | HTML)
id: WORD | QUOTED
WORD: /[A-Za-z_][A-Za-z_0-9]*/
QUOTED: /"(\\.|[^"\\])*"/s
HTML: /<(?:[^<>]|<[^<>]*>)*>/
%ignore /\s+/
""",
    parser="lalr",
)


@dataclass
class Drawing:
    """What a reader of DOT finds: nodes and edges by name with their attributes, labels of the clusters."""

    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    edges: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    inside: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Names(Transformer[Any, Any]):
    def id(self, items: list[Any]) -> str:
        text = str(items[0])
        return unescaped(text[1:-1]) if text.startswith('"') else text

    def attribute(self, items: list[Any]) -> tuple[str, str]:
        return str(items[0]), str(items[1])

    def attributes(self, items: list[Any]) -> dict[str, str]:
        return dict(items)


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), text, flags=re.DOTALL)


def read(text: str) -> Drawing:
    """Raises for what is no DOT, for an edge to a node that is not declared, for a label that is no XML."""
    drawing = Drawing()
    _collect(Names().transform(DOT.parse(text)).children[1], drawing, ())
    for source, target, _ in drawing.edges:
        assert {source, target} <= set(drawing.nodes)
    for attributes in drawing.nodes.values():
        if attributes["label"].startswith("<"):
            ElementTree.fromstring(f"<label>{attributes['label'][1:-1]}</label>")
    return drawing


def _collect(body: Any, drawing: Drawing, clusters: tuple[str, ...]) -> None:
    for statement in body.children:
        kind, items = statement.data, statement.children
        if kind == "cluster":
            title = items[1].children[0].children[1].get("label", "")
            drawing.clusters.append(title)
            _collect(items[1], drawing, (*clusters, title))
        elif kind == "edge":
            drawing.edges.append((items[0], items[1], items[2] if len(items) > 2 else {}))
        elif items[0] not in ("graph", "node", "edge"):
            assert items[0] not in drawing.nodes, "declared twice"
            drawing.nodes[items[0]] = items[1]
            drawing.inside[items[0]] = clusters


def shown(attributes: dict[str, str]) -> str:
    """The text of a label."""
    text = attributes["label"]
    return "".join(ElementTree.fromstring(f"<l>{text[1:-1]}</l>").itertext()) if text.startswith("<") else text


def ends(drawing: Drawing) -> set[tuple[str, str]]:
    return {(source, target) for source, target, _ in drawing.edges}


def test_graph(golden: Callable[[str, str], None]) -> None:
    text = graph_dot(small_graph())
    golden("view/graph.dot", text)
    drawing = read(text)
    assert drawing.clusters == ["layer 0", "layer 1", "heads", "deep"]
    assert drawing.inside["h"] == ("heads", "deep")
    assert drawing.inside["cache"] == ("heads",)  # beside its only reader
    assert drawing.inside["n"] == ()
    values = {"x", "cache", "n", "l0.y", "l1.y", "h", "r", "new"}
    assert set(drawing.nodes) == values | {"output:logits", "output:heads"}
    assert ends(drawing) == {
        ("x", "n"), ("n", "l0.y"), ("x", "l0.y"), ("l0.y", "l1.y"), ("l1.y", "h"), ("h", "r"), ("r", "new"),
        ("cache", "new"), ("l1.y", "output:logits"), ("r", "output:heads")}  # fmt: skip
    labels = {(source, target): a["label"] for source, target, a in drawing.edges}
    assert labels["h", "r"] == "f16[token, 1, 32]"
    assert "w w0 int4g128[32, 32]" in shown(drawing.nodes["l0.y"])
    assert 'act="silu"' in shown(drawing.nodes["l0.y"])


def test_the_trunk_is_bold() -> None:
    drawing = read(graph_dot(small_graph()))
    bold = {name for name, attributes in drawing.nodes.items() if attributes.get("group") == "trunk"}
    assert bold == {"x", "l0.y", "l1.y"}
    assert {(s, t) for s, t, a in drawing.edges if "penwidth" in a} == {("x", "l0.y"), ("l0.y", "l1.y")}


def test_equal_layers_fold() -> None:
    graph = parse_graph(GRAPH.replace("linear(%n, %w0", "linear(%x, %w0"))
    drawing = read(graph_dot(graph, fold=True))
    assert "box:layer 1" in drawing.nodes and "l1.y" not in drawing.nodes
    assert "a layer like layer 0" in shown(drawing.nodes["box:layer 1"])
    assert {("l0.y", "box:layer 1"), ("box:layer 1", "h"), ("box:layer 1", "output:logits")} <= ends(drawing)
    assert drawing.clusters == ["layer 0", "heads", "deep"]


def test_many_layers_fold_into_one_box() -> None:
    lines = [f"%v{i + 1} = copy(%v{i}) : f16[4] @ \"layer {i} / copy\"" for i in range(32)]
    graph = parse_graph("\n".join(["graph g", "input %v0 : f16[4]", *lines, "output y = %v32"]))
    assert len(read(graph_dot(graph)).clusters) == 32
    folded = read(graph_dot(graph, fold=True))
    assert set(folded.nodes) == {"v0", "v1", "box:layer 1 .. layer 31", "output:y"}
    assert len(folded.edges) == 3
    assert "31 layers, each like layer 0" in shown(folded.nodes["box:layer 1 .. layer 31"])


def test_colours_are_of_ops() -> None:
    assert set(COLOUR) <= set(OPS)


def test_tasks(golden: Callable[[str, str], None]) -> None:
    text = task_dot(small_program(), SPEC)
    golden("view/task.dot", text)
    drawing = read(text)
    assert drawing.clusters == ["for layer in 4", "if lt(kv_len, 16)", "function finish"]
    assert drawing.inside["at 0.1.1.0"] == ("for layer in 4", "if lt(kv_len, 16)")
    assert drawing.inside["@cache"] == ("for layer in 4", "if lt(kv_len, 16)")
    assert drawing.inside["@out"] == ()  # two functions write it
    kinds = {(source, target): a.get("style") for source, target, a in drawing.edges}
    assert kinds["at 0.0", "at 0.1.0"] is None
    assert kinds["at 0.1.2", "at 0.1.0"] == "dashed"  # x of the turn before
    assert kinds["at 0.1.2", "at 1.0"] is None  # into the function that is called
    assert ("@ids", "at 0.0") in kinds and ("at 0.2", "@out") in kinds and ("at 0.1.1.0", "@cache") in kinds
    assert ("at 0.0", "at 0.2") not in kinds  # four turns write x anew
    assert "weights w" in shown(drawing.nodes["at 0.1.0"])
    assert "format=int4g128" in shown(drawing.nodes["at 0.1.0"])


def test_a_loop_that_may_not_run_leaves_what_was() -> None:
    program = parse_program(TASKS.replace("for layer in 4", "for layer in kv_len"), SPEC)
    assert ((0, 0), (0, 2)) in {(edge.source, edge.target) for edge in edges(program, SPEC)}


def test_odd_names_in_a_graph() -> None:
    shape = Type.of((Var("token", 1, 8), 16), "f16")
    x, y = Value(ODD, shape, "input"), Value("y\\", shape, "activation")
    w = Value('w"\\', Type.of((16, 16), "f16"), "param", "w")
    node = Node("linear", (("x", x), ("w", w)), OPS["linear"].complete_attrs({}, ""), (y,), f"{ODD} / q")
    drawing = read(graph_dot(Graph('g"\\', inputs=(x,), params=(w,), nodes=(node,), outputs={ODD: y})))
    visible = ODD.replace("\x00", "\\x00").replace("\x1f", "\\x1f").replace("\x7f", "\\x7f")
    assert drawing.clusters == [visible]
    assert set(drawing.nodes) == {visible, "y\\", f"output:{visible}"}
    assert ends(drawing) == {(visible, "y\\"), ("y\\", f"output:{visible}")}


def test_odd_places_in_tasks() -> None:
    program = parse_program('program p()\nbuffer x: kv 16 bytes f16[8]\nlaunch NOSUCH src=@x  # a "b" \\N <c> & d\n')
    drawing = read(task_dot(program, SPEC))
    assert shown(drawing.nodes["at 0.0"]).replace("\u200b", "") == 'NOSUCH a "b" \\N <c> & d'


def test_a_title_is_not_taken_for_markup() -> None:
    dot = Dot("x", "<<b>no</b>>")
    dot.node("a", label=label("<b>&"))
    text = dot.text()
    assert '"<<b>no</b>>"' in text
    assert shown(read(text).nodes["a"]) == "<b>&"


@given(st.text())
def test_any_text_can_be_a_name(text: str) -> None:
    dot = Dot(text, text)
    with dot.cluster(text):
        dot.node(text, label=label(text, text, (text,)))
    dot.edge(text, text, label=text)
    drawing = read(dot.text())
    assert len(drawing.nodes) == 1 and len(drawing.edges) == 1
    if text.isprintable():
        assert set(drawing.nodes) == {text}


def test_quote() -> None:
    assert quote('a"b\\c\nd\te') == '"a\\"b\\\\c\\nd\\\\te"'


@pytest.mark.parametrize("text", ["digraph x {", 'digraph x { "a" -> "b; }', "digraph x { a [label=<<b>]; }"])
def test_the_reader_refuses(text: str) -> None:
    with pytest.raises(Exception, match=r"."):
        read(text)
