"""The text form of random graphs: it prints the same again, and no part of the graph is lost."""

from __future__ import annotations

import math
import string
import struct
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.formats import FORMATS
from dlavm.graph import OPS, Constant, Graph, Node, Value, parse_graph, print_graph, verify
from dlavm.graph.opdef import LARGEST, SMALLEST
from dlavm.passes import FuseEpilogue, FuseHorizontal
from dlavm.target import load_target
from tests.conftest import examples
from tests.prop.lowerable_graphs import lowerable_graphs

LETTERS = string.ascii_letters + string.digits + "_"
PLACES = string.printable + "äß→\u2028\x00𝛼"


@st.composite
def decorated_graphs(draw: st.DrawFn) -> Graph:
    """Graphs with any names, places, numbers and configuration that a graph can have."""
    graph = draw(lowerable_graphs(formats=tuple(FORMATS)))
    passes = draw(st.sampled_from([(), (FuseEpilogue(), FuseHorizontal(load_target("v3").space("weights")))]))
    for pass_ in passes:
        graph = pass_(graph)
    rng = Random(draw(st.integers(0, 1 << 32)))
    graph = renamed(graph, {name: f"{word(rng, '.-')}{number}" for number, name in enumerate(graph.values)})
    nodes = []
    for node in graph.nodes:
        attrs = {name: number(rng, name, value) for name, value in node.attrs.items()}
        nodes.append(replace(node, where="".join(rng.choices(PLACES, k=rng.randrange(9))), attrs=attrs))
    meta = {**graph.meta, **{word(rng): json_value(rng) for _ in range(3)}}
    return replace(graph, name=word(rng, ".-"), nodes=tuple(nodes), meta=meta)


def word(rng: Random, also: str = "") -> str:
    return rng.choice(string.ascii_letters + "_") + "".join(rng.choices(LETTERS + also, k=rng.randrange(9)))


def any_float(rng: Random) -> float:
    """Any number but infinity and NaN, each pattern of bits as likely, or a small whole one."""
    (found,) = struct.unpack("<d", rng.randbytes(8))
    return rng.choice([found if math.isfinite(found) else 0.5, float(rng.randrange(-3, 4)), -0.0])


def number(rng: Random, name: str, value: Any) -> Any:
    """The attribute, or another one where any number may stand."""
    if not isinstance(value, float) or name in ("softcap", "alibi") or rng.random() < 0.5:
        return value
    found = any_float(rng)
    fits = found if abs(found) <= LARGEST else math.frexp(found)[0]  # a number of an op is a float32 on the device
    return max(abs(fits), SMALLEST) if name == "eps" else fits


def json_value(rng: Random, depth: int = 2) -> Any:
    text = "".join(rng.choices(PLACES, k=3))
    if depth and rng.random() < 0.5:
        inner = [json_value(rng, depth - 1) for _ in range(rng.randrange(3))]
        return rng.choice([inner, {f"{text}{i}": value for i, value in enumerate(inner)}])
    return rng.choice([None, True, False, text, any_float(rng), rng.randrange(-(10**20), 10**20)])


def renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with other names for its values; those of the checkpoint and the storage of caches follow."""
    caches = {value.name for value in graph.kv}

    def value(old: Value) -> Value:
        source = names[old.source] if old.role == "kv" and old.source in caches else old.source
        return replace(old, name=names[old.name], source=source)

    def node(old: Node) -> Node:
        operands = tuple((name, value(operand)) for name, operand in old.operands)
        return replace(old, operands=operands, outputs=tuple(map(value, old.outputs)))

    return replace(
        graph,
        inputs=tuple(map(value, graph.inputs)),
        params=tuple(map(value, graph.params)),
        constants=tuple(Constant(value(c.value), c.kind, c.args) for c in graph.constants),
        kv=tuple(map(value, graph.kv)),
        nodes=tuple(map(node, graph.nodes)),
        outputs={label: value(output) for label, output in graph.outputs.items()},
    )


def parts(graph: Graph) -> dict[str, Any]:
    """Everything that a graph is, for comparing."""
    nodes = [(n.op, n.operands, list(n.attrs.items()), n.outputs, n.where) for n in graph.nodes]
    return {**vars(replace(graph, nodes=())), "nodes": nodes}


@settings(max_examples=examples(60))
@given(decorated_graphs())
def test_a_graph_comes_back_from_its_text(graph: Graph) -> None:
    verify(graph)
    text = print_graph(graph)
    again = parse_graph(text)
    assert print_graph(again) == text
    assert parts(again) == parts(graph)


def test_every_op_is_met_but_few() -> None:
    """Those of `lowerable_graphs` and the ones left: what this property does not see."""
    seen: set[str] = set()

    @settings(max_examples=80, derandomize=True, database=None)
    @given(lowerable_graphs())
    def collect(graph: Graph) -> None:
        seen.update(node.op for node in graph.nodes)

    collect()
    assert set(OPS) - seen <= {"permute", "moe"}
