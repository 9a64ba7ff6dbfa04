"""GGUF files of every architecture: made of models of transformers by llama.cpp's rules, they give the same logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.compile import Options
from dlavm.frontend import load_model
from dlavm.verbs.floats import model_session
from tests.e2e import families
from tests.e2e.families import CASES, VOCAB, Case
from tests.unit.gguf_files import write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Tensors = dict[str, NDArray[np.float32]]
ARCHITECTURES = {"gemma3_text": "gemma3"}  # where it is not called like the model_type
BY_NAME = {case.name: case for case in CASES}
PROMPT = [int(token) for token in np.random.default_rng(11).integers(0, VOCAB, 30)]
# The width that scores are scaled by is not in a file: it is that of a head.
CHANGES: dict[str, dict[str, Any]] = {
    "gemma2": {"query_pre_attn_scalar": 64},
    "gemma3": {"query_pre_attn_scalar": 64, "layer_types": None, "num_hidden_layers": 7},
}
QUICK = ("llama", "phi3-long", "gemma2")
SLOW = ("llama-linear", "llama-3.1", "llama-yarn", "codellama", "qwen2", "qwen3", "phi3", "gemma", "gemma3")
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def case_of(name: str) -> Case:
    return replace(BY_NAME[name], fields={**BY_NAME[name].fields, **CHANGES.get(name, {})})


def convert(model: Any, path: Path, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32) -> Path:
    """As llama.cpp's convert_hf_to_gguf.py does, but for the tokenizer; matrices of the layers in `kind`."""
    config = model.config
    architecture = ARCHITECTURES.get(config.model_type, config.model_type)
    names = gguf.get_tensor_name_map(
        {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture], config.num_hidden_layers
    )
    tensors: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, ending = name.rpartition(".")
        values = tensor.float().numpy()
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads
            shape = values.shape
            values = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        quantised = values.ndim == 2 and ".layers." in name and values.shape[1] % 32 == 0
        tensors[f"{names.get_name(stem)}.{ending}"] = (values, kind) if quantised else values
    tensors |= dict(rope_tensors(config))
    return write(path, architecture, fields_of(config, architecture), tensors)


def rope(config: Any) -> dict[str, Any]:
    parameters = config.rope_parameters
    return dict(parameters.get("full_attention", parameters))


def rope_tensors(config: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    found = rope(config)
    if found["rope_type"] == "longrope":
        for length in ("long", "short"):
            yield f"rope_factors_{length}.weight", np.array(found[f"{length}_factor"], np.float32)
    if found["rope_type"] == "llama3":
        yield "rope_freqs.weight", np.array(list(llama3_factors(found, config.head_dim)), np.float32)


def llama3_factors(found: dict[str, Any], dim: int) -> Iterator[float]:
    """What each frequency of Llama 3.1 is divided by."""
    factor, low, high = found["factor"], found["low_freq_factor"], found["high_freq_factor"]
    original = found["original_max_position_embeddings"]
    for j in range(0, dim, 2):
        length = 2 * math.pi * found["rope_theta"] ** (j / dim)
        if length < original / high:
            yield 1.0
        elif length > original / low:
            yield factor
        else:
            smooth = (original / length - low) / (high - low)
            yield 1 / ((1 - smooth) / factor + smooth)


def fields_of(config: Any, architecture: str) -> dict[str, Any]:
    found, dim = rope(config), getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    fields: dict[str, Any] = {
        "vocab_size": config.vocab_size, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size, "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": dim, "attention.value_length": dim, "rope.freq_base": float(found["rope_theta"]),
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": int(dim * found.get("partial_rotary_factor", 1.0)),
    }  # fmt: skip
    if found["rope_type"] in ("linear", "yarn"):
        fields |= {"rope.scaling.type": found["rope_type"], "rope.scaling.factor": found["factor"]}
    if architecture == "phi3":
        fields["rope.scaling.original_context_length"] = config.original_max_position_embeddings
    elif "original_max_position_embeddings" in found:
        fields["rope.scaling.original_context_length"] = found["original_max_position_embeddings"]
    if found["rope_type"] == "longrope":
        scale = config.max_position_embeddings / config.original_max_position_embeddings
        factor = math.sqrt(1 + math.log(scale) / math.log(config.original_max_position_embeddings))
        fields["rope.scaling.attn_factor"] = factor
    if architecture in ("phi3", "gemma2", "gemma3") and config.sliding_window:
        fields["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        fields |= {"attn_logit_softcapping": config.attn_logit_softcapping,
                   "final_logit_softcapping": config.final_logit_softcapping}  # fmt: skip
    return fields


def logits_of(model: Any) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([PROMPT])).logits[0].numpy())


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = families.write_transformers(case_of(name), tmp_path / "hf")
    path = convert(model, tmp_path / "model.gguf")
    session = model_session(load_model(path), Options(ctx=64, chunk=16))
    ours = np.concatenate([session.logits(PROMPT[start : start + 15]) for start in (0, 15)])
    theirs = logits_of(model)
    largest = float(np.abs(theirs).max())
    assert largest > 1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gemma3"])
def test_transformers_reads_the_same_tensors(name: str, tmp_path: Path) -> None:
    """That the converter above does as llama.cpp's: another reader of its files finds the model again."""
    model = families.write_transformers(case_of(name), tmp_path / "hf")
    convert(model, tmp_path / "model.gguf")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    theirs = again.state_dict()
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(theirs[key], tensor, rtol=0, atol=1e-6)
