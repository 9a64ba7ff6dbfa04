"""Mixture of experts: the router's choice against the float meaning; any chunking, engine and layout of the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.check import check
from dlavm.compile import Options, build
from dlavm.frontend import Model
from dlavm.frontend.random_weights import RandomSource
from dlavm.graph import Builder, Graph, Value
from dlavm.pack.artifact import Artifact
from dlavm.pack.unpack import read_weights
from dlavm.runtime.batch import Batch
from dlavm.runtime.engine import open_engine
from dlavm.runtime.session import Session, open_session
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from dlavm.verbs.floats import FloatSession, artifact_graph

CTX, CHUNK, EXPERTS, HIDDEN, INNER = 48, 20, 6, 64, 96
IDS = np.random.default_rng(2).integers(0, 50, CTX).tolist()
NANO = load_target("v3", "nano")


def experts(b: Builder, x: Value, layer: int, top_k: int, renormalize: bool) -> Value:
    """One expert's matrices are tensors of their own."""
    shapes = {"gate": (EXPERTS, INNER, HIDDEN), "up": (EXPERTS, INNER, HIDDEN), "down": (EXPERTS, HIDDEN, INNER)}
    stacks = {name: b.stacked_param(f"{layer}.{name}", shape, [f"{layer}.{e}.{name}" for e in range(EXPERTS)])
              for name, shape in shapes.items()}  # fmt: skip
    logits = b.linear(x, b.param(f"{layer}.router", (EXPERTS, HIDDEN)))
    return b.moe(x, logits, **stacks, top_k=top_k, act="silu", renormalize=renormalize)


def mixture(layers: int = 2, top_k: int = 2, renormalize: bool = True) -> Model:
    def graph(ctx: int, chunk: int) -> Graph:
        b = Builder("mixture", ctx=ctx, chunk=chunk)
        x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (50, HIDDEN)))
        for layer in range(layers):
            h = b.rms_norm(x, b.param(f"{layer}.gamma", (HIDDEN,)), eps=1e-5)
            heads = b.reshape(b.linear(h, b.param(f"{layer}.qkv", (HIDDEN, HIDDEN))), shape=(b.token, 4, 16))
            caches = (b.kv_append(b.kv(f"{layer}.{n}", (4, b.ctx, 16)), heads) for n in ("keys", "values"))
            x = b.add(x, b.reshape(b.attention(heads, *caches, scale=0.25), shape=(b.token, HIDDEN)))
            x = b.add(x, experts(b, x, layer, top_k, renormalize))
        logits = b.linear(b.last_rows(x, count=b.head_rows), b.param("head", (50, HIDDEN)))
        return b.finish(logits=logits, next=b.argmax(logits))

    return Model("mixture", graph, RandomSource(graph(CTX, CHUNK), seed=1))


def built(model: Model, out: Path, spec: TargetSpec = NANO, **options: object) -> Artifact:
    build(model, spec, Options(**{"ctx": CTX, "chunk": CHUNK, **options}), out)  # type: ignore[arg-type]
    return replace(Artifact.open(out), target=spec)


def logits(artifact: Artifact, lengths: Sequence[int], engine: str = "sim") -> NDArray[np.uint16]:
    """Of every position, the prompt cut into steps of `lengths`."""
    with open_session(artifact, engine) as session:
        spans = zip(lengths, np.cumsum(lengths), strict=True)
        found = [session.prefill(IDS[end - n : end], logits_all=True).logits for n, end in spans]
        return np.concatenate(found).view(np.uint16)


@pytest.mark.parametrize(("top_k", "renormalize"), [(1, True), (2, True), (3, False), (EXPERTS, False)])
def test_against_the_float_meaning(top_k: int, renormalize: bool, tmp_path: Path) -> None:
    """And an expert more, one less, or the other weights are far from it."""
    artifact = built(mixture(1, top_k, renormalize), tmp_path / "a")
    found = logits(artifact, [20, 20, 8]).view(np.float16).astype(np.float32)
    graph, weights = artifact_graph(artifact), read_weights(artifact)

    def error(**attrs: object) -> float:
        nodes = (replace(n, attrs={**n.attrs, **attrs}) if n.op == "moe" else n for n in graph.nodes)
        wanted = FloatSession(replace(graph, nodes=tuple(nodes)), weights, 50).logits(IDS)
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())

    assert error() < 0.02
    assert all(error(top_k=k) > 0.05 for k in (top_k - 1, top_k + 1) if 1 <= k <= min(EXPERTS, 3))
    if top_k < EXPERTS:
        assert error(renormalize=not renormalize) > 0.05


def test_any_chunking_gives_the_bits_of_single_tokens(tmp_path: Path) -> None:
    artifact = built(mixture(), tmp_path / "a")
    single = logits(artifact, [1] * CTX)
    for lengths in ([20, 20, 8], [1, 19, 3, 20, 5]):
        assert np.array_equal(logits(artifact, lengths), single), lengths
    assert np.array_equal(logits(artifact, [7, 20, 20, 1], "reference"), single)


@pytest.mark.parametrize("name", ["vcu128", "small buffers", "one token", "flat"])
def test_layouts_of_the_program_give_the_same_bits(name: str, tmp_path: Path) -> None:
    model, spec, options = mixture(5), NANO, dict[str, object]()
    expected = logits(built(model, tmp_path / "expected"), [20, 20, 8])
    if name == "vcu128":
        spec = load_target("v3", "vcu128")
    elif name == "small buffers":  # less than one row of an expert: tiles along K
        spec = replace(NANO, board=replace(NANO.board, activation_elements=128, accumulators=64))
    else:
        options = {"one token": {"chunk": 1}, "flat": {"rolls": False}}[name]
    artifact = built(model, tmp_path / "a", spec, **options)
    lengths = [1] * CTX if name == "one token" else [20, 20, 8]
    assert np.array_equal(logits(artifact, lengths), expected)


def test_equal_layers_roll(tmp_path: Path) -> None:
    """The experts of a layer are reached from the number of the layer and that of the expert."""
    tasks = [built(mixture(count), tmp_path / str(count)).file("task.txt").read_text() for count in (5, 9)]
    assert all(text.count("TOPK") == 2 for text in tasks)  # that of the loop and that of the last layer
    assert tasks[0].count("\n") == tasks[1].count("\n")


def test_several_sequences_in_a_step(tmp_path: Path) -> None:
    artifact, lengths, alone = built(mixture(), tmp_path / "a"), (1, 17, 33), []
    for length in lengths:
        with open_session(artifact) as session:
            session.prefill(IDS[:length])
            alone.append(session.step([7], 1).logits.tobytes())
    with open_engine("sim", artifact) as device:
        sessions = [Session(artifact, device, i) for i in range(len(lengths))]
        for session, length in zip(sessions, lengths, strict=True):
            session.prefill(IDS[:length])
        result = Batch(sessions).step({i: 7 for i in range(len(lengths))})
        assert [row.tobytes() for row in result.logits] == alone


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_what_a_generation_lacks(target: str, tmp_path: Path) -> None:
    spec, model = load_target(target, "nano"), mixture(1)
    found = check(model, spec, Options(ctx=CTX))
    assert [p["what"] for p in found.problems] == [
        f"op moe cannot be compiled for {target}: every rule needs one of: loops + scalars + topk"]
    with pytest.raises(DlavmError, match="op moe cannot be compiled"):
        build(model, spec, Options(ctx=CTX), tmp_path / "a")
