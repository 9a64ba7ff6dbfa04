"""The order of nodes: the lowest peak of all orders, what must come before what, and the peak that memory will have."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlavm.compile
from dlavm.compile import Options, compile_model, pipeline
from dlavm.frontend import load_model
from dlavm.graph import Builder, Graph, verify
from dlavm.graph.analysis import scope_of
from dlavm.passes import OrderForMemory, run
from dlavm.passes.order_for_memory import MOST_STATES, Problem, _Scopes, best_order
from dlavm.target import TargetSpec, load_target
from tests.conftest import examples

V1 = load_target("v1", "nano")
GAINS = ("llama.py:llama_tiny", "qwen2.py:qwen2_tiny")


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 6))
    sizes = st.sampled_from([0, 16, 16, 32, 64])
    needs = [draw(st.integers(0, (1 << i) - 1)) for i in range(count)]
    buffers = []
    for maker in [-1, -1, *range(count)]:
        later = [i for i in range(count) if maker < 0 or needs[i] >> maker & 1]
        readers = sum(1 << i for i in later if maker >= 0 or draw(st.booleans()))
        buffers.append((draw(sizes), maker, readers, draw(st.booleans())))
    heirs = [tuple(b for b, buffer in enumerate(buffers) if buffer[2] >> i & 1) for i in range(count)]
    scratch = tuple(draw(sizes) for _ in range(count))
    return Problem(tuple(needs), scratch, tuple(buffers), tuple(heirs), draw(sizes))


def legal(problem: Problem, order: tuple[int, ...]) -> bool:
    return all(not problem.needs[node] & ~sum(1 << n for n in order[:i]) for i, node in enumerate(order))


@settings(max_examples=examples(200))
@given(problems())
def test_no_other_order_has_a_lower_peak(problem: Problem) -> None:
    order = best_order(problem)
    every = [other for other in permutations(range(len(problem.needs))) if legal(problem, other)]
    assert order in every
    assert problem.peak(order) == min(map(problem.peak, every))


def branches(count: int, width: int = 64) -> Graph:
    """Many branches that one sum after another takes: written in the worst order."""
    b = Builder("branches", ctx=8, chunk=8)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, width)))
    w = b.param("w", (width, width))
    with b.scope("layer"):
        made = [b.linear(x, w, act="silu", name=f"branch{i}") for i in range(count)]
        total = b.add(x, made[0])
        for other in made[1:]:
            total = b.add(total, other)
    return b.finish(logits=b.copy(total))


def peak(graph: Graph, spec: TargetSpec = V1) -> int:
    return max(problem.peak(range(len(nodes))) for nodes, problem in _Scopes(graph, spec))


def test_branches_are_taken_one_by_one() -> None:
    graph = branches(6)
    after = OrderForMemory(V1)(graph)
    verify(after)
    row = 8 * 64 * 2  # bytes of a chunk
    assert [peak(made) // row for made in (graph, after)] == [7, 3]


def test_too_many_orders_leave_the_order() -> None:
    graph = branches(16)
    assert MOST_STATES < 1 << 16
    assert [n.name for n in OrderForMemory(V1)(graph).nodes] == [n.name for n in graph.nodes]


def test_caches_are_read_before_they_change() -> None:
    b = Builder("m", ctx=8, chunk=4)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 64)))
    heads = b.reshape(x, shape=(b.token, 4, 16))
    k = b.kv("k", (4, 8, 16))
    k1 = b.kv_append(k, heads)
    first = b.attention(heads, k1, k1, scale=0.25)
    wide = [b.linear(x, b.param(f"w{i}", (512, 64))) for i in range(2)]
    k2 = b.kv_append(k1, b.rope(heads, b.rotary(16), rotary_dim=16))
    second = b.attention(heads, k2, k2, scale=0.25)
    total = b.add(b.add(b.linear(wide[0], b.param("d0", (64, 512))), b.linear(wide[1], b.param("d1", (64, 512)))), x)
    graph = b.finish(logits=b.add(total, b.reshape(b.add(first, second), shape=(b.token, 64))))
    after = OrderForMemory(V1)(graph)
    verify(after)  # refuses a cache that is read behind its next append
    assert [n.name for n in after.nodes] != [n.name for n in graph.nodes]


@pytest.mark.parametrize(
    "model", ["stories.py", "llama.py:llama_tiny", "qwen2.py:qwen2_tiny", "chatglm.py:chatglm_tiny"]
)
@pytest.mark.parametrize("target", [("v1", "nano"), ("v1", "vcu128"), ("v3", "vcu128")])
def test_the_peak_is_the_one_of_the_memory_plan(
    model: str, target: tuple[str, str], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, options = load_target(*target), Options(ctx=96, chunk=40)
    loaded = load_model(f"{repository}/models/{model}", "none")
    ordered = run(pipeline(options, spec), loaded.graph(96, 40))
    plain = [pass_ for pass_ in pipeline(options, spec) if not isinstance(pass_, OrderForMemory)]
    written = run(plain, loaded.graph(96, 40))
    peaks = []
    for graph, passes in ((ordered, pipeline(options, spec)), (written, plain)):
        monkeypatch.setattr(dlavm.compile, "pipeline", lambda o, s, passes=passes: passes)
        expected = peak(graph, spec)
        peaks.append(compile_model(loaded, spec, options).memory.activations.peak)
        assert expected <= peaks[-1] <= expected + 10 * spec.space("activations").beat_row
    assert peaks[0] < peaks[1] if target == ("v1", "nano") and model in GAINS else peaks[0] <= peaks[1]


def test_equal_layers_get_equal_orders(repository: Path) -> None:
    loaded = load_model(f"{repository}/models/llama.py:llama2_7b", "none")
    spec = load_target("v1")
    graph = run(pipeline(Options(), spec), loaded.graph(*Options().sizes(loaded, spec)))
    orders = {tuple(n.where.split(" / ")[-1] for n in graph.nodes if scope_of(n)[:1] == (f"layer {i}",))
              for i in range(31)}  # fmt: skip
    assert len(orders) == 1
    best_order.cache_clear()
    OrderForMemory(spec)(graph)
    assert best_order.cache_info().misses < 10
