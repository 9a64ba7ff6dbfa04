"""Models in every weight format, from the option to the logits: the same bits on engines, boards and generations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.compile import Options, build, compile_model
from dlavm.formats import FORMATS, Grid, quantize
from dlavm.frontend import Model
from dlavm.frontend.model import ALL
from dlavm.frontend.random_weights import RandomSource
from dlavm.graph import Builder, Graph
from dlavm.pack.artifact import Artifact
from dlavm.pack.unpack import read_weights
from dlavm.runtime.engine import upload
from dlavm.runtime.session import Session, open_session
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from dlavm.verbs.floats import quantised_session
from tests.e2e.conftest import Command

TARGETS = ("v1", "v2", "v3")
IDS = [3, 1, 4, 1, 5, 9, 2, 6]
VOCAB, DIM = 40, 48
WIDTHS = (328, 264, 200, 136, 56, 72)  # contraction lengths, none of them whole groups of 128


def formats_of(target: str) -> list[str]:
    return [name for name in FORMATS if load_target(target).has(name)]


def chain(ctx: int, chunk: int, count: int) -> Graph:
    """A head of attention and `count` pairs of linears: up{i} (width, DIM), down{i} (DIM, width)."""
    b = Builder("chain", ctx=ctx, chunk=chunk)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (VOCAB, DIM)))
    heads = b.reshape(b.linear(x, b.param("q", (DIM, DIM))), shape=(b.token, 1, DIM))
    keys, values = (b.kv_append(b.kv(f"{n}_cache", (1, b.ctx, DIM)), heads) for n in "kv")
    attended = b.reshape(b.attention(heads, keys, values, scale=DIM**-0.5), shape=(b.token, DIM))
    x = b.add(x, attended)
    for i in range(count):
        width = WIDTHS[i % len(WIDTHS)]
        h = b.rms_norm(x, b.param(f"norm{i}", (DIM,)), eps=1e-5)
        wide = b.linear(h, b.param(f"up{i}", (width, DIM)), act="silu")
        x = b.add(b.linear(wide, b.param(f"down{i}", (DIM, width))), x)
    logits = b.linear(b.last_rows(x, count=b.head_rows), b.param("head", (VOCAB, DIM)))
    return b.finish(logits=logits, next=b.argmax(logits))


def model(count: int, source: Callable[[Graph], Any] = RandomSource) -> Model:
    made = partial(chain, count=count)
    return Model("chain", made, source(made(32, 4)))


def mixed(formats: list[str], folder: Path) -> str:
    """The option for a chain whose pair i has format i."""
    path = folder / "mixed.json"
    path.write_text(json.dumps({f"*{kind}{i}": name for i, name in enumerate(formats) for kind in ("up", "down")}))
    return str(path)


def built(made: Model, spec: TargetSpec, quant: str, out: Path) -> Artifact:
    build(made, spec, Options(ctx=32, chunk=4, quant=quant), out)
    return replace(Artifact.open(out), target=spec)  # a board of a test is none that is installed


def logits(artifact: Artifact, engine: Any = NativeDevice, simd: str = "auto") -> bytes:
    with engine(artifact.target) as device:
        if simd != "auto":
            device.set_option("simd", simd)
        upload(device, artifact)
        session = Session(artifact, device)
        return session.prefill(IDS, chunks=[4, 1, 3], logits_all=True).logits.tobytes()


def k_tiled(target: str) -> TargetSpec:
    """A board on which every contraction is cut where sections end."""
    spec = load_target(target, "nano")
    return replace(spec, board=replace(spec.board, activation_elements=256, accumulators=64))


@pytest.mark.parametrize("target", ["v1", pytest.param("v2", marks=pytest.mark.slow), "v3"])
def test_every_format_that_a_target_has(target: str, tmp_path: Path) -> None:
    """In one model, of which any wrong bit reaches the logits: engines, paths and boards agree, and the float graph
    with the numbers that were packed is near."""
    formats = formats_of(target)
    quant, made = mixed(formats, tmp_path), model(len(formats))
    artifact = built(made, load_target(target, "nano"), quant, tmp_path / "a")
    assert artifact.manifest.quant == "+".join(sorted(formats))
    dtypes = {t.name: t.dtype for t in artifact.manifest.tensors}
    assert [dtypes[f"{kind}{i}"] for kind in ("up", "down") for i in range(len(formats))] == 2 * formats
    expected = logits(artifact, ReferenceDevice)
    assert logits(artifact) == logits(artifact, simd="portable") == expected
    assert logits(built(made, load_target(target, "vcu128"), quant, tmp_path / "b")) == expected
    tiled = built(made, k_tiled(target), quant, tmp_path / "c")
    assert logits(tiled) == expected
    assert "acc_in=1" in tiled.file("task.txt").read_text()
    ours = np.frombuffer(expected, np.float16).reshape(len(IDS), VOCAB)
    np.testing.assert_allclose(ours, quantised_session(artifact).logits(IDS), atol=0.05)
    assert np.abs(ours).max() > 1


@pytest.mark.slow
def test_generations_agree_on_the_formats_that_they_share(tmp_path: Path) -> None:
    for first, later in (("v1", "v2"), ("v2", "v3")):
        formats = formats_of(first)
        made, found = model(len(formats)), set()
        for target in (first, later):
            spec = load_target(target, "nano")
            found.add(logits(built(made, spec, mixed(formats, tmp_path), tmp_path / f"{first}-{target}")))
        assert len(found) == 1


class Quantised(RandomSource):
    """Some weights as a checkpoint quantised them."""

    FORMATS = {"up0": "int4g64z", "down0": "mxfp4", "up1": "int8g32"}

    def dtype(self, name: str) -> str:
        return self.FORMATS.get(name) or super().dtype(name)

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        if name not in self.FORMATS:
            return None
        grid = quantize(super().get(name).astype(np.float32), FORMATS[self.FORMATS[name]])
        return grid.rows(*rows.indices(grid.shape[0])[:2])

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        own = self.grid(name)
        return super().get(name, rows) if own is None else own.values()[rows]


def test_a_quantised_checkpoint_keeps_its_grids(tmp_path: Path) -> None:
    made = model(2, Quantised)
    artifact = built(made, load_target("v3", "nano"), "auto", tmp_path / "auto")
    dtypes = {t.name: t.dtype for t in artifact.manifest.tensors}
    assert {name: dtypes[name] for name in Quantised.FORMATS} == Quantised.FORMATS
    assert dtypes["down1"] == dtypes["head"] == "int4g128"
    weights = read_weights(artifact)
    for name in Quantised.FORMATS:
        assert (weights[name] == made.needed_weights().get(name)).all()
    elsewhere = compile_model(made, load_target("v1"), Options(ctx=32, chunk=4)).graph.params
    assert {p.type.dtype for p in elsewhere} <= {"f16", *formats_of("v1")}
    forced = built(made, load_target("v1", "nano"), "int4g128", tmp_path / "forced")
    assert forced.manifest.quant == "int4g128"
    own = quantize(np.float32(made.needed_weights().get("up1")), FORMATS["int4g128"])
    assert (read_weights(forced)["up1"] == own.values()).all()


def test_finer_groups_hold_the_same_numbers(tmp_path: Path) -> None:
    """A grid that the format asked for holds exactly is converted, not quantised a second time."""
    made = model(2, Quantised)
    artifact = built(made, load_target("v3", "nano"), "int4g32z", tmp_path / "a")
    assert (read_weights(artifact)["up0"] == made.needed_weights().get("up0")).all()
    assert (read_weights(artifact)["up1"] != made.needed_weights().get("up1")).any()


@pytest.mark.parametrize(("option", "message"), [
    ("int3", "--quant: expected one of int4g128, int4g128z, auto for v1, or a .json file, got 'int3'"),
    ("mxfp4", "--quant: expected one of int4g128, int4g128z, auto for v1, or a .json file, got 'mxfp4'"),
    ({"up0": "mxfp4"}, "format of 'up0' expected one of int4g128, int4g128z, got 'mxfp4'"),
    ({"up0": 4}, "'up0' expected the name of a format, got 4"),
    ({"layers.*": "int4g128z"}, r"pattern expected to fit one of the 6 weights, .* 'layers\.\*'"),
    ([], "mixed.json: expected a JSON object, got 'list'"),
])  # fmt: skip
def test_options_that_are_refused(option: Any, message: str, tmp_path: Path) -> None:
    quant = option
    if not isinstance(option, str):
        path = tmp_path / "mixed.json"
        path.write_text(json.dumps(option))
        quant = str(path)
    with pytest.raises(DlavmError, match=message):
        compile_model(model(2), load_target("v1", "nano"), Options(ctx=32, chunk=4, quant=quant))


def test_the_first_pattern_counts(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text('{"up1": "mxfp6", "up*": "int8g64", "h?ad": "fp8g128"}')
    compiled = compile_model(model(2), load_target("v3", "nano"), Options(ctx=32, chunk=4, quant=str(path)))
    found = {p.name: p.type.dtype for p in compiled.graph.params}
    names = ("up0", "up1", "head", "down0", "embed")
    assert [found[name] for name in names] == ["int8g64", "mxfp6", "fp8g128", "int4g128", "f16"]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "name"), [(t, n) for t in TARGETS for n in formats_of(t)])
def test_verify_of_a_small_model(target: str, name: str, dlavm: Command, tmp_path: Path) -> None:
    out = tmp_path / "a"
    built_ = dlavm("build", "models/llama.py:llama_tiny", "--target", target, "--board", "nano", "--weights", "random",
                   "--quant", name, "--ctx", "48", "--chunk", "16", "-o", out)
    assert built_.code == 0, built_.err
    verified = dlavm("verify", out, "--prompts", "1,19", "--tokens", "3", "--json")
    assert verified.code == 0, verified.err
    with open_session(Artifact.open(out)) as session:
        assert np.isfinite(session.prefill(IDS).logits).all()
