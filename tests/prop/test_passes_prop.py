"""Random graphs: passes keep the meaning and verify, a second run changes nothing, the text form comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.graph import Builder, Graph, Value, evaluate, new_state, parse_graph, print_graph, verify
from dlavm.graph.constants import constant_args, constant_array, stored
from dlavm.graph.ir import Constant
from dlavm.passes import (
    Canonicalise,
    Cse,
    Dce,
    FoldConstants,
    FoldScale,
    FuseEpilogue,
    FuseHorizontal,
    LastTokens,
    MaterialiseViews,
    OrderForMemory,
    Pass,
    QuantizeCache,
    QuantizeWeights,
)
from dlavm.target import load_target
from tests.conftest import examples

NANO = load_target("v3", "nano")
DIM, CTX = 8, 8  # half a row tile of the board nano
PASSES: list[Pass] = [
    Canonicalise(), FoldConstants(), FoldScale(), Dce(), Cse(), LastTokens(), FuseEpilogue(), QuantizeWeights(),
    MaterialiseViews(), FuseHorizontal(NANO.space("weights")), OrderForMemory(NANO),
]  # fmt: skip
OPS = [
    "linear", "linear", "linear", "linear_bias", "linear_half", "rms_norm", "act", "scale", "add", "mul", "add_row",
    "add_constant", "reshape", "copy", "cache",
]  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    b = Builder("random", ctx=CTX, chunk=4)
    values = [b.input("x", (b.token, DIM), "f16")]
    made = _Maker(draw, b)
    for _ in range(draw(st.integers(1, 10))):
        x = values[-draw(st.sampled_from([1, 1, 1, 1, 2]))] if len(values) > 1 else values[0]  # mostly a chain
        values.append(made.step(x, draw(st.sampled_from(values))))
    chosen = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))
    graph = b.finish(**{f"y{i}": made.rows(value) for i, value in enumerate(chosen)})
    return replace(graph, constants=tuple(map(rounded, graph.constants)))


def rounded(constant: Constant) -> Constant:
    """The constant of numbers that fp16 has: what is folded is rounded to it, and long chains would show that."""
    return replace(constant, kind="values", args=constant_args("values", stored(constant_array(constant))))


class _Maker:
    """Writes one op after another, each from (token, DIM) to (token, DIM)."""

    def __init__(self, draw: st.DrawFn, b: Builder) -> None:
        self.draw, self.b = draw, b
        self.weights = [b.param(f"w{i}", (DIM, DIM)) for i in range(3)]
        self.rows_ = [b.param(f"r{i}", (DIM,)) for i in range(2)]
        self.half = b.param("half", (DIM, DIM // 2))
        self.table = b.rotary(DIM)
        self.cache = b.kv("k", (1, CTX, DIM))

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def rows(self, x: Value) -> Value:
        """All rows, or some of the last."""
        count = self.pick(None, self.b.head_rows, self.b.head_rows, 1)
        return x if count is None else self.b.last_rows(x, count=count)

    def step(self, x: Value, y: Value) -> Value:
        b, w, r = self.b, self.pick(*self.weights), self.pick(*self.rows_)
        calls: dict[str, Any] = {
            "linear": lambda: b.linear(x, w),
            "linear_bias": lambda: b.linear(x, w, r, act=self.pick("none", "tanh")),
            "linear_half": lambda: b.linear(self.part(x), self.half),
            "rms_norm": lambda: b.rms_norm(x, r, eps=0.5),
            "act": lambda: b.act(x, fn=self.pick("silu", "tanh", "relu", "relu")),
            "scale": lambda: b.scale(x, value=self.pick(0.5, -1.5, 1.0, 4.0)),
            "add": lambda: b.add(x, y),
            "mul": lambda: b.mul(x, y),
            "add_row": lambda: b.add(x, r),
            "add_constant": lambda: b.add(x, self.constant()),
            "reshape": self.reshaped,
            "copy": lambda x: b.copy(x),
            "cache": self.attended,
        }
        op = self.pick(*OPS)
        made: Value = calls[op](x) if op in ("reshape", "copy", "cache") else calls[op]()
        return made

    def part(self, x: Value) -> Value:
        """Half of the elements, in two cuts."""
        start = self.pick(0, 1)
        return self.b.slice(self.b.slice(x, start=start, size=DIM - 1), start=self.pick(0, 1), size=DIM // 2)

    def constant(self) -> Value:
        """(DIM,), of the rotary table."""
        row = self.b.last_rows(self.table, count=self.pick(1, 2))
        return self.b.reshape(self.b.last_rows(self.b.scale(row, value=0.5), count=1), shape=(DIM,))

    def reshaped(self, x: Value) -> Value:
        heads = self.b.reshape(x, shape=(self.b.token, 2, DIM // 2))
        heads = self.pick(heads, self.b.scale(heads, value=2.0))
        return self.b.reshape(heads, shape=(self.b.token, DIM))

    def attended(self, x: Value) -> Value:
        b = self.b
        heads = b.reshape(x, shape=(b.token, 1, DIM))
        self.cache = b.kv_append(self.cache, b.rope(heads, self.table, rotary_dim=DIM))
        return b.reshape(b.attention(heads, self.cache, self.cache, scale=0.5), shape=(b.token, DIM))


@settings(max_examples=examples(200))
@given(graphs(), st.permutations(PASSES))
def test_passes_keep_the_meaning(graph: Graph, passes: list[Pass]) -> None:
    rng = np.random.default_rng(1)
    params = {p.name: rng.standard_normal([int(e) for e in p.type.shape]).astype(np.float32) / 2 for p in graph.params}
    x = rng.standard_normal((3, DIM)).astype(np.float32)
    inputs: dict[str, Any] = {"x": x, "kv_len": 2, "head_rows": 2}
    state = new_state(graph)
    expected = evaluate(graph, params, inputs, state)
    for pass_ in passes:
        graph = pass_(graph)
        verify(graph)
        assert print_graph(pass_(graph)) == print_graph(graph), f"a second run of {pass_.name}"
        after_state = new_state(graph)
        after = evaluate(graph, params, inputs, after_state)
        for label, array in expected.items():
            np.testing.assert_allclose(after[label], array, rtol=1e-4, atol=1e-5, err_msg=pass_.name)
        np.testing.assert_allclose(after_state["k"], state["k"], rtol=1e-4, atol=1e-5)


@settings(max_examples=examples(60))
@given(graphs())
def test_the_format_of_the_caches_and_nothing_else(graph: Graph) -> None:
    quantised = QuantizeCache("mxint8")(graph)
    verify(quantised)
    kept = {value.name for value in graph.values.values() if value.role == "kv"}
    assert {value.name for value in quantised.values.values() if value.type.dtype == "mxint8"} == kept
    assert print_graph(QuantizeCache()(quantised)) == print_graph(graph)


@settings(max_examples=examples(60))
@given(graphs())
def test_text_comes_back(graph: Graph) -> None:
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text
