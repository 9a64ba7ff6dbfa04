"""Every family three ways: transformers, our float graph, the accelerator's simulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import pre_tokenizers

from dlavm.compile import Options, build
from dlavm.frontend import load_model
from dlavm.frontend.decoder import Decoder, Fused, decoder_graph
from dlavm.frontend.hf import shape_of
from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from dlavm.support.errors import DlavmError
from dlavm.target import load_target
from dlavm.verbs.checkpoint import write_checkpoint
from dlavm.verbs.floats import FloatSession, model_session, quantised_session
from dlavm.verbs.lockstep import Lockstep
from dlavm.verbs.verify import Agreement
from tests.e2e import families
from tests.e2e.families import CASES, VOCAB

pytest.importorskip("torch")
pytest.importorskip("transformers")

TOKENS, DECODED = 24, 3
PROMPT = [int(token) for token in np.random.default_rng(11).integers(0, VOCAB, 21)]
Checkpoint = Callable[[str], tuple[Path, families.Logits]]
Change = Callable[[Decoder], Decoder]
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Directory and model of transformers of a case, made once."""

    @cache
    def made(name: str) -> tuple[Path, families.Logits]:
        directory = tmp_path_factory.mktemp(name)
        return directory, families.write(BY_NAME[name], directory)

    return made


def greedy(session: FloatSession) -> tuple[list[int], np.ndarray]:
    """The prompt and the tokens behind it; the logits of all of them but the last."""
    ids, parts = list(PROMPT), [session.logits(PROMPT)]
    for _ in range(TOKENS):
        ids.append(int(parts[-1][-1].argmax()))
        parts.append(session.logits(ids[-1:]))
    return ids, np.concatenate(parts)[:-1]


@pytest.mark.parametrize("name", BY_NAME)
def test_the_float_graph_gives_the_tokens_of_transformers(name: str, checkpoint: Checkpoint) -> None:
    directory, model = checkpoint(name)
    ids, ours = greedy(model_session(load_model(directory), Options(ctx=64, chunk=16)))
    theirs = model(ids[:-1])
    largest = float(np.abs(theirs).max())
    assert largest > 1 and ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * largest)
    for row, token in zip(theirs[len(PROMPT) - 1 :], ids[len(PROMPT) :], strict=True):
        top = np.sort(row)[-2:]
        assert int(row.argmax()) == token or top[1] - top[0] < 1e-3


def compiled(directory: Path, target: str, out: Path) -> Artifact:
    build(load_model(directory), load_target(target, "nano"), Options(ctx=64, chunk=16), out)
    return Artifact.open(out)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_simulator_gives_the_bits_of_the_reference_and_the_logits_of_the_floats(
    name: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    artifact = compiled(checkpoint(name)[0], "v3", tmp_path / "a")
    with Lockstep(artifact, ["reference", "sim"]) as lockstep:
        parts, ids = [lockstep.step("prompt", PROMPT, logits_all=True).logits], list(PROMPT)
        for _ in range(DECODED):
            ids.append(int(parts[-1][-1].argmax()))
            parts.append(lockstep.step("decode", ids[-1:]).logits)
        assert lockstep.problems == []
    agreement = Agreement()
    agreement.add(np.concatenate(parts), quantised_session(artifact).logits(ids))
    assert not agreement.problem and agreement.agreeing > 0.9 * agreement.positions


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_generations_give_the_same_bits(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    found = {}
    for target in families.ALL:
        if target not in BY_NAME[name].targets:
            with pytest.raises(DlavmError, match=f"cannot be compiled for {target}"):
                compiled(checkpoint(name)[0], target, tmp_path / target)
            continue
        with open_session(compiled(checkpoint(name)[0], target, tmp_path / target), "sim") as session:
            found[target] = session.prefill(PROMPT, logits_all=True).logits.tobytes()
    assert set(found.values()) == {found["v3"]}


def attention(**changes: Any) -> Change:
    """The same changes to the attention of all layers."""

    def change(decoder: Decoder) -> Decoder:
        layers = (replace(layer, attention=replace(layer.attention, **changes)) for layer in decoder.layers)
        return replace(decoder, layers=tuple(layers))

    return change


def turning(**changes: Any) -> Change:
    """The same changes to the rotary embeddings of all layers."""

    def change(decoder: Decoder) -> Decoder:
        turned = [replace(layer.attention.rotary, **changes) for layer in decoder.layers]
        pairs = zip(decoder.layers, turned, strict=True)
        layers = (replace(m, attention=replace(m.attention, rotary=rotary)) for m, rotary in pairs)
        return replace(decoder, layers=tuple(layers))

    return change


def experts(**changes: Any) -> Change:
    def change(decoder: Decoder) -> Decoder:
        return replace(decoder, layers=tuple(replace(m, mlp=replace(m.mlp, **changes)) for m in decoder.layers))

    return change


def whole(**changes: Any) -> Change:
    return lambda decoder: replace(decoder, **changes)


MATTERS: list[tuple[str, Change]] = [
    ("llama", turning(interleaved=True)),
    ("llama-linear", turning(scaling=None)),
    ("llama-3.1", turning(scaling=None)),
    ("llama-yarn", turning(scaling=None)),
    ("codellama", turning(theta=1e4)),
    ("mistral", attention(window=0)),
    ("mixtral", experts(top_k=1)),
    ("qwen2-window", attention(window=11)),
    ("qwen3-moe-plain", experts(renormalize=True)),
    ("phi", turning(theta=1e3)),
    ("phi3-long", turning(scaling=None)),
    ("gemma", whole(embedding_scale=1.0)),
    ("gemma2", attention(softcap=0.0)),
    ("gemma2", whole(logit_softcap=0.0)),
    ("gemma3", turning(theta=1e4, scaling=None)),
    ("gpt2-scaled", attention(scale=0.1)),
    ("gpt-bigcode-heads", whole(qkv=Fused())),
    ("gptj", turning(interleaved=False)),
    ("codegen", whole(qkv=Fused(4, "qkv"))),
    ("falcon-40b", whole(qkv=Fused(1))),
    ("falcon-rw", attention(alibi_scale=1.0)),
    ("mpt", attention(alibi=7.0)),
    ("granite", whole(residual_scale=1.0)),
    ("glm", turning(interleaved=False)),
    ("chatglm3", turning(theta=1e4)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), MATTERS)
def test_what_a_case_shows_makes_a_difference(name: str, change: Change, checkpoint: Checkpoint) -> None:
    """Otherwise agreement with transformers would say nothing of it."""
    directory, _ = checkpoint(name)
    path = directory / "config.json"
    decoder = change(shape_of(path, json.loads(path.read_text())).decoder)
    model = replace(load_model(directory), build=lambda ctx, chunk: decoder_graph(decoder, "changed", ctx, chunk, {}))
    others, right = model_session(model, Options(ctx=64, chunk=16)).logits(PROMPT), logits(directory)
    assert np.abs(others - right).max() > 5e-3 * np.abs(right).max()


def test_longrope_goes_by_the_context(checkpoint: Checkpoint) -> None:
    """Beyond the original context of 64 the long factors hold, as in transformers for a prompt of more."""
    directory, model = checkpoint("phi3-long")
    ids = [int(token) for token in np.random.default_rng(3).integers(0, VOCAB, 70)]
    ours, theirs = model_session(load_model(directory), Options(ctx=80, chunk=16)).logits(ids), model(ids)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * float(np.abs(theirs).max()))


DUMPED = ("gemma2", "gpt2", "gpt-bigcode-heads", "codegen", "falcon-40b", "phi3", "qwen3-moe", "granite")


@pytest.mark.slow
@pytest.mark.parametrize("name", DUMPED)
def test_transformers_reads_the_numbers_of_an_artifact(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Transposed, cut, interleaved and shifted tensors are put together again."""
    import transformers

    artifact = compiled(checkpoint(name)[0], "v3", tmp_path / "a")
    write_checkpoint(artifact, tmp_path / "hf")
    attention = {"attn_implementation": BY_NAME[name].attention}
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", **attention).float().eval()
    theirs, ours = families.logits_of(model)(PROMPT), quantised_session(artifact).logits(PROMPT)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * float(np.abs(theirs).max()))


def rewritten(source: Path, out: Path, names: Callable[[str], str], more: dict[str, np.ndarray] | None = None) -> Path:
    """The checkpoint with other names for its tensors, and more of them."""
    out.mkdir()
    (out / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    save_file({names(n): t for n, t in tensors.items()} | (more or {}), out / "model.safetensors")
    return out


def logits(directory: Path) -> np.ndarray:
    return model_session(load_model(directory), Options(ctx=64, chunk=16)).logits(PROMPT)


def test_the_first_gpt2_files_have_no_prefix_and_hold_masks(checkpoint: Checkpoint, tmp_path: Path) -> None:
    directory, model = checkpoint("gpt2")
    masks = {f"h.{layer}.attn.{name}": np.ones((1, 1, 9, 9), np.float32)
             for layer in range(2) for name in ("bias", "masked_bias")}  # fmt: skip
    old = rewritten(directory, tmp_path / "old", lambda name: name.removeprefix("transformer."), masks)
    np.testing.assert_array_equal(logits(old), logits(directory))


def test_the_first_gemma3_files_name_the_text_model_first(checkpoint: Checkpoint, tmp_path: Path) -> None:
    directory, _ = checkpoint("gemma3-images")

    def named(name: str) -> str:
        return name.replace("model.language_model.", "language_model.model.").replace("model.vision_", "vision_")

    np.testing.assert_array_equal(logits(rewritten(directory, tmp_path / "old", named)), logits(directory))


def test_a_base_model_and_a_sharded_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    directory, _ = checkpoint("qwen2")  # its head is the embedding
    bare = rewritten(directory, tmp_path / "bare", lambda name: name.removeprefix("model."))
    np.testing.assert_array_equal(logits(bare), logits(directory))
    tensors, files = load_file(directory / "model.safetensors"), {}
    (tmp_path / "shards").mkdir()
    for index, (name, tensor) in enumerate(tensors.items()):
        files[name] = f"model-{index}.safetensors"
        save_file({name: tensor}, tmp_path / "shards" / files[name])
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (tmp_path / "shards" / "config.json").write_bytes((directory / "config.json").read_bytes())
    np.testing.assert_array_equal(logits(tmp_path / "shards"), logits(directory))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("phi3", {"intermediate_size": 208}, "gate_up_proj.weight: expected a multiple of 416 rows, got shape"),
        ("gpt2", {"n_inner": 760}, r"c_fc.weight\|T expected shape \[760, 192\], got \[768, 192\]"),
        ("falcon-40b", {"num_kv_heads": 4}, r"query_key_value.weight: expected a multiple of 192 rows, got shape"),
        ("mixtral", {"num_local_experts": 5}, "missing tensors: model.layers.0.block_sparse_moe.experts.4"),
        ("mixtral", {"num_local_experts": 3}, r"moe.gate.weight expected shape \[3, 160\], got \[4, 160\]"),
        ("gpt2", {"n_positions": 64}, r"wpe.weight expected shape \[64, 192\], got \[128, 192\]"),
        ("qwen3", {"head_dim": 64}, r"q_proj.weight expected shape \[256, 160\], got \[512, 160\]"),
        ("starcoder2", {"use_bias": False}, "got extra: model.layers.0.mlp.c_fc.bias"),
        ("gemma2", {"num_hidden_layers": 4}, "num_hidden_layers expected at most 3, the layers that the tensors of"),
    ],
)
def test_sizes_that_disagree_with_the_tensors_are_refused(
    name: str, changes: dict[str, int], message: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    other = rewritten(checkpoint(name)[0], tmp_path / "other", str)
    fields = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**fields, "layer_types": None, **changes}))
    with pytest.raises(DlavmError, match=message):
        load_model(other).graph(16, 4)


def test_texts_need_a_tokenizer(checkpoint: Checkpoint, dlavm: Callable[..., Any], tmp_path: Path) -> None:
    """Ids do not; vocab.json and merges.txt are enough for one."""
    other = rewritten(checkpoint("gpt2")[0], tmp_path / "other", str)
    options = ("--target", "v3", "--board", "nano", "--ctx", 64)
    assert dlavm("build", other, *options, "-o", tmp_path / "ids").code == 0
    run = ("--greedy", "--max-tokens", 3, "--json")
    assert len(dlavm("run", tmp_path / "ids", "--prompt-ids", "5,300,7", *run).json["tokens"]) == 3
    outcome = dlavm("run", tmp_path / "ids", "--prompt", "ab", *run)
    assert outcome.code == 2 and "tokenizer" in outcome.err
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    (other / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate([*letters, "ab", "abc"])}))
    (other / "merges.txt").write_text("#version: 0.2\na b\nab c\n")
    assert dlavm("build", other, *options, "-o", tmp_path / "texts").code == 0
    report = dlavm("run", tmp_path / "texts", "--prompt", "abcab", *run).json
    assert report["prompt_tokens"] == 2 and len(report["tokens"]) == 3
