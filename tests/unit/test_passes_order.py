"""The order of nodes: the lowest peak of all orders, what must come before what, and the peak that memory will have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlavm.compile
import dlavm.memory.layout
from dlavm.compile import Options, compile_model, pipeline
from dlavm.frontend import load_model
from dlavm.graph import Builder, Graph, verify
from dlavm.graph.analysis import scope_of
from dlavm.lower import lower
from dlavm.memory import liveness, lower_bound
from dlavm.passes import OrderForMemory, order_for_memory, run
from dlavm.passes.order_for_memory import (
    MOST_NODES,
    MOST_STATES,
    Buffer,
    Problem,
    _buffers,
    _needs,
    _parts,
    _Pieces,
    best_order,
)
from dlavm.schedule import alone
from dlavm.sym import mul
from dlavm.target import TargetSpec, load_target
from dlavm.target.layout import row_bytes
from dlavm.task import share_in_place
from tests.conftest import examples
from tests.prop.lowerable_graphs import lowerable_graphs

V1 = load_target("v1", "nano")
GAINS = ("llama.py:llama_tiny", "qwen2.py:qwen2_tiny")


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 6))
    sizes = st.sampled_from([0, 16, 16, 32, 64])
    needs = [tuple(j for j in range(i) if draw(st.booleans())) for i in range(count)]
    buffers = []
    for maker in [-1, -1, *range(count)]:
        later = [i for i in range(count) if maker < 0 or maker in needs[i]]
        readers = tuple(i for i in later if maker >= 0 or draw(st.booleans()))
        buffers.append(Buffer(draw(sizes), maker, readers, draw(st.booleans())))
    heirs = [tuple(b for b, buffer in enumerate(buffers) if i in buffer.readers) for i in range(count)]
    scratch = tuple(draw(sizes) for _ in range(count))
    return Problem(tuple(needs), scratch, tuple(buffers), tuple(heirs))


def legal(needs: Sequence[Sequence[int]], order: Sequence[int]) -> bool:
    return all(set(needs[node]) <= set(order[:i]) for i, node in enumerate(order))


@settings(max_examples=examples(200))
@given(problems(), st.sampled_from([0, 32, 64, 96, 160]))
def test_no_other_order_has_a_lower_peak(problem: Problem, goal: int) -> None:
    every = [order for order in permutations(problem.written) if legal(problem.needs, order)]
    peaks = [problem.peak(order) for order in every]
    order = best_order(problem)
    assert order in every and problem.peak(order) == min(peaks)
    # Of those that are good enough the first in the order as written, but for nodes that run as soon as they can.
    goal = max(goal, min(peaks))
    near = best_order(problem, goal)
    assert near in every and problem.peak(near) <= goal
    if all(size for size, maker, _, _ in problem.buffers if maker >= 0):
        assert near == next(o for o, peak in zip(every, peaks, strict=True) if peak <= goal)


@settings(max_examples=examples(40))
@given(lowerable_graphs(scopes=1, nodes=6))
def test_no_other_order_of_a_graph_has_a_lower_peak(graph: Graph) -> None:
    """Also where it falls into pieces, if there are no scopes."""
    graph = replace(graph, nodes=tuple(replace(node, where=node.name) for node in graph.nodes))
    needs = list(_needs(graph.nodes))
    orders = [order for order in islice(orders_of(needs), 301)]
    if len(orders) <= 300:
        peaks = [peak(replace(graph, nodes=tuple(graph.nodes[i] for i in order))) for order in orders]
        assert peak(OrderForMemory(V1)(graph)) == min(peaks)


def orders_of(needs: Sequence[Sequence[int]], begun: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    if len(begun) == len(needs):
        yield begun
    for i, before in enumerate(needs):
        if i not in begun and set(before) <= set(begun):
            yield from orders_of(needs, (*begun, i))


@pytest.mark.parametrize("spec", [V1, load_target("v3", "nano"), load_target("v3", "vcu128")])
@settings(max_examples=examples(40))
@given(graph=lowerable_graphs())
def test_random_graphs(spec: TargetSpec, graph: Graph) -> None:
    """The peak is that of the tasks, to the byte but for queries that are a part of their buffer; the order verifies,
    has the same nodes and is a fixed point."""
    after = OrderForMemory(spec)(graph)
    verify(after)
    assert sorted(map(id, after.nodes)) == sorted(map(id, graph.nodes))
    assert OrderForMemory(spec)(after).nodes == after.nodes
    peaks = []
    for one in (graph, after):
        intervals = liveness(share_in_place(lower(one, spec).program, spec), spec, beside=alone)
        peaks.append(lower_bound([replace(i, size=row_bytes(i.size, 1)) for i in intervals]))
        assert peak(one, spec) >= peaks[-1]
        assert peak(one, spec) == peaks[-1] or queries_are_parts(one)
    if not queries_are_parts(graph):
        assert peaks[1] < peaks[0] or after.nodes == graph.nodes


def queries_are_parts(graph: Graph) -> bool:
    """Whether the queries of an attention lie in a larger buffer, which then ends before the result begins."""
    buffers = _buffers(graph)
    queries = [node["q"] for node in graph.nodes if node.op == "attention"]
    return any(mul(*graph.values[buffers[q.name]].type.shape) != mul(*q.type.shape) for q in queries)


@settings(max_examples=examples(40))
@given(lowerable_graphs(scopes=1, nodes=8))
def test_parts_end_where_every_way_passes(graph: Graph) -> None:
    nodes = list(graph.nodes)
    parts = list(_parts(nodes))
    assert [node for part in parts for node in part] == nodes
    needs = list(_needs(nodes))
    ends = {sum(map(len, parts[: i + 1])) - 1 for i in range(len(parts) - 1)}
    above = ancestors(needs)
    for i in range(len(nodes) - 1):
        leads = all(j in above[i] for j in range(i)) and all(i in above[j] for j in range(i + 1, len(nodes)))
        assert leads == (i in ends), i


def ancestors(needs: Sequence[Sequence[int]]) -> list[set[int]]:
    found: list[set[int]] = []
    for before in needs:
        found.append({*before}.union(*(found[i] for i in before)))
    return found


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
    return max(piece.base + piece.problem.peak() for piece in _Pieces(graph, spec))


def test_branches_are_taken_one_by_one() -> None:
    graph = branches(6)
    after = OrderForMemory(V1)(graph)
    verify(after)
    row = 8 * 64 * 2  # bytes of a chunk
    assert [peak(made) // row for made in (graph, after)] == [7, 3]


@pytest.mark.parametrize("count", [16, MOST_NODES, 1000])
def test_too_many_orders_leave_the_order(count: int) -> None:
    graph = branches(count)
    assert MOST_STATES < 1 << 16
    assert [n.name for n in OrderForMemory(V1)(graph).nodes] == [n.name for n in graph.nodes]


@pytest.mark.parametrize("scoped", [True, False])
def test_deep_graphs_cost_a_few_searches(scoped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are equal, with or without the names of scopes, and few of them have the highest peak."""
    b = Builder("deep", ctx=8, chunk=8)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 64)))
    w = b.param("w", (64, 64))
    for layer in range(100):
        with b.scope(f"layer {layer}" if scoped else "all"):
            p, q, r = (b.linear(x, w) for _ in range(3))
            x = b.add(b.add(b.linear(p, w), x), b.add(b.linear(q, w), b.linear(r, w)))
    graph = b.finish(logits=b.copy(x))
    searched = []
    monkeypatch.setattr(order_for_memory, "best_order", lambda *p: searched.append(p) or best_order(*p))
    after = OrderForMemory(V1)(graph)
    verify(after)
    assert peak(after) < peak(graph) and len(searched) < 10
    kinds = {tuple(n.where.split(" / ")[-1] for n in after.nodes[1 + 9 * i : 10 + 9 * i]) for i in range(100)}
    assert len(kinds) == 1


def test_a_result_takes_no_bytes_that_its_command_reads_twice() -> None:
    b = Builder("twice", ctx=8, chunk=8)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (5, 64)))
    once = b.linear(x, b.param("w", (64, 64)))
    graph = b.finish(logits=b.copy(b.add(once, once)))
    assert peak(graph) == 2 * 8 * 64 * 2


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
    """Where commands run one after the other, in the order of the nodes."""
    monkeypatch.setattr(dlavm.compile, "schedule", lambda program, spec: program)
    monkeypatch.setattr(dlavm.memory.layout, "liveness", partial(liveness, beside=alone))
    spec, options = load_target(*target), Options(ctx=96, chunk=40)
    loaded = load_model(f"{repository}/models/{model}", "none")
    ordered = run(pipeline(options, spec), loaded.graph(96, 40))
    plain = [pass_ for pass_ in pipeline(options, spec) if not isinstance(pass_, OrderForMemory)]
    written = run(plain, loaded.graph(96, 40))
    peaks = []
    for graph, passes in ((ordered, pipeline(options, spec)), (written, plain)):
        monkeypatch.setattr(dlavm.compile, "pipeline", lambda *_, passes=passes: passes)
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
