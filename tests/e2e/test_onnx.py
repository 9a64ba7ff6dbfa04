"""ONNX decoders all the way: checked, built, run on every generation; exports of transformers token by token."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dlavm.compile import Options
from dlavm.frontend import load_model
from dlavm.pack.artifact import Artifact
from dlavm.pack.unpack import read_weights
from dlavm.runtime.session import Session, open_session
from dlavm.verbs.floats import FloatSession, model_session
from tests.e2e import families
from tests.e2e.conftest import run_command
from tests.e2e.onnx_exports import export
from tests.unit.onnx_models import VOCAB, Writer
from tests.unit.onnx_steps import theirs

IDS = [int(token) for token in np.random.default_rng(7).integers(0, VOCAB, 17)]
TARGETS = ("v1", "v2", "v3")
TOKENS = 24
# Layout of the exports: what the legacy exporter of this torch cannot write is left to the other.
EXPORTS = (
    ("llama", "legacy past"), ("llama", "dynamo past"), ("llama", "dynamo"), ("llama-3.1", "legacy"),
    ("llama-yarn", "legacy past"), ("mistral", "legacy past"), ("qwen2", "legacy past"), ("qwen2", "dynamo"),
    ("qwen3", "legacy past"), ("phi", "legacy"), ("phi3", "legacy past"), ("gemma", "legacy"),
    ("gemma2", "dynamo past"), ("gemma3", "legacy past"), ("gpt2", "legacy past"), ("gpt2", "dynamo"),
    ("gpt-bigcode", "legacy past"), ("gptj", "legacy"), ("codegen", "legacy past"), ("starcoder2", "legacy"),
    ("falcon-7b", "legacy past"), ("falcon-40b", "legacy"), ("mpt", "legacy past"), ("granite", "legacy"),
    ("olmo2", "legacy past"),
)  # fmt: skip


def built(model: Path, out: Path, *options: object) -> Artifact:
    outcome = run_command("build", model, *options, "-o", out, "--json")
    assert outcome.code == 0, outcome.err
    return Artifact.open(out)


def conversation(session: Session) -> list[bytes]:
    """Logits of a prompt in pieces, of tokens one by one, and the cache in the end."""
    parts = [session.prefill(IDS[:6], logits_all=True), session.prefill(IDS[6:])]
    parts += [session.step([int(parts[-1].next_ids[-1])], 1) for _ in range(3)]
    return [*(part.logits.tobytes() for part in parts), session.save_state()]


@pytest.mark.parametrize("form", [{}, {"cached": True, "bias": True, "mlp": "fused", "act": "gelu_tanh"}])
def test_one_file_on_three_generations(form: dict[str, Any], tmp_path: Path) -> None:
    path = Writer(**form).save(tmp_path / "model.onnx")
    found = []
    for target in TARGETS:
        artifact = built(path, tmp_path / target, "--target", target, "--board", "nano", "--ctx", 40, "--chunk", 6)
        for engine in ("sim", "reference") if target == "v3" else ("sim",):
            with open_session(artifact, engine) as session:
                found.append(conversation(session))
    assert all(other == found[0] for other in found[1:])


def test_the_accelerator_is_near_the_file(tmp_path: Path) -> None:
    path = Writer(cached=True).save(tmp_path / "model.onnx")
    built(path, tmp_path / "a", "--target", "v3", "--board", "nano", "--ctx", 40, "--quant", "int8g32")
    outcome = run_command("verify", tmp_path / "a", "--tokens", "4", "--json")
    assert outcome.code == 0 and outcome.json["ok"], outcome.err


@pytest.mark.parametrize("zero", [False, True])
def test_numbers_of_quantised_files_are_kept(zero: bool, tmp_path: Path) -> None:
    path = Writer(cached=True, norm="contrib", attention="gqa", linear="nbits", zero=zero).save(tmp_path / "model.onnx")
    artifact = built(path, tmp_path / "a", "--target", "v2", "--board", "nano", "--ctx", 40)
    kept, source = read_weights(artifact), load_model(path).weights
    assert source is not None
    quantised = [name for name in source.names() if name.endswith("_q4")]
    assert len(quantised) == 14 and all(source.dtype(n) == ("int4g32z" if zero else "int4g32") for n in quantised)
    for name in quantised:
        np.testing.assert_array_equal(kept[name], source.get(name))


def test_tokenizer_and_special_tokens_beside_the_file(stories_py: Path, tmp_path: Path) -> None:
    path = Writer().save(tmp_path / "model.onnx")
    assert load_model(path).tokenizer is None and load_model(path).config["eos_token_ids"] == []
    (tmp_path / "tokenizer.json").write_bytes((stories_py.parent / "stories" / "tokenizer.json").read_bytes())
    (tmp_path / "genai_config.json").write_text('{"model": {"eos_token_id": [3, 4], "context_length": 32}}')
    model = load_model(path)
    assert model.tokenizer == tmp_path and model.config["eos_token_ids"] == [3, 4] and model.max_ctx == 32


def spoilt(path: Path) -> Path:
    """A decoder with operators that it cannot have, in two places."""
    model = Writer().model()
    nodes = list(model.graph.node)
    acts = [node for node in nodes if node.op_type == "Sigmoid"]
    acts[0].op_type = "Softplus"
    acts[1].op_type = "TopKGate"
    acts[1].domain = "somewhere"
    model.opset_import.append(helper.make_opsetid("somewhere", 1))
    path.write_bytes(model.SerializeToString())
    return path


def test_check_lists_what_is_not_supported(tmp_path: Path) -> None:
    path = spoilt(tmp_path / "model.onnx")
    outcome = run_command("check", path, "--target", "v3", "--json")
    assert outcome.code == 1
    problems = outcome.json["problems"]
    assert any("(somewhere.TopKGate): no operator of doc/onnx.md" in p["what"] for p in problems)
    assert run_command("check", Writer().save(tmp_path / "good.onnx"), "--target", "v3").code == 0
    build = run_command("build", path, "--target", "v3", "-o", tmp_path / "a")
    assert build.code == 2 and "somewhere.TopKGate" in build.err and not (tmp_path / "a").exists()


def test_operators_without_a_meaning_are_all_named(tmp_path: Path) -> None:
    model = Writer().model()
    acts = [node for node in model.graph.node if node.op_type == "Sigmoid"]
    assert len(acts) > 1
    for node in acts:
        node.op_type = "Det"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    problems = run_command("check", tmp_path / "model.onnx", "--target", "v3", "--json").json["problems"]
    assert len([p for p in problems if p["what"].endswith("(Det): no operator of doc/onnx.md")]) == len(acts)


def test_an_activation_that_the_hardware_has_not(tmp_path: Path) -> None:
    model = Writer().model()
    for node in model.graph.node:
        node.op_type = "Softplus" if node.op_type == "Sigmoid" else node.op_type
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    outcome = run_command("check", tmp_path / "model.onnx", "--target", "v3", "--json")
    assert outcome.code == 1 and len(outcome.json["problems"]) == 2
    assert all("(Softplus): fits no pattern" in p["what"] for p in outcome.json["problems"])


Export = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The file of a family, exported one way."""
    pytest.importorskip("transformers")

    @cache
    def model(name: str) -> Any:
        (case,) = (case for case in families.CASES if case.name == name)
        return families.write_transformers(case, tmp_path_factory.mktemp(name))

    def made(name: str, way: str) -> Path:
        path = tmp_path_factory.mktemp(name) / "model.onnx"
        return export(model(name), path, dynamo="dynamo" in way, cached="past" in way)

    return made


def greedy(session: FloatSession, prompt: list[int]) -> tuple[list[int], Any]:
    """The prompt and the tokens behind it; the logits of all of them but the last."""
    ids, parts = list(prompt), [session.logits(prompt)]
    for _ in range(TOKENS):
        ids.append(int(parts[-1][-1].argmax()))
        parts.append(session.logits(ids[-1:]))
    return ids, np.concatenate(parts)[:-1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), EXPORTS, ids=[f"{name}-{way}" for name, way in EXPORTS])
def test_exports_give_the_tokens_of_onnxruntime(name: str, way: str, exported: Export) -> None:
    pytest.importorskip("onnxruntime")
    path = exported(name, way)
    prompt = [int(token) for token in np.random.default_rng(11).integers(0, families.VOCAB, 21)]
    ids, ours = greedy(model_session(load_model(path), Options(ctx=64, chunk=16)), prompt)
    wanted = theirs(path, np.array(ids[:-1]), (len(prompt), *[1] * (TOKENS - 1)) if "past" in way else ())
    largest = float(np.abs(wanted).max())
    assert largest > 1 and ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-3 * largest)
    for row, token in zip(wanted[len(prompt) - 1 :], ids[len(prompt) :], strict=True):
        top = np.sort(row)[-2:]
        assert int(row.argmax()) == token or top[1] - top[0] < 1e-3


def test_a_legacy_export_gives_the_tokens_of_onnxruntime(exported: Export) -> None:
    """The quick twin of the above."""
    test_exports_give_the_tokens_of_onnxruntime("llama", "legacy past", exported)


def test_helpers_write_what_the_checker_takes(tmp_path: Path) -> None:
    for form in ({}, {"cached": True, "opset": 13}):
        onnx.checker.check_model(Writer(**form).model())
