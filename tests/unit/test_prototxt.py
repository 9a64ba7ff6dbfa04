"""Caffe's text form: parsed with protobuf's own reader and a schema like Caffe's, then compared with the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import given
from hypothesis import strategies as st

from dlavm.graph import OPS, Graph, Node, Type, Value
from dlavm.task import parse_program
from dlavm.view.prototxt import BLOCK, Layer, graph_prototxt, layers_text, task_prototxt
from tests.unit.view_examples import ODD, SPEC, small_graph, small_program

KINDS = descriptor_pb2.FieldDescriptorProto
SCHEMA = {
    "BlobShape": {"dim": (1, "repeated", "int64")},
    "BlobProto": {"shape": (7, "optional", "BlobShape")},
    "InputParameter": {"shape": (1, "repeated", "BlobShape")},
    "LayerParameter": {
        "name": (1, "optional", "string"), "type": (2, "optional", "string"), "bottom": (3, "repeated", "string"),
        "top": (4, "repeated", "string"), "blobs": (7, "repeated", "BlobProto"),
        "input_param": (143, "optional", "InputParameter"), BLOCK: (999, "optional", "Ours")},
    "NetParameter": {"name": (1, "optional", "string"), "layer": (100, "repeated", "LayerParameter")},
}  # fmt: skip


def read(text: str, params: dict[str, str]) -> Any:
    """The network of a text; `params` has the types of the attributes. Raises for what is not in the schema."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe_like.proto", package="caffe", syntax="proto2")
    ours = {name: (i, "optional", kind) for i, (name, kind) in enumerate(params.items(), 1)}
    for message, fields in {**SCHEMA, "Ours": ours}.items():
        entry = file.message_type.add(name=message)
        for name, (number, rule, kind) in fields.items():
            one = entry.field.add(name=name, number=number, label=getattr(KINDS, f"LABEL_{rule.upper()}"))
            if kind[0].isupper():
                one.type, one.type_name = KINDS.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                one.type = getattr(KINDS, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))()
    return text_format.Parse(text, net)


GRAPH_PARAMS = {
    "gamma": "string", "eps": "double", "w": "string", "act": "string", "aux_mode": "string", "shape": "string",
    "table": "string", "rotary_dim": "int64", "operands": "string", "result": "string", "where": "string"}  # fmt: skip
NUMBERS = ("k", "n", "batch", "rows_i", "dim", "table_so", "src_so", "dst_so", "b_so", "limit", "bytes")
TEXTS = ("ids", "table", "src", "dst", "b", "wgt", "cache", "rows_o", "pos", "format", "fn", "where", "inside")
TASK_PARAMS = dict.fromkeys(NUMBERS, "int64") | dict.fromkeys(TEXTS, "string")


def test_graph(golden: Callable[[str, str], None]) -> None:
    graph = small_graph()
    text = graph_prototxt(graph)
    golden("view/graph.prototxt", text)
    net = read(text, GRAPH_PARAMS)
    assert net.name == "small"
    inputs = [layer for layer in net.layer if layer.type == "Input"]
    assert [(i.name, list(i.top), list(i.input_param.shape[0].dim)) for i in inputs] == [
        ("x", ["x"], [8, 32]),
        ("cache", ["cache"], [1, 32, 32]),
    ]
    nodes = [layer for layer in net.layer if layer.type != "Input"]
    assert [(n.name, n.type) for n in nodes] == [(node.name, node.op) for node in graph.nodes]
    for layer, node in zip(nodes, graph.nodes, strict=True):
        flowing = [v.name for v in node.inputs if v.role not in ("param", "constant")]
        assert (list(layer.bottom), list(layer.top)) == (flowing, [node.name])
        assert getattr(layer, BLOCK).result == str(node.output.type)
    first = getattr(nodes[1], BLOCK)
    assert (first.w, first.act, first.operands) == ("w0 int4g128[32, 32]", "silu", "x aux")
    assert list(nodes[1].blobs[0].shape.dim) == [32, 32]
    assert getattr(nodes[0], BLOCK).eps == 1e-5


def test_every_bottom_is_a_top_before_it() -> None:
    for text, params in ((graph_prototxt(small_graph()), GRAPH_PARAMS),
                         (task_prototxt(small_program(), SPEC), TASK_PARAMS)):
        seen: set[str] = set()
        for layer in read(text, params).layer:
            assert set(layer.bottom) <= seen
            seen |= set(layer.top)


def test_tasks(golden: Callable[[str, str], None]) -> None:
    text = task_prototxt(small_program(), SPEC)
    golden("view/task.prototxt", text)
    net = read(text, TASK_PARAMS)
    assert [layer.type for layer in net.layer] == [
        "Input", "Input", "GATHER", "LINEAR", "KV_APPEND", "ELTWISE", "copy", "COPY"]  # fmt: skip
    assert len({layer.name for layer in net.layer}) == len(net.layer)
    append = next(layer for layer in net.layer if layer.type == "KV_APPEND")
    assert (list(append.bottom), list(append.top)) == (["y"], ["cache"])
    assert getattr(append, BLOCK).inside == "for layer in 4; if lt(kv_len, 16)"
    assert getattr(net.layer[3], BLOCK).format == "int4g128"
    assert getattr(net.layer[3], BLOCK).wgt == "@w + 128 * layer"


def test_odd_names() -> None:
    shape = Type.of((4,), "f16")
    x, y = Value(ODD, shape, "input"), Value("y\\", shape, "activation")
    node = Node("copy", (("x", x),), OPS["copy"].complete_attrs({}, ""), (y,), ODD)
    net = read(graph_prototxt(Graph('g"\\', inputs=(x,), nodes=(node,), outputs={"y": y})), GRAPH_PARAMS)
    assert net.name == 'g"\\'
    assert (net.layer[0].name, list(net.layer[1].bottom), net.layer[1].name) == (ODD, [ODD], "y\\")
    assert getattr(net.layer[1], BLOCK).where == ODD


def test_an_unknown_command() -> None:
    program = parse_program("program p()\nbuffer x: kv 16 bytes f16[8]\nlaunch NOSUCH src=@x\n")
    net = read(task_prototxt(program, SPEC), {"src": "string"})
    assert [layer.name for layer in net.layer] == ["x", "0.0"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text(text: str) -> None:
    net = read(layers_text(text, [Layer(text, text, (text,), (text,), (("where", text),))]), {"where": "string"})
    layer = net.layer[0]
    assert [net.name, layer.name, layer.type, *layer.bottom, *layer.top, getattr(layer, BLOCK).where] == [text] * 6


@given(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False))
def test_any_number(flag: bool, whole: int, real: float) -> None:
    text = layers_text("n", [Layer("l", "t", params=(("flag", flag), ("whole", whole), ("real", real)))])
    found = getattr(read(text, {"flag": "bool", "whole": "int64", "real": "double"}).layer[0], BLOCK)
    assert (found.flag, found.whole, found.real) == (flag, whole, real)


def test_the_reader_refuses_what_caffe_does_not_know() -> None:
    with pytest.raises(text_format.ParseError):
        read('layer { name: "x" colour: "red" }', {})
    with pytest.raises(text_format.ParseError):
        read('layer { name: "x', {})
