"""What a session needs of a model: `check` names all that is missing, `build` refuses the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dlavm.check import check
from dlavm.compile import Options, build
from dlavm.frontend import Model, RandomSource
from dlavm.graph import Builder, Graph, Value
from dlavm.graph.interface import interface_problems
from dlavm.support.errors import DlavmError
from dlavm.target import load_target

CTX, CHUNK, DIM, VOCAB = 32, 8, 32, 50
NANO = load_target("v3", "nano")
Outputs = Callable[[Builder, Value, Value], dict[str, Value]]


def attended(b: Builder, x: Value, positions: Any) -> Value:
    heads = b.reshape(x, shape=(b.token, 2, 16))
    cache = b.kv_append(b.kv("k", (2, positions, 16)), heads)
    return b.reshape(b.attention(heads, cache, cache, scale=0.25), shape=(b.token, DIM))


def usual(b: Builder, x: Value, head: Value) -> dict[str, Value]:
    logits = b.linear(b.last_rows(x, count=b.head_rows), head)
    return {"logits": logits, "next": b.argmax(logits)}


def decoder(
    outputs: Outputs = usual, ids: str = "ids", positions: int = 0, attention: bool = True, more: Any = None,
    sizes: tuple[int, int] = (0, 0), **meta: Any,
) -> Callable[[int, int], Graph]:  # fmt: skip
    """A model that is right unless told otherwise; `more` makes something of the rows of the embedding."""

    def graph(ctx: int, chunk: int) -> Graph:
        b = Builder("m", ctx=sizes[0] or ctx, chunk=sizes[1] or chunk, meta=meta)
        x = b.embedding(b.input(ids, (b.token,), "i32"), b.param("table", (VOCAB, DIM)))
        x = more(b, x) if more else x
        x = attended(b, x, positions or b.ctx) if attention else x
        return b.finish(**outputs(b, x, b.param("head", (VOCAB, DIM))))

    return graph


def logits(make: Callable[[Builder, Value], Value]) -> Outputs:
    """`make` gives the logits of usual ones and of the last row's."""
    return lambda b, x, head: {"logits": make(b, usual(b, x, head)["logits"])}


WRONG: list[tuple[Callable[[int, int], Graph], str]] = [
    (decoder(ids="tokens"), r"inputs: expected ids i32\[token\], of which an embedding takes rows, got tokens"),
    (decoder(more=lambda b, x: b.add(x, b.input("extra", (b.token, DIM), "f16"))), "input extra: expected ids alone"),
    (decoder(lambda b, x, head: {"y": usual(b, x, head)["logits"]}), "outputs: expected logits, got y"),
    (decoder(lambda b, x, head: {}), "outputs: expected logits, got none"),
    (decoder(lambda b, x, head: {"logits": b.linear(x, head)}), r"output logits: .*vocab.*got .*\[token, 50\]"),
    (decoder(logits(lambda b, x: b.last_rows(x, count=1))), r"output logits: .*got .*f16\[1, 50\]"),
    (decoder(logits(lambda b, x: b.reshape(x, shape=(b.head_rows, 2, 25)))), "output logits: .* 2, 25"),
    (decoder(lambda b, x, head: {"logits": head}), "output logits: .*got param head"),
    (decoder(logits(lambda b, x: b.argmax(x))), r"output logits: .*i32\[head_rows\]"),
    (decoder(lambda b, x, head: usual(b, x, head) | {"next": x}), "output next: expected the argmax of logits"),
    (decoder(lambda b, x, head: usual(b, x, head) | {"next": b.argmax(x)}), "output next: expected the argmax"),
    (decoder(attention=False), "expected a KV cache and an attention over it, got 0 caches"),
    (decoder(positions=17), rf"cache k: expected \(heads, {CTX}, dim\), got f16\[2, 17, 16\]"),
    (decoder(sizes=(16, 4)), f"expected a graph for ctx {CTX} and chunk {CHUNK}, .* got 16 and 4"),
    (decoder(eos_token_ids="x"), f"eos_token_ids and bos_token_id: expected ids in 0..{VOCAB - 1}, got 'x'"),
    (decoder(eos_token_ids=[1, VOCAB]), f"expected ids in 0..{VOCAB - 1}, got {VOCAB}"),
    (decoder(eos_token_ids=1.5), "got 1.5"),
    (decoder(bos_token_id=-1), "got -1"),
    (decoder(note={1, 2}), r"meta note: expected a value of JSON, got \{1, 2\}"),
    (decoder(note=float("nan")), "meta note: expected a value of JSON, got nan"),
]


@pytest.mark.parametrize(("graph", "message"), WRONG, ids=range(len(WRONG)))
def test_check_and_build_say_the_same(graph: Callable[[int, int], Graph], message: str) -> None:
    model, options = Model("m", graph, shapes_only=True), Options(ctx=CTX, chunk=CHUNK)
    with pytest.raises(DlavmError, match=f"model m: .*{message}") as refused:
        build(model, NANO, options, None)
    problems = [problem["what"] for problem in check(model, NANO, options).problems]
    assert str(refused.value).removeprefix("model m: ") in problems


def test_names_of_meta() -> None:
    graph = decoder()(CTX, CHUNK)
    wrong = replace(graph, meta={**graph.meta, 3: 4})
    assert list(interface_problems(wrong, CTX, CHUNK)) == ["meta: expected names, got 3"]


def test_what_is_right() -> None:
    for graph in (
        decoder(eos_token_ids=[0, VOCAB - 1], bos_token_id=1, note={"a": [None, 1.5]}),
        decoder(lambda b, x, head: {**usual(b, x, head), "rows": x}, eos_token_ids=3),
        decoder(logits(lambda b, x: x)),
        decoder(more=lambda b, x: (b.input("idle", (b.token,), "i32"), x)[1]),
    ):
        model = Model("m", graph, shapes_only=True)
        for options in (Options(ctx=CTX, chunk=CHUNK), Options(ctx=1)):
            assert check(model, NANO, options).problems == []
            assert build(model, NANO, options, None)["artifact"] is None


@pytest.mark.parametrize("target", ["v1", "v2", "v3"])
def test_a_second_embedding(target: str) -> None:
    """Where the host takes the rows, it takes those of one table."""
    graph = decoder(more=lambda b, x: b.add(x, b.embedding(b._sources["input"][0], b.param("second", (VOCAB, DIM)))))
    model = replace(Model("m", graph), weights=RandomSource(graph(1, 1)))
    spec = load_target(target, "nano")
    if spec.has("gather"):
        assert build(model, spec, Options(ctx=CTX, chunk=CHUNK), None)["artifact"] is None
        return
    with pytest.raises(DlavmError, match="expected one embedding of ids, .* got those of table and of second"):
        build(model, spec, Options(ctx=CTX, chunk=CHUNK), None)
