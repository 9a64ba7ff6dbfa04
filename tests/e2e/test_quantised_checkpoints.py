"""Quantised checkpoints from their files to tokens: nothing of their numbers changes on the way."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from dlavm.compile import Options, build
from dlavm.frontend import load_model
from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from dlavm.target import load_target
from dlavm.verbs.floats import FloatSession, model_session, quantised_session
from tests.unit.gguf_files import SIZES, random_blocks
from tests.unit.gguf_files import write as write_gguf
from tests.unit.quantized_llama import Maker, pair
from tests.unit.quantized_tensors import awq, fp8, gptq, int_quantized, mxfp4_packed, pack_quantized
from tests.unit.test_gguf_model import paired, tensors
from tests.unit.test_quantized import AWQ, FP8, GPTQ, compressed

Command = Callable[..., Any]
PROMPT = [3, 17, 38, 1, 9, 22, 8]
G128 = {"group_size": 128}
CASES: dict[str, tuple[Maker, dict[str, Any], str, tuple[str, ...]]] = {
    "gptq": (lambda n, k, s: gptq(n, k, seed=s), GPTQ, "int4g32z", ("v2", "v3")),
    "gptq-128": (lambda n, k, s: gptq(n, k, 128, seed=s), {**GPTQ, **G128}, "int4g128z", ("v1", "v2", "v3")),
    "gptq-order": (lambda n, k, s: gptq(n, k, act=True, seed=s), GPTQ, "int4g32z", ("v2", "v3")),
    "gptq-8": (lambda n, k, s: gptq(n, k, bits=8, sym=True, seed=s), {**GPTQ, "bits": 8}, "int8g32", ("v2", "v3")),
    "awq": (lambda n, k, s: awq(n, k, 128, seed=s), {**AWQ, **G128}, "int4g128z", ("v1", "v3")),
    "packed": (lambda n, k, s: pack_quantized(n, k, seed=s), compressed(group_size=32), "int4g32", ("v2", "v3")),
    "int8": (lambda n, k, s: int_quantized(n, k, (n, 1), k, seed=s), compressed(num_bits=8), "int8g128", ("v3",)),
    "fp8": (lambda n, k, s: fp8(n, k, (n, 1), (1, k), "weight_scale", np.float32, s), FP8, "fp8g128", ("v3",)),
    "mxfp4": (lambda n, k, s: mxfp4_packed(n, k, s), compressed(), "mxfp4", ("v3",)),
}  # fmt: skip
RUNS = [(name, target) for name, case in CASES.items() for target in case[3]]
QUICK = {("gptq-order", "v3"), ("awq", "v1")}


def built(model: Path, target: str, out: Path) -> tuple[dict[str, Any], Artifact]:
    report = build(load_model(model), load_target(target, "nano"), Options(ctx=32, chunk=8), out)
    return report, Artifact.open(out)


def logits(session: Any) -> np.ndarray:
    session.reset()
    if isinstance(session, FloatSession):
        return np.asarray(session.logits(PROMPT))
    return np.asarray(session.prefill(PROMPT, logits_all=True).logits).astype(np.float32)


def assert_close(ours: np.ndarray, theirs: np.ndarray, part: float) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=part * float(np.abs(theirs).max()))


@pytest.mark.parametrize(
    ("name", "target"), [pytest.param(*run, marks=[] if run in QUICK else pytest.mark.slow) for run in RUNS]
)
def test_the_numbers_stay(name: str, target: str, dlavm: Command, tmp_path: Path) -> None:
    make, quantization, format, _ = CASES[name]
    quantised, floats = pair(tmp_path, make, quantization)
    report, artifact = built(quantised, target, tmp_path / "out")
    rows = report["quantised"]
    assert [(row["from"], row["to"], row["how"]) for row in rows] == [(format, format, "exact")]
    assert rows[0]["tensors"] == 14
    # every number, as the file had it
    assert dlavm("dump", tmp_path / "out", "--stage", "weights", "--format", "hf", "-o", tmp_path / "hf").code == 0
    dumped, stored = (load_file(path / "model.safetensors") for path in (tmp_path / "hf", floats))
    kept = [tensor for tensor in stored if tensor != "lm_head.weight"]
    assert set(dumped) == set(stored) and len(kept) == 20
    for tensor in kept:
        np.testing.assert_array_equal(dumped[tensor], stored[tensor].astype(np.float32), tensor)
    # the simulator against the float graph on these numbers, and that against the float model
    with open_session(artifact) as session:
        assert_close(logits(session), logits(quantised_session(artifact)), 0.01)
    dumped_model = model_session(load_model(tmp_path / "hf"), Options(ctx=32, chunk=8))
    assert_close(logits(quantised_session(artifact)), logits(dumped_model), 1e-4)


def test_engines_agree_on_act_order(dlavm: Command, tmp_path: Path) -> None:
    make, quantization, *_ = CASES["gptq-order"]
    quantised, _ = pair(tmp_path, make, quantization)
    options = ("--target", "v3", "--board", "nano", "--ctx", 32, "--chunk", 8)
    assert dlavm("build", quantised, *options, "-o", tmp_path / "out").code == 0
    outcome = dlavm("verify", tmp_path / "out", "--prompts", "1,9", "--tokens", 3, "--json")
    assert outcome.code == 0, outcome.json["problems"]
    assert (outcome.json["mismatches"], outcome.json["engines"]) == (0, ["reference", "sim"])


def gguf_model(path: Path, kind: str) -> Path:
    """A random llama with matrices of that type, whose rows are of whole blocks."""
    number, sizes = gguf.GGMLQuantizationType[kind], {**SIZES, "embedding_length": 256, "feed_forward_length": 256}
    wide = tensors(layers=2)
    stored: dict[str, Any] = {}
    for place, (name, values) in enumerate(wide.items()):
        rows = {64: 256, 96: 256, 32: 128, 40: 40}[values.shape[0]]
        if values.ndim == 1:
            stored[name] = np.ones(256, np.float32)
        elif "token_embd" in name:
            stored[name] = np.random.default_rng(1).standard_normal((rows, 256)).astype(np.float32)
        else:
            elements = gguf.GGML_QUANT_SIZES[number][0]
            blocks = random_blocks(number, rows * 256 // elements, place).reshape(rows, -1)
            heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[-2], 0)
            stored[name] = (paired(blocks, heads) if heads else blocks, number)
    return write_gguf(path, "llama", {**sizes, "attention.key_length": 64, "attention.value_length": 64}, stored)


@pytest.mark.parametrize(("kind", "format"), [("Q8_0", "int8g32"), ("Q4_0", "int4g32")])
def test_grids_of_gguf_files_stay(kind: str, format: str, tmp_path: Path) -> None:
    path = gguf_model(tmp_path / "model.gguf", kind)
    report, artifact = built(path, "v3", tmp_path / "out")
    assert report["quantised"] == [
        {"from": format, "to": format, "how": "exact", "tensors": 15, "relative_rms": 0.0}
    ]  # fmt: skip
    with open_session(artifact) as session:
        ours = logits(session)
    assert_close(ours, logits(quantised_session(artifact)), 0.01)
    assert_close(ours, logits(model_session(load_model(path), Options(ctx=32, chunk=8))), 0.01)


def test_what_is_quantised_anew_is_measured(dlavm: Command, tmp_path: Path) -> None:
    """Against the difference of all numbers, taken here."""
    path = gguf_model(tmp_path / "model.gguf", "Q6_K")
    outcome = dlavm("build", path, "--target", "v3", "--board", "nano", "--ctx", 32, "-o", tmp_path / "out")
    assert (
        "15 tensors requantised to int8g32 with a relative RMS error of " in outcome.out and "(Q6_K: " in outcome.out
    )
    report, artifact = built(path, "v3", tmp_path / "again")
    (row,) = report["quantised"]
    weights, graph = load_model(path).needed_weights(), quantised_session(artifact)
    error = power = 0.0
    for param in graph.graph.params:
        if param.type.dtype == "int8g32":
            for name, _ in param.tensors:
                own = weights.get(name).astype(np.float64)
                power += float((own**2).sum())
            own = np.concatenate([weights.get(name) for name, _ in param.tensors]).astype(np.float64)
            error += float(((graph.weights[param.name] - own) ** 2).sum())
    assert row["tensors"] == 15 and row["how"] == "requantised" and row["to"] == "int8g32"
    assert row["relative_rms"] == pytest.approx((error / power) ** 0.5, rel=1e-6) and 1e-3 < row["relative_rms"] < 0.02
    assert dlavm("check", path, "--target", "v3").out.count("note: ") >= 1


def test_check_names_what_a_target_lacks(dlavm: Command, tmp_path: Path) -> None:
    quantised, _ = pair(tmp_path, *CASES["packed"][:2])
    outcome = dlavm("check", quantised, "--target", "v1", "--ctx", 32, "--json")
    notes = [note["what"] for note in outcome.json["notes"]]
    wanted = "14 weights (model.layers.0.self_attn.q_proj.weight, ..), int4g32 in the checkpoint: taken as int4g128"
    assert outcome.code == 0 and wanted in notes
    report, _ = built(quantised, "v1", tmp_path / "out")
    (row,) = report["quantised"]
    assert (row["from"], row["to"], row["how"]) == ("int4g32", "int4g128", "requantised") and row["relative_rms"] > 0.01


def test_a_gguf_file_speaks(dlavm: Command, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer comes out of the file, and the accelerator says what the float model says."""
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    make_gguf = importlib.import_module("make_gguf")
    path = tmp_path / "stories.gguf"
    make_gguf.convert(repository / "models" / "stories", path)
    outcome = dlavm("build", path, "--target", "v3", "--board", "nano", "--ctx", 64, "-o", tmp_path / "out")
    assert "57 tensors taken exactly, int4g32" in outcome.out and "note" not in outcome.out
    words = ("--prompt", "Once upon a time", "--raw", "--greedy", "--max-tokens", 12, "--json")
    ours = dlavm("run", tmp_path / "out", *words).json
    theirs = dlavm("run", path, "--float", "--engine", "reference", "--ctx", 64, *words).json
    assert ours["tokens"] == theirs["tokens"] and ours["text"] == theirs["text"]
    assert ours["prompt_tokens"] == theirs["prompt_tokens"] == 5 and ours["text"].strip()


def test_a_gguf_file_without_words(dlavm: Command, tmp_path: Path) -> None:
    path = gguf_model(tmp_path / "model.gguf", "Q8_0")
    outcome = dlavm("build", path, "--target", "v3", "--board", "nano", "--ctx", 32, "-o", tmp_path / "out")
    assert "note:         without a tokenizer, so that it takes and gives ids only: " in outcome.out
    assert dlavm("run", tmp_path / "out", "--prompt-ids", "1,2", "--max-tokens", 2).code == 0
    assert dlavm("run", tmp_path / "out", "--prompt", "a", "--max-tokens", 2).code == 2
