"""A stream fits the bytes that were set aside for it, whatever was guessed of its length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlavm import compile as compiler
from dlavm.compile import Compiled, Options, compile_graph
from dlavm.describe import stream_name
from dlavm.graph import Builder
from dlavm.passes import Dce, MaterialiseViews, QuantizeWeights
from dlavm.target import load_target


def compiled(target: str = "v3") -> Compiled:
    """Tiles of several buffers, whose addresses are the same numbers where buffers are as far apart as tiles."""
    b = Builder("small", ctx=12, chunk=6)
    w = b.param("w", (32, 32))
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (11, 32)))
    with b.scope("layer 0"):
        y = b.linear(b.linear(x, w), w, aux=x, aux_mode="add", act="tanh")
    graph = b.finish(logits=b.linear(b.last_rows(y, count=b.head_rows), b.param("head", (24, 32))))
    for step in (Dce(), QuantizeWeights("int4g128"), MaterialiseViews()):
        graph = step(graph)
    spec = load_target(target, "nano")
    small = replace(spec, board=replace(spec.board, activation_elements=160, accumulators=160))
    return compile_graph(graph, small, Options())


def check_room(made: Compiled) -> None:
    regions = sorted(made.memory.regions, key=lambda region: region.base)
    for name, entry in made.entries.items():
        begin = made.memory.bases[stream_name(name)]
        end = begin + 4 * len(entry.code.words)
        others = [base for other, base in made.memory.bases.items() if base > begin]
        assert end <= min([*others, *(r.base + r.bytes for r in regions if r.base <= begin < r.base + r.bytes)])


@pytest.mark.parametrize("target", ["v2", "v3"])
@pytest.mark.parametrize("guess", [None, 1, 40])
def test_a_stream_fits(target: str, guess: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compiled(target)
    if guess is not None:
        monkeypatch.setattr(compiler, "_length", lambda program, spec: guess)
    made = compiled(target)
    check_room(made)
    assert {n: e.code.words for n, e in made.entries.items()} == {n: e.code.words for n, e in expected.entries.items()}
