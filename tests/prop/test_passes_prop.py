"""Random graphs: passes keep the meaning and verify, the text form comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.graph import Builder, Graph, Value, evaluate, new_state, parse_graph, print_graph, verify
from dlavm.passes import Cse, Dce, FuseEpilogue, Pass, QuantizeWeights

DIM, CTX = 4, 8
PASSES: list[Pass] = [Dce(), Cse(), FuseEpilogue(), QuantizeWeights()]
OPS = ["linear", "linear", "linear", "linear_bias", "rms_norm", "act", "scale", "add", "mul", "add_row", "cache"]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    b = Builder("random", ctx=CTX, chunk=4)
    values = [b.input("x", (b.token, DIM), "f16")]
    weights = [b.param(f"w{i}", (DIM, DIM)) for i in range(2)]
    rows = [b.param(f"r{i}", (DIM,)) for i in range(2)]
    caches = {"k": b.kv("k", (1, CTX, DIM))}
    for _ in range(draw(st.integers(1, 10))):
        x = values[-draw(st.sampled_from([1, 1, 1, 1, 2]))] if len(values) > 1 else values[0]  # mostly a chain
        values.append(step(draw, b, x, draw(st.sampled_from(values)), weights, rows, caches))
    chosen = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))
    return b.finish(**{f"y{i}": value for i, value in enumerate(chosen)})


def step(
    draw: st.DrawFn, b: Builder, x: Value, y: Value, weights: list[Value], rows: list[Value], caches: dict[str, Value]
) -> Value:
    w, r = draw(st.sampled_from(weights)), draw(st.sampled_from(rows))
    op = draw(st.sampled_from(OPS))
    if op == "cache":
        heads = b.reshape(x, shape=(b.token, 1, DIM))
        caches["k"] = b.kv_append(caches["k"], heads)
        return b.reshape(b.attention(heads, caches["k"], caches["k"], scale=0.5), shape=(b.token, DIM))
    calls: dict[str, Any] = {
        "linear": lambda: b.linear(x, w),
        "linear_bias": lambda: b.linear(x, w, r, act=draw(st.sampled_from(["none", "tanh"]))),
        "rms_norm": lambda: b.rms_norm(x, r, eps=0.5),
        "act": lambda: b.act(x, fn=draw(st.sampled_from(["silu", "tanh", "relu"]))),
        "scale": lambda: b.scale(x, value=draw(st.sampled_from([0.5, -1.5]))),
        "add": lambda: b.add(x, y),
        "mul": lambda: b.mul(x, y),
        "add_row": lambda: b.add(x, r),
    }
    made: Value = calls[op]()
    return made


@settings(max_examples=300)
@given(graphs(), st.permutations(PASSES))
def test_passes_keep_the_meaning(graph: Graph, passes: list[Pass]) -> None:
    rng = np.random.default_rng(1)
    params = {p.name: rng.standard_normal([int(e) for e in p.type.shape]).astype(np.float32) / 2 for p in graph.params}
    inputs: dict[str, Any] = {"x": rng.standard_normal((3, DIM)).astype(np.float32), "kv_len": 2}
    state = new_state(graph)
    expected = evaluate(graph, params, inputs, state)
    for pass_ in passes:
        graph = pass_(graph)
        verify(graph)
        after_state = new_state(graph)
        after = evaluate(graph, params, inputs, after_state)
        for label, array in expected.items():
            np.testing.assert_allclose(after[label], array, rtol=1e-5, atol=1e-6, err_msg=pass_.name)
        np.testing.assert_allclose(after_state["k"], state["k"], rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(graphs())
def test_text_comes_back(graph: Graph) -> None:
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text
