"""Graphs: builder, verifier, text form, evaluator's refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlavm.frontend.families import shape
from dlavm.graph import Builder, Graph, Node, Type, Value, evaluate, new_state, parse_graph, print_graph, verify
from dlavm.support.errors import DlavmError

TINY = """graph tiny
var token in [1, 4]
var kv_len in [0, 7]
var head_rows in [0, 4]
meta note = {"a": [1, null, "x y"]}
meta ctx = 8
input %ids : i32[token]
param %embed : f16[10, 4]
param %head : int4g128[10, 4] from %embed
constant %rotary : f16[8, 2] = rotary(ctx=8, dim=2, theta=10000.0)
kv %k : f16[1, 8, 4]
%x = embedding(%ids, %embed) : f16[token, 4] @ "layer \\"0\\""
%x3 = reshape(%x) {shape=[token, 1, 4]} : f16[token, 1, 4]
%r = rope(%x3, %rotary) {rotary_dim=2, interleaved=true} : f16[token, 1, 4]
%k.new = kv_append(%k, %r) : f16[1, 8, 4]
%a = attention(%r, %k.new, %k.new) {scale=1e-05} : f16[token, 1, 4]
%h = reshape(%a) {shape=[token, 4]} : f16[token, 4]
%l = last_rows(%h) {count=head_rows} : f16[head_rows, 4]
%y = linear(%l, %head, bias=%b) {act="silu"} : f16[head_rows, 10]
%z = add(%y, %y) : f16[head_rows, 10]
output logits = %z
"""
TINY = TINY.replace("kv %k", "param %b : f16[10]\nkv %k", 1)


def canonical(text: str) -> str:
    return print_graph(parse_graph(text))


def llama(layers: int = 2, **changes: Any) -> Graph:
    sizes: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu", "tie_word_embeddings": True,
        "attention_bias": True, "mlp_bias": True,
    }  # fmt: skip
    return shape("llama", **{**sizes, **changes}).graph("llama", ctx=32, chunk=8)


def weights(graph: Graph) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {p.source: rng.standard_normal([int(e) for e in p.type.shape]).astype(np.float32) / 4 for p in graph.params}


def test_text_round_trip_keeps_every_part() -> None:
    text = canonical(TINY)
    assert canonical(text) == text
    # Sources are printed by kind; apart from that the text comes back as it was.
    assert sorted(text.splitlines()) == sorted(TINY.splitlines())
    graph = parse_graph(TINY)
    assert graph.meta["note"] == {"a": [1, None, "x y"]}
    assert graph.nodes[0].where == 'layer "0"'
    assert graph.params[1].source == "embed" and graph.params[1].type.dtype == "int4g128"


def test_text_of_a_model_round_trips() -> None:
    text = print_graph(llama())
    assert canonical(text) == text


def test_comments_and_blank_lines_are_read() -> None:
    assert canonical("\n# a comment\n\n" + TINY.replace("input", "\n  # another\ninput")) == canonical(TINY)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("%x3 = reshape(%x)", "%x3 = reshape(%x", r"bad syntax at line \d+, column \d+, got '%x3 = reshape"),
        ("reshape(%x)", "reshpae(%x)", r"op of %x3 expected one of .* got 'reshpae'"),
        ("embedding(%ids", "embedding(%idz", r"expected a value defined earlier, got 'idz'"),
        ("%h = reshape(%a)", "%h = reshape(%a, %a)", r"expected 1 operands without a name, got '%a' too"),
        ("f16[token, 1, 4]\n%k.new", "f16[tokens, 1, 4]\n%k.new", r"unknown variable, got 'tokens'"),
        ("f16[token, 1, 4]\n%k.new", "f16[token, 1, 5]\n%k.new", r"type expected 'f16\[token, 1, 4\]', got"),
        ("%k : f16", "%k : f17", r"dtype expected one of .* got 'f17'"),
        ("%z", "%y", r"value y: expected unique names"),
        ("%z = add(%y, %y)", "%z = add(%y, b=%y)", ""),
        ("attention(%r, %k.new, %k.new)", "attention(%r, %k, %k.new)", r"newest value of k expected 'k.new', got 'k'"),
        ("kv_append(%k, %r)", "kv_append(%x, %r)", r"kv_append at k.new: cache expected .* 3 axes"),
        ("dim=2, theta", "dim=4, theta", ""),
        ("rotary(ctx=8,", "spiral(ctx=8,", r"generator expected one of \['rotary', .*'values'\], got 'spiral'"),
        ("rotary(ctx=8, dim=2,", "rotary(dim=2,", r"constant rotary: arguments expected"),
        ("meta ctx = 8", "meta ctx = eight", r"meta ctx expected JSON, got 'eight'"),
        ("= %z", "= %zz", r"output logits: expected a value defined earlier, got 'zz'"),
        ("bias=%b", "bias=%b, bios=%b", r"operands expected .* got 'bios'|order"),
    ],
)
def test_bad_text(old: str, new: str, message: str) -> None:
    assert old in TINY
    text = TINY.replace(old, new)
    if not message:
        parse_graph(text)
        return
    with pytest.raises(DlavmError, match=message):
        parse_graph(text)


def test_constant_of_another_shape_is_refused_when_computed() -> None:
    graph = parse_graph(TINY.replace("dim=2, theta", "dim=4, theta"))
    with pytest.raises(DlavmError, match=r"constant rotary: expected \[8, 4\] f16, got 'f16\[8, 2\]'"):
        evaluate(graph, {}, {"ids": np.zeros(1, int), "kv_len": 0}, new_state(graph))


def test_verifier_refuses_altered_graphs() -> None:
    graph = parse_graph(TINY)
    node = graph.nodes[0]
    other = Value("x", Type.of((3,), "f16"), "activation")
    renamed = replace(node, outputs=(Value("a b", node.output.type, "activation"),))
    unfinished = replace(node, attrs={"eps": 1.0})
    bad = [
        (replace(graph, nodes=graph.nodes[::-1]), r"expected a value defined earlier"),
        (replace(graph, outputs={"y": other}), r"x expected as defined Value"),
        (replace(graph, nodes=(renamed,)), r"name expected of letters"),
        (replace(graph, nodes=(unfinished,)), r"attributes among \[\], got 'eps'"),
        (replace(graph, nodes=(Node("nop", (), {}, (other,)),)), r"nop at x: op expected one of"),
        (replace(graph, inputs=graph.params), r"role expected 'input', got 'param'"),
        (replace(graph, params=(replace(graph.params[0], type=Type.of((0, 4), "f16")),)), r"extents expected at least"),
        (replace(graph, variables={}), r"shape expected only the graph's variables, got \['token'\]"),
    ]
    for broken, message in bad:
        with pytest.raises(DlavmError, match=message):
            verify(broken)


def test_producers_users_and_values() -> None:
    graph = parse_graph(TINY)
    assert graph.producers["x"].op == "embedding" and "ids" not in graph.producers
    assert [node.op for node in graph.users["r"]] == ["kv_append", "attention"]
    assert graph.values["k.new"].source == "k"
    assert graph.nodes[0]["table"].name == "embed" and graph.nodes[0].get("bias") is None
    with pytest.raises(DlavmError, match="expected an operand 'w'"):
        graph.nodes[0]["w"]


def test_builder_names_scopes_and_refusals() -> None:
    b = Builder("m", ctx=8, chunk=4)
    x = b.input("x", (b.token, 4), "f16")
    with b.scope("layer 1"), b.scope("mlp"):
        first, second = b.copy(x), b.copy(x)
    assert (first.name, second.name) == ("layer1.mlp.copy", "layer1.mlp.copy_2")
    taken = b.input("layer1.mlp.copy_3", (b.token, 4), "f16")
    with b.scope("layer 1"), b.scope("mlp"):
        assert b.copy(taken).name == "layer1.mlp.copy_4"
        assert b.copy(taken, name="copy_3").name == "layer1.mlp.copy_3_2"
    graph = b.finish(y=second)
    assert graph.nodes[1].where == "layer 1 / mlp / copy"
    with pytest.raises(DlavmError, match="unique names, got 'x' twice"):
        b.input("x", (1,), "f16")
    with pytest.raises(DlavmError, match="1 <= chunk <= ctx, got chunk=9, ctx=8"):
        Builder("m", ctx=8, chunk=9)
    with pytest.raises(DlavmError, match="dtype expected one of"):
        b.param("p", (1,), "float")


def test_chunks_and_single_tokens_give_the_same() -> None:
    graph = llama()
    params, ids = weights(graph), np.array([3, 1, 4, 1, 5])
    state = new_state(graph)
    whole = evaluate(graph, params, {"ids": ids, "kv_len": 0}, state)
    assert whole["logits"].shape == (5, 50) and whole["logits"].dtype == np.float32
    state = new_state(graph)
    for i, token in enumerate(ids):
        step = evaluate(graph, params, {"ids": np.array([token]), "kv_len": i, "head_rows": 1}, state)
        np.testing.assert_allclose(step["logits"][0], whole["logits"][i], rtol=1e-4, atol=1e-5)
    assert evaluate(graph, params, {"ids": ids[:1], "kv_len": 5, "head_rows": 0}, state)["next"].shape == (0,)


def test_evaluator_refusals() -> None:
    graph = llama()
    params, state = weights(graph), new_state(graph)
    ids = np.array([1, 2])
    bad: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
        (params, {"kv_len": 0}, state, r"inputs: expected 'ids'"),
        (params, {"ids": ids}, state, r"inputs: expected 'kv_len'"),
        (params, {"ids": ids[None], "kv_len": 0}, state, r"input ids: expected i32\[token\], got shape \[1, 2\]"),
        (params, {"ids": np.arange(9), "kv_len": 0}, state, r"token: expected .*, got 9"),
        (params, {"ids": ids, "kv_len": 31}, state, r"kv_len \+ token <= 32"),
        (params, {"ids": ids, "kv_len": 0, "head_rows": 3}, state, r"head_rows <= token"),
        (params, {"ids": ids, "kv_len": 0}, {}, r"state: expected 'layers.0.k'"),
        ({}, {"ids": ids, "kv_len": 0}, state, r"params: expected 'model.embed_tokens.weight'"),
        (
            {**params, "model.norm.weight": np.ones(3)},
            {"ids": ids, "kv_len": 0},
            state,
            r"expected shape \[16\], got \[3\]",
        ),
    ]
    for given, inputs, caches, message in bad:
        with pytest.raises(DlavmError, match=message):
            evaluate(graph, given, inputs, caches)


def test_a_deep_model_needs_no_recursion() -> None:
    graph = llama(layers=200)
    verify(graph)
    text = print_graph(graph)
    assert len(graph.nodes) > 3000
    assert print_graph(parse_graph(text)) == text


def test_one_token_models_fold_their_variable() -> None:
    b = Builder("one", ctx=4, chunk=1)
    x = b.input("x", (b.token, 2), "f16")
    graph = b.finish(y=b.copy(x))
    assert graph.inputs[0].type.shape == (1, 2)
    assert canonical(print_graph(graph)) == print_graph(graph)
    out = evaluate(graph, {}, {"x": np.ones((1, 2), np.float32), "kv_len": 3}, {})
    np.testing.assert_array_equal(out["y"], [[1, 1]])


PARTS = """graph parts
var token in [1, 8]
var kv_len in [0, 63]
var head_rows in [0, 8]
input %x : f16[token, 4]
param %qk.w : f16[5, 4] from %q.w[2], %k.w[3]
param %qk.b : f16[5] from %q.b[2], %k.b[3]
%y = linear(%x, %qk.w, bias=%qk.b) : f16[token, 5]
output y = %y
"""


def test_params_of_several_tensors() -> None:
    graph = parse_graph(PARTS)
    assert print_graph(graph) == PARTS
    assert graph.params[0].tensors == (("q.w", (2, 4)), ("k.w", (3, 4)))
    rng = np.random.default_rng(2)
    given = {t.name: rng.standard_normal(t.shape).astype(np.float32) for p in graph.params for t in p.tensors}
    x = rng.standard_normal((2, 4)).astype(np.float32)
    y = evaluate(graph, given, {"x": x, "kv_len": 0}, {})["y"]
    for name, part in (("q", y[:, :2]), ("k", y[:, 2:])):
        np.testing.assert_allclose(part, x @ given[f"{name}.w"].T + given[f"{name}.b"], rtol=1e-6)
    with pytest.raises(DlavmError, match="params: expected 'k.w', got"):
        evaluate(graph, {n: v for n, v in given.items() if n != "k.w"}, {"x": x, "kv_len": 0}, {})
    with pytest.raises(DlavmError, match=r"param qk.w: expected shape \[5, 4\], got \[6, 4\]"):
        evaluate(graph, {**given, "k.w": np.zeros((4, 4))}, {"x": x, "kv_len": 0}, {})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("%k.w[3]", "%k.w[2]"),
        ("%k.w[3]", "%k.w[3], %z[0]"),
        ("%q.w[2], %k.w[3]", "%q.w[6], %k.w[-1]"),
        ("[2], %k.b[3]", "[token]"),
    ],
)
def test_parts_that_are_not_the_rows(old: str, new: str) -> None:
    with pytest.raises(DlavmError, match="parts expected of a param alone|bad syntax|expected a constant"):
        parse_graph(PARTS.replace(old, new))
