"""Lowering: what tasks a small graph becomes, rules chosen by capability."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dlavm.formats import FORMATS
from dlavm.graph import OPS, Builder, Graph
from dlavm.lower import lower, lowering_problems, missing_rules
from dlavm.lower.context import Context
from dlavm.lower.rules import RULES, Rule, rule, select
from dlavm.passes import QuantizeWeights
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from dlavm.target.layout import PackedWeights
from dlavm.task import Launch, Program, print_program, simplify, trace, verify, walk

NANO = load_target("v3", "nano")
Golden = Callable[[str, str], None]


def small_graph(hidden: int = 64, ffn: int = 96, ctx: int = 64, chunk: int = 40) -> Graph:
    """One block: attention with 4 heads over 2 kv heads, a gated MLP, a head."""
    b = Builder("small", ctx=ctx, chunk=chunk)
    ids = b.input("ids", (b.token,), "i32")
    x = b.embedding(ids, b.param("embed", (50, hidden)))
    h = b.rms_norm(x, b.param("gamma", (hidden,)), eps=1e-5)
    rotary = b.rotary(16)
    q = b.reshape(b.linear(h, b.param("q", (64, hidden))), shape=(b.token, 4, 16))
    k = b.reshape(b.linear(h, b.param("k", (32, hidden)), b.param("k_bias", (32,))), shape=(b.token, 2, 16))
    q, k = b.rope(q, rotary, rotary_dim=16), b.rope(k, rotary, rotary_dim=16)
    v = b.reshape(b.linear(h, b.param("v", (32, hidden))), shape=(b.token, 2, 16))
    keys = b.kv_append(b.kv("k_cache", (2, ctx, 16)), k)
    values = b.kv_append(b.kv("v_cache", (2, ctx, 16)), v)
    a = b.reshape(b.attention(q, keys, values, scale=0.25), shape=(b.token, 64))
    x = b.add(x, b.linear(a, b.param("o", (hidden, 64))))
    up = b.linear(x, b.param("up", (ffn, hidden)))
    gate = b.linear(x, b.param("gate", (ffn, hidden)), act="silu", aux=up, aux_mode="mul")
    x = b.linear(gate, b.param("down", (hidden, ffn)), aux=x, aux_mode="add")
    logits = b.linear(b.last_rows(x, count=b.head_rows), b.param("head", (50, hidden)))
    return QuantizeWeights()(b.finish(logits=logits, next=b.argmax(logits)))


def with_buffers(elements: int, accumulators: int) -> TargetSpec:
    board = replace(NANO.board, activation_elements=elements, accumulators=accumulators)
    return replace(NANO, board=board)


@pytest.mark.parametrize(("name", "spec"), [("nano", NANO), ("tiny_buffers", with_buffers(256, 256)),
                                            ("k_tiles", with_buffers(128, 64))])
def test_task_text(name: str, spec: TargetSpec, golden: Golden) -> None:
    lowered = lower(small_graph(hidden=256, ffn=160), spec)
    verify(lowered.program, spec)
    golden(f"lower/{name}.txt", print_program(lowered.program, spec))


def test_contents_name_every_constant_buffer() -> None:
    lowered = lower(small_graph(), NANO)
    constant = {b.name for b in lowered.program.buffers if b.role in ("weights", "tables")}
    assert constant == set(lowered.contents)
    assert set(lowered.kv) == {"k_cache", "v_cache"} and set(lowered.outputs) == {"logits", "next"}


def test_weights_of_experts() -> None:
    """One buffer of as many packed matrices as there are experts, each param in its own format."""
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 32)))
    gate, up = (b.stacked_param(n, (3, 48, 32), [f"{n}.{i}" for i in range(3)]) for n in ("gate", "up"))
    down = b.stacked_param("down", (3, 32, 48), [f"down.{i}" for i in range(3)])
    routes = b.linear(x, b.param("router", (3, 32)))
    made = b.finish(x=b.moe(x, routes, gate, up, down, top_k=2, act="silu"))
    graph = QuantizeWeights("mxfp4", (("down.*", "int8g32"), ("gate.1", "mxfp4")))(made)
    context = Context(graph, NANO)
    node = next(node for node in graph.nodes if node.op == "moe")
    for operand, form, n, k in (("gate", "mxfp4", 48, 32), ("up", "mxfp4", 48, 32), ("down", "int8g32", 32, 48)):
        base, packed = context.weights(node[operand], node)
        assert packed == PackedWeights(NANO.space("weights"), n, k, FORMATS[form])
        content = context.contents[operand]
        assert (content.kind, content.dims, content.count) == ("packed", (n, k), 3)
        assert context.storage(operand, "weights", 0, "") == base
    program = context.tasks.finish()
    assert program.buffer["down"].bytes == 3 * PackedWeights(NANO.space("weights"), 32, 48, FORMATS["int8g32"]).bytes
    with pytest.raises(DlavmError, match="gate: expected one format for all .*'mxfp4' of gate.0, 'mxfp6' of gate.1"):
        QuantizeWeights("mxfp4", (("gate.1", "mxfp6"),))(made)


def test_buffers_too_small() -> None:
    with pytest.raises(DlavmError, match="buffers too small"):
        lower(small_graph(hidden=256), with_buffers(128, 8))
    with pytest.raises(DlavmError, match="2 query heads of 16 exceed the buffers of board nano"):
        lower(small_graph(), with_buffers(8192, 32))


def test_unquantised_weight_is_named() -> None:
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 32)))
    with b.scope("layer 7"):
        x = b.linear(x, b.param("layer7.w", (8, 32)))
    with pytest.raises(DlavmError, match="layer 7 / w: weight layer7.w: v3 expected one of .*, mxint8, got 'f16'"):
        lower(b.finish(logits=x), NANO)


def test_heads_that_do_not_start_on_16_bytes() -> None:
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 20)))
    with pytest.raises(DlavmError, match="heads of a multiple of 8 elements, got 5"):
        lower(b.finish(logits=b.reshape(x, shape=(b.token, 4, 5))), NANO)


def test_what_a_target_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(NANO, capabilities=NANO.capabilities - {"int4g128", "kv_fp16", "kv_mxint8"})
    with pytest.raises(DlavmError, match="weight q: v3 expected one of int4g32, .*, got 'int4g128'"):
        lower(small_graph(), bare)
    places = [where for where, _ in lowering_problems(small_graph(), bare)[0]]
    assert "q" in places and "attention" in places and len(places) > 5
    assert missing_rules(["linear", "rope", "attention"], bare) == ["attention"]
    bytes_only = replace(NANO, capabilities=NANO.capabilities - {"kv_fp16"})
    assert missing_rules(list(OPS), bytes_only) == missing_rules(list(OPS), NANO)
    found = lowering_problems(small_graph(), bytes_only)[0]
    assert [where for where, _ in found] == ["kv_append", "kv_append", "attention"]
    assert found[2][1].endswith("cache k_cache: v3 expected one of mxint8, got 'fp16'")
    assert set(missing_rules(list(OPS), load_target("v1"))) == {"moe", "permute"}


def one_attention(ctx: int = 300, chunk: int = 40, **attrs: float) -> Graph:
    """Two heads of 16 that share their keys, over embeddings."""
    b = Builder("one", ctx=ctx, chunk=chunk)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 32)))
    keys, values = (b.kv_append(b.kv(name, (1, ctx, 16)), b.reshape(b.slice(x, start=0, size=16),
                                                                    shape=(b.token, 1, 16))) for name in "kv")
    q = b.reshape(x, shape=(b.token, 2, 16))
    return b.finish(x=b.reshape(b.attention(q, keys, values, scale=1.0, **attrs), shape=(b.token, 32)))


@pytest.mark.parametrize("window", [1, 32, 33, 229, 300, 0])
@pytest.mark.parametrize("target", ["v1", "v3"])
def test_scores_of_a_window_fit_their_rows(target: str, window: int) -> None:
    """No column past the row's end, and no block left out in front that a token of the tile sees."""
    program = lower(one_attention(window=window), load_target(target, "nano")).program
    row = program.buffer["attention.scores"].shape_text.split(",")[-1]
    columns, tile = int(row.rstrip("]")), 32 if target == "v3" else 1
    assert columns == (min(300, window + tile + 30) if 0 < window < 300 else 300)
    base = {b.name: 1 << 20 if b.role == "kv" else 0 for b in program.buffers}
    for token in (1, 40):
        for kv_len in (n for n in (0, 30, 31, 32, 95, window, window + 30, window + 31, 260) if n + token <= 300):
            commands = list(trace(program, {"token": token, "kv_len": kv_len, "head_rows": 1, "kv_base": 0}, base))
            starts = [kv_len + t for t in range(0, token, tile)]
            softmaxes = [i.fields for i in commands if i.op == "SOFTMAX"]
            scores = [i.fields for i in commands if i.op == "LINEAR" and "use_scale" in i.fields]
            for f, s, start in zip(softmaxes, scores, starts, strict=True):
                skipped = start + 1 - int(f["visible"])
                assert skipped % 32 == 0 and 0 <= skipped <= max(0, start + 1 - (window or 300))
                assert f["width"] == s["n"] <= columns and s["wgt"] == (1 << 16) + skipped // 32 * 128
                assert f["width"] == f["visible"] + f["rows_o"] - 1


def test_slopes_and_caps_are_constants_that_layers_share() -> None:
    lowered = lower(one_attention(alibi=8.0, alibi_scale=0.5, softcap=30.0), NANO)
    verify(lowered.program, NANO)
    assert lowered.contents["alibi.2.8.0.0.5"].values == (2.0**-5, 2.0**-9)
    assert lowered.contents["table.softcap_30.0"].name == "softcap(30.0)"
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 32)))
    for fn in ("softcap(1.0)", "softcap(2.0)", "tanh", "silu", "relu"):
        x = b.act(x, fn=fn)
    with pytest.raises(DlavmError, match=r"activation 'relu' is one too many, v3 holds 4 tables"):
        lower(b.finish(x=x), NANO)


def test_positions_and_permutations() -> None:
    def graph(positions: int) -> Graph:
        b = Builder("m", ctx=8, chunk=4)
        x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 32)))
        x = b.add_positions(x, b.param("positions", (positions, 32)))
        return b.finish(x=b.permute(x, b.param("order", (32,), "i32")))

    made = lower(graph(8), load_target("v2", "nano"))
    assert (made.contents["order"].kind, made.program.buffer["order"].bytes) == ("index", 128)
    with pytest.raises(DlavmError, match="table expected at least 8 positions, got 7"):
        lower(graph(7), NANO)
    with pytest.raises(DlavmError, match="op permute cannot be compiled for v1: every rule needs one of: permute"):
        lower(graph(8), load_target("v1", "nano"))


def test_what_is_left_to_the_host() -> None:
    """Without gather and argmax the host takes embedding rows by the ids, and finds the largest logit."""
    made = lower(small_graph(), load_target("v1", "nano"))
    source = made.inputs["ids"]
    assert (source.table, made.program.buffer[source.buffer].role) == ("embed", "input")
    assert set(made.outputs) == {"logits"} and "embed" not in made.contents
    assert all(stmt.fields["rows_o"].hi == 1 for stmt in linears(made.program))
    b = Builder("p", ctx=8, chunk=2)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("e", (9, 32)))
    with pytest.raises(DlavmError, match="argmax to the host: expected an output, of an output"):
        lower(b.finish(next=b.argmax(x)), load_target("v1", "nano"))


def linears(program: Program) -> list[Launch]:
    return [stmt for _, stmt in walk(simplify(program)) if isinstance(stmt, Launch) and stmt.op == "LINEAR"]


def test_the_most_specific_rule_wins_and_a_tie_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlavm.lower.rules.RULES", list(RULES))
    from dlavm.lower import rules

    special = rule("rope", "scalars")(lambda context, node: None)
    assert select("rope", NANO).emit is special
    assert select("rope", load_target("v1")).emit is not special
    rules.RULES.append(Rule("rope", frozenset({"loops"}), lambda context, node: None))
    with pytest.raises(DlavmError, match="a tie between needs"):
        select("rope", NANO)
