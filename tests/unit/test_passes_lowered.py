"""What passes make of a graph, on the engines: models that only compile because of them, and bits that stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import dlavm.compile
from dlavm.compile import Options, build
from dlavm.frontend import Model, WeightSource
from dlavm.frontend.model import ALL
from dlavm.frontend.random_weights import RandomSource
from dlavm.graph import Builder, Graph, Value
from dlavm.graph.parts import split
from dlavm.pack.artifact import Artifact
from dlavm.pack.unpack import read_weights
from dlavm.passes import FoldScale, FuseHorizontal, LastTokens, Pass
from dlavm.runtime.session import open_session
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.verbs.floats import FloatSession, artifact_graph, quantised_session
from dlavm.verbs.values import value_problems

HEADS, D, HIDDEN, VOCAB = 4, 16, 48, 50
IDS = [3, 1, 4, 1, 5, 9, 2]


def odd(ctx: int, chunk: int) -> Graph:
    """Views in places where only a copy can stand, constants that are computed, scales by powers of two."""
    b = Builder("odd", ctx=ctx, chunk=chunk)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (VOCAB, HIDDEN)))
    table = b.rotary(D)
    for layer in range(2):
        with b.scope(f"layer {layer}"):
            x = b.add(x, attention(b, x, table, layer))
    gain = b.reshape(b.last_rows(b.rotary(HIDDEN, name="gain"), count=1), shape=(HIDDEN,))  # (hidden,)
    x = b.mul(b.last_rows(x, count=b.head_rows), gain)
    wide = b.linear(b.scale(x, value=4.0), b.param("head", (VOCAB + 6, HIDDEN)))  # (head_rows, vocab and padding)
    logits = b.slice(b.reshape(wide, shape=(b.head_rows, VOCAB + 6)), start=0, size=VOCAB)
    return b.finish(logits=logits, next=b.argmax(logits))


def attention(b: Builder, x: Value, table: Value, layer: int) -> Value:
    h = b.rms_norm(b.scale(x, value=0.25), b.param(f"norm{layer}", (HIDDEN,)), eps=1e-5)
    q, k, v = (b.linear(h, b.param(f"{n}{layer}", (HEADS * D, HIDDEN)), name=n) for n in "qkv")
    heads = [b.reshape(value, shape=(b.token, HEADS, D)) for value in (q, k, v)]
    rows = [b.rope(value, table, rotary_dim=D) for value in heads[:2]]
    keys, values = (b.kv_append(b.kv(f"{n}_cache{layer}", (HEADS, b.ctx, D)), row)
                    for n, row in (("k", rows[1]), ("v", heads[2])))  # fmt: skip
    a = b.attention(rows[0], keys, values, scale=D**-0.5)
    a = b.reshape(b.slice(a, start=D // 2, size=D // 2), shape=(b.token, HEADS * D // 2))  # half of each head
    return b.linear(b.copy(a), b.param(f"o{layer}", (HIDDEN, HEADS * D // 2)))


WEIGHTS = RandomSource(odd(1, 1), seed=5)


def built(out: Path, target: str = "v3", board: str = "nano", weights: WeightSource = WEIGHTS) -> Artifact:
    model = Model("odd", odd, weights)
    build(model, load_target(target, board), Options(ctx=32, chunk=4), out)
    return Artifact.open(out)


def logits(artifact: Artifact, engine: str = "sim", pieces: Sequence[int] = (4, 3)) -> bytes:
    with open_session(artifact, engine) as session:
        return session.prefill(IDS, chunks=list(pieces), logits_all=True).logits.tobytes()


@pytest.mark.parametrize("target", ["v1", "v2", "v3"])
def test_a_model_of_odd_views(target: str, tmp_path: Path) -> None:
    artifact = built(tmp_path / "a", target)
    found = logits(artifact)
    assert found == logits(artifact, "reference", (1, 4, 1, 1)) == logits(built(tmp_path / "b"))
    ours = np.frombuffer(found, np.float16).reshape(len(IDS), VOCAB)
    session: FloatSession = quantised_session(artifact)
    np.testing.assert_allclose(ours, session.logits(IDS), atol=0.05)
    assert np.abs(ours).max() > 1


@pytest.mark.parametrize(
    ("dropped", "board"), [(FoldScale, "nano"), (LastTokens, "nano"), (FuseHorizontal, "vcu128")]
)
def test_not_a_bit_moves(
    dropped: type[Pass], board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_all = built(tmp_path / "with", board=board)
    pipeline = dlavm.compile.pipeline
    monkeypatch.setattr(dlavm.compile, "pipeline", lambda *a: [p for p in pipeline(*a) if type(p) is not dropped])
    without = built(tmp_path / "without", board=board)
    texts = [a.file("graph.txt").read_text() for a in (with_all, without)]
    assert texts[0] != texts[1]
    assert logits(with_all) == logits(without)


def test_the_parts_of_a_fused_weight_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    """Packed together, each quantised by itself, and taken apart again."""
    fused, plain = built(tmp_path / "fused", board="vcu128"), built(tmp_path / "plain")
    params = {p.name: p for p in artifact_graph(fused).params}
    assert [name for name, _ in params["q0-k0-v0"].parts] == ["q0", "k0", "v0"]
    parts = split(params["q0-k0-v0"], read_weights(fused)["q0-k0-v0"])
    expected = read_weights(plain)
    assert list(parts) == ["q0", "k0", "v0"]
    for name, values in parts.items():
        np.testing.assert_array_equal(values, expected[name])


class Spoilt(RandomSource):
    def get(self, name: str, rows: slice = ALL) -> NDArray[np.float16]:
        values = super().get(name, rows)
        if name == "k1":
            values[3, 4] = np.nan
        return values


def test_an_unusable_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DlavmError, match="weight k1: expected finite values, got NaN"):
        built(tmp_path / "a", board="vcu128", weights=Spoilt(odd(1, 1)))
    assert not (tmp_path / "a").exists()
    problems = value_problems(Model("odd", odd, Spoilt(odd(1, 1))), load_target("v3"), Options(ctx=32, chunk=4))
    assert [problem["where"] for problem in problems] == ["k1"]
