"""Analysis of graphs: dominators, components, depth, layers, what nothing depends on."""

from __future__ import annotations

import pytest

from dlavm.graph import Builder, Graph, parse_graph
from dlavm.graph.analysis import (
    chain,
    components,
    depths,
    dominators,
    layers,
    post_dominators,
    scope_of,
    trunk,
    unused,
)

BLOCKS = """graph blocks
var token in [1, 8]
input %x : f16[token, 4]
param %a : f16[4]
param %b : f16[4]
%one.n = rms_norm(%x, %a) {eps=1e-05} : f16[token, 4] @ "block 1 / norm"
%one.s = act(%one.n) {fn="silu"} : f16[token, 4] @ "block 1 / act"
%one.y = add(%x, %one.s) : f16[token, 4] @ "block 1 / add"
%two.n = rms_norm(%one.y, %b) {eps=1e-05} : f16[token, 4] @ "block 2 / norm"
%two.s = act(%two.n) {fn="silu"} : f16[token, 4] @ "block 2 / act"
%two.y = add(%one.y, %two.s) : f16[token, 4] @ "block 2 / add"
%three.n = rms_norm(%two.y, %b) {eps=1e-05} : f16[token, 4] @ "block 3 / norm"
%three.s = act(%three.n) {fn="relu"} : f16[token, 4] @ "block 3 / act"
%three.y = add(%two.y, %three.s) : f16[token, 4] @ "block 3 / add"
output y = %three.y
"""


@pytest.fixture
def blocks() -> Graph:
    return parse_graph(BLOCKS)


def test_trunk_is_what_everything_passes(blocks: Graph) -> None:
    assert trunk(blocks) == ["x", "one.y", "two.y", "three.y"]


def test_dominators(blocks: Graph) -> None:
    before = dominators(blocks)
    assert chain(before, "two.s") == ["two.s", "two.n", "one.y", "x"]
    assert before["one.y"] == "x"  # past the branch, not through it
    assert "x" not in before and "a" not in before  # an input; what depends on none


def test_post_dominators(blocks: Graph) -> None:
    behind = post_dominators(blocks)
    assert chain(behind, "one.n") == ["one.n", "one.s", "one.y", "two.y", "three.y"]
    assert behind["b"] == "three.y"  # two blocks read it
    assert behind["a"] == "one.n"
    assert "three.y" not in behind


def test_two_inputs_have_no_common_dominator() -> None:
    graph = parse_graph("graph g\ninput %x : f16[4]\ninput %y : f16[4]\n%z = add(%x, %y) : f16[4]\noutput z = %z\n")
    assert dominators(graph) == {}
    assert trunk(graph) == ["z"]


def test_depth_is_the_longest_way(blocks: Graph) -> None:
    deep = depths(blocks)
    assert deep["x"] == deep["b"] == 0
    assert deep["one.y"] == 3 and deep["three.y"] == 9


def test_layers_alike(blocks: Graph) -> None:
    found = [(layer.scope, layer.like, [node.name for node in layer.nodes]) for layer in layers(blocks)]
    assert found == [
        ("block 1", "", ["one.n", "one.s", "one.y"]),
        ("block 2", "block 1", ["two.n", "two.s", "two.y"]),
        ("block 3", "", ["three.n", "three.s", "three.y"]),  # another activation
    ]


def test_another_wiring_is_another_layer() -> None:
    text = BLOCKS.replace("%two.y = add(%one.y, %two.s)", "%two.y = add(%two.s, %one.y)")
    assert [layer.like for layer in layers(parse_graph(text))] == ["", "", ""]


def test_scopes_nest() -> None:
    graph = parse_graph('graph g\ninput %x : f16[4]\n%y = copy(%x) : f16[4] @ "a / b / c"\noutput y = %y\n')
    assert scope_of(graph.nodes[0]) == ("a", "b")
    assert [layer.scope for layer in layers(graph)] == ["a"]


def test_what_is_apart_is_a_component_and_unused() -> None:
    text = BLOCKS.replace("output", "%lost = act(%c) {fn=\"silu\"} : f16[4]\noutput")
    text = text.replace("input %x", "input %ids : i32[token]\ninput %x")
    graph = parse_graph(text.replace("param %b", "param %c : f16[4]\nparam %b"))
    assert unused(graph) == ["ids", "c", "lost"]
    apart = components(graph)
    assert [sorted(names) for names in apart[:1]] == [["ids"]]
    assert {"c", "lost"} in apart
    assert sum(len(names) for names in apart) == len(graph.values)


def test_a_cache_that_is_only_written_is_used() -> None:
    b = Builder("g", ctx=8, chunk=4)
    x = b.input("x", (b.token, 1, 32), "f16")
    b.kv_append(b.kv("k", (1, 8, 32)), x)
    assert unused(b.finish(x=x)) == []


def test_an_empty_graph() -> None:
    graph = parse_graph("graph empty\n")
    assert (trunk(graph), depths(graph), components(graph), unused(graph), layers(graph)) == ([], {}, [], [], [])
    assert dominators(graph) == post_dominators(graph) == {}


def test_a_thousand_layers_need_no_deep_recursion() -> None:
    lines = ["graph deep", "input %v0 : f16[4]"]
    lines += [f"%v{i + 1} = copy(%v{i}) : f16[4] @ \"layer {i} / copy\"" for i in range(3000)]
    graph = parse_graph("\n".join([*lines, "output y = %v3000"]))
    assert len(trunk(graph)) == 3001
    assert depths(graph)["v3000"] == 3000
    assert [layer.like for layer in layers(graph)] == ["", *["layer 0"] * 2999]
