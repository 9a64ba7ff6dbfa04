"""Windows, ALiBi, soft caps, learned positions, permutations: every way to cut a prompt and every generation gives the
same bits, and those are the numbers that the graph means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.compile import Options, build
from dlavm.frontend import Model
from dlavm.frontend.random_weights import RandomSource
from dlavm.graph import Builder, Graph, Value
from dlavm.pack.artifact import Artifact
from dlavm.pack.unpack import read_weights
from dlavm.runtime.batch import Batch
from dlavm.runtime.engine import open_engine
from dlavm.runtime.session import Session, open_session
from dlavm.target import load_target
from dlavm.verbs.floats import FloatSession, artifact_graph

CTX, CHUNK = 104, 40
KINDS: dict[str, dict[str, float]] = {
    "window 1": {"window": 1}, "window 31": {"window": 31}, "window 32": {"window": 32}, "window 33": {"window": 33},
    "window 70": {"window": 70}, "window past the context": {"window": 500}, "softcap": {"softcap": 3.0},
    "alibi": {"alibi": 8.0},
    "alibi, window, softcap": {"alibi": 8.0, "alibi_scale": 0.25, "window": 37, "softcap": 5.5},
}  # fmt: skip
IDS = np.random.default_rng(9).integers(0, 50, CTX).tolist()


def attended(b: Builder, x: Value, layer: int, attrs: dict[str, float]) -> Value:
    """Attention of four heads over two kv heads of 16, with peaked scores."""
    q = b.reshape(b.linear(x, b.param(f"q{layer}", (64, 64))), shape=(b.token, 4, 16))
    k = b.reshape(b.linear(x, b.param(f"k{layer}", (32, 64))), shape=(b.token, 2, 16))
    v = b.reshape(b.linear(x, b.param(f"v{layer}", (32, 64))), shape=(b.token, 2, 16))
    keys = b.kv_append(b.kv(f"keys{layer}", (2, b.ctx, 16)), k)
    values = b.kv_append(b.kv(f"values{layer}", (2, b.ctx, 16)), v)
    return b.reshape(b.attention(q, keys, values, scale=1.0, **attrs), shape=(b.token, 64))


def graph_of(kinds: Sequence[dict[str, float]], permuted: bool = False) -> Model:
    """A model with learned positions, a layer of each kind and capped logits."""

    def graph(ctx: int, chunk: int) -> Graph:
        b = Builder("kinds", ctx=ctx, chunk=chunk)
        x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (50, 64)))
        x = b.add_positions(x, b.param("positions", (128, 64)))
        for layer, attrs in enumerate(kinds):
            h = b.layer_norm(x, b.param(f"gamma{layer}", (64,)), eps=1e-5)
            if permuted:
                h = b.permute(h, b.param(f"order{layer}", (64,), "i32"))
            x = b.add(x, b.linear(attended(b, h, layer, attrs), b.param(f"o{layer}", (64, 64))))
        logits = b.linear(b.last_rows(x, count=b.head_rows), b.param("head", (50, 64)))
        logits = b.act(logits, fn="softcap(2.5)")
        return b.finish(logits=logits, next=b.argmax(logits))

    return Model("kinds", graph, RandomSource(graph(CTX, CHUNK), seed=4))


def built(model: Model, out: Path, target: str = "v3", board: str = "nano", chunk: int | None = CHUNK) -> Artifact:
    build(model, load_target(target, board), Options(ctx=CTX, chunk=chunk), out)
    return Artifact.open(out)


def pieces(lengths: Sequence[int]) -> Iterator[list[int]]:
    start = 0
    for length in lengths:
        yield IDS[start : start + length]
        start += length


def logits(artifact: Artifact, lengths: Sequence[int], engine: str = "sim") -> list[NDArray[np.float16]]:
    """Of every position, the prompt cut into steps of `lengths`; and the cache behind it."""
    with open_session(artifact, engine) as session:
        found = [session.prefill(part, logits_all=True).logits for part in pieces(lengths)]
        return [np.concatenate(found).view(np.uint16), np.frombuffer(session.save_state(), np.uint8)]


def same(a: Sequence[NDArray[np.generic]], b: Sequence[NDArray[np.generic]]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def meant(artifact: Artifact, **attrs: float) -> NDArray[np.float32]:
    """The logits of every position by the graph's float meaning and the artifact's numbers, attention with `attrs`."""
    graph = artifact_graph(artifact)
    nodes = (replace(n, attrs={**n.attrs, **attrs}) if n.op == "attention" else n for n in graph.nodes)
    session = FloatSession(replace(graph, nodes=tuple(nodes)), read_weights(artifact), 50)
    return session.logits(IDS)


@pytest.mark.parametrize("name", KINDS)
def test_any_chunking_gives_the_bits_of_single_tokens(name: str, tmp_path: Path) -> None:
    model = graph_of([KINDS[name]])
    artifact = built(model, tmp_path / "a")
    single = logits(artifact, [1] * CTX)
    for lengths in ([40, 40, 24], [31, 1, 1, 1, 36, 34], [33, 31, 32, 8], [1, 37, 3, 29, 34]):
        assert same(logits(artifact, lengths), single), lengths
    wide = built(model, tmp_path / "wide", board="vcu128", chunk=100)
    assert same(logits(wide, [100, 4]), single)


@pytest.mark.parametrize("name", ["window 31", "alibi, window, softcap"])
@pytest.mark.parametrize("target", ["v1", "v2"])
def test_generations_agree(target: str, name: str, tmp_path: Path) -> None:
    model = graph_of([KINDS[name]])
    expected = logits(built(model, tmp_path / "v3"), [40, 40, 24])
    artifact = built(model, tmp_path / target, target, "nano", 9 if target == "v2" else CHUNK)
    for lengths in ([31, 1, 1, 1, 36, 34], [9] * 11 + [5]):
        assert same(logits(artifact, lengths), expected), lengths
    assert same(logits(built(model, tmp_path / "wide", target, "vcu128", 9), [50, 54]), expected)


def test_the_reference_agrees(tmp_path: Path) -> None:
    for number, attrs in enumerate((KINDS["alibi, window, softcap"], KINDS["window 32"])):
        artifact = built(graph_of([attrs], permuted=True), tmp_path / str(number))
        assert same(logits(artifact, [37, 29, 38], "reference"), logits(artifact, [40, 40, 24]))


@pytest.mark.parametrize("name", KINDS)
def test_against_the_float_meaning(name: str, tmp_path: Path) -> None:
    """Within the accuracy of a small random model; a window that is one off is not."""
    artifact = built(graph_of([KINDS[name]]), tmp_path / "a")
    found = logits(artifact, [40, 40, 24])[0].view(np.float16).astype(np.float32)

    def error(wanted: NDArray[np.float32]) -> float:
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())

    assert error(meant(artifact)) < 0.01
    for change in wrong(KINDS[name]):
        assert error(meant(artifact, **change)) > 0.05, change


def wrong(attrs: dict[str, float]) -> list[dict[str, float]]:
    """Other values of the attributes, which must not be taken for these."""
    window = attrs.get("window", 0)
    changes = [{"window": window + step} for step in (-1, 1) if 1 < window < CTX]
    changes += [{"softcap": 0.0}] if "softcap" in attrs else []
    return changes + ([{"alibi": 0.0}] if "alibi" in attrs else [])


def test_layers_of_two_kinds_roll(tmp_path: Path) -> None:
    """Windows in every other layer, as some models have them: a loop whose turn is two layers, and the same bits."""
    model = graph_of([KINDS["window 33"], KINDS["alibi"]] * 3, permuted=True)
    artifact = built(model, tmp_path / "rolled")
    rolled = logits(artifact, [40, 40, 24])
    build(model, load_target("v3", "nano"), Options(ctx=CTX, chunk=CHUNK, rolls=False), tmp_path / "flat")
    flat = Artifact.open(tmp_path / "flat")
    texts = [one.file("task.txt").read_text() for one in (artifact, flat)]
    assert texts[0].count("launch SOFTMAX") < texts[1].count("launch SOFTMAX")
    assert same(logits(flat, [39, 1, 40, 24]), rolled)
    assert same(logits(built(model, tmp_path / "v2", "v2", chunk=13), [13] * 8), rolled)


def test_several_sequences_in_a_step(tmp_path: Path) -> None:
    artifact = built(graph_of([KINDS["window 33"], KINDS["alibi, window, softcap"]], permuted=True), tmp_path / "a")
    lengths, alone = (2, 31, 64, 98), []
    for length in lengths:
        with open_session(artifact) as session:
            session.prefill(IDS[:length])
            alone.append([session.step([7], 1).logits.tobytes() for _ in range(3)])
    with open_engine("sim", artifact) as device:
        sessions = [Session(artifact, device, i) for i in range(len(lengths))]
        for session, length in zip(sessions, lengths, strict=True):
            session.prefill(IDS[:length])
        batch = Batch(sessions)
        for step in range(3):
            result = batch.step({i: 7 for i in range(len(lengths))})
            assert [row.tobytes() for row in result.logits] == [one[step] for one in alone]
