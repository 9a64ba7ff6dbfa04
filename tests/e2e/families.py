"""Small random checkpoints of every family, as transformers makes them. The table in the README comes from here."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dlavm.frontend import RandomSource
from dlavm.frontend.families import FAMILIES, shape
from dlavm.graph.derived import assembled

Logits = Callable[[Sequence[int]], NDArray[Any]]
ALL = ("v1", "v2", "v3")
VOCAB = 331  # no multiple of 32


@dataclass(frozen=True)
class Case:
    """A checkpoint: the class of its configuration in transformers (none where that does not carry the family), and
    what it is called with.

    `model_type` is the row of dlavm's table of families, `shows` what of the family this case has, `targets` the
    generations that run it; `attention` is the implementation in transformers.
    """

    name: str
    model_type: str
    config: str
    shows: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    attention: str = "eager"
    targets: tuple[str, ...] = ALL


def _llama(**more: Any) -> dict[str, Any]:
    sizes = {"vocab_size": VOCAB, "hidden_size": 160, "intermediate_size": 200, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 128}
    return {**sizes, **heads, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, **more}


def _gpt(**more: Any) -> dict[str, Any]:
    sizes = {"vocab_size": VOCAB, "n_embd": 192, "n_head": 3, "n_layer": 2, "n_positions": 128}
    return {**sizes, "bos_token_id": 1, "eos_token_id": 2, **more}


def _falcon(**more: Any) -> dict[str, Any]:
    sizes = {"vocab_size": VOCAB, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {**sizes, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, **more}


def _chatglm(**more: Any) -> dict[str, Any]:
    sizes = {"padded_vocab_size": VOCAB, "hidden_size": 152, "ffn_hidden_size": 232, "num_layers": 2}
    heads = {"num_attention_heads": 4, "multi_query_group_num": 2, "kv_channels": 64, "seq_length": 128}
    return {**sizes, **heads, "layernorm_epsilon": 1e-5, "eos_token_id": 2, **more}


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


WINDOWS = {"sliding_window": 11}
LONG = {"short_factor": [1.0 + j / 20 for j in range(24)], "long_factor": [2.0 + j / 4 for j in range(24)]}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 72}
CASES = (
    Case("llama", "llama", "LlamaConfig", "plain rotary embeddings", _llama(head_dim=80)),
    Case("llama-linear", "llama", "LlamaConfig", "linear scaling, biases", _llama(
        num_key_value_heads=1, attention_bias=True, mlp_bias=True, **_rope("linear", factor=4.0))),
    Case("llama-dynamic", "llama", "LlamaConfig", "dynamic scaling", _llama(
        num_key_value_heads=4, head_dim=40, **_rope("dynamic", factor=2.0))),
    Case("llama-3.1", "llama", "LlamaConfig", "llama3 scaling", _llama(**_rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))),
    Case("llama-yarn", "llama", "LlamaConfig", "YaRN", _llama(**_rope(
        "yarn", factor=4.0, original_max_position_embeddings=32))),
    Case("codellama", "llama", "LlamaConfig", "CodeLlama's base of 1e6", _llama(
        num_attention_heads=2, num_key_value_heads=2, head_dim=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    Case("mistral", "mistral", "MistralConfig", "sliding window", _llama(head_dim=96, **WINDOWS)),
    Case("mixtral", "mixtral", "MixtralConfig", "mixture of experts", _llama(num_local_experts=4, head_dim=40),
        targets=("v3",)),
    Case("qwen2", "qwen2", "Qwen2Config", "biases, tied head", _llama(
        num_attention_heads=3, num_key_value_heads=1, tie_word_embeddings=True)),
    Case("qwen2-window", "qwen2", "Qwen2Config", "windows from a layer on", _llama(
        num_hidden_layers=3, head_dim=40, use_sliding_window=True, max_window_layers=1, **WINDOWS)),
    Case("qwen3", "qwen3", "Qwen3Config", "norms of queries and keys", _llama(head_dim=128)),
    Case("qwen3-moe", "qwen3_moe", "Qwen3MoeConfig", "experts in some layers", _llama(
        **EXPERTS, num_hidden_layers=3, mlp_only_layers=[1], norm_topk_prob=True), targets=("v3",)),
    Case("qwen3-moe-plain", "qwen3_moe", "Qwen3MoeConfig", "probabilities as they are", _llama(
        **EXPERTS, num_key_value_heads=1, norm_topk_prob=False), targets=("v3",)),
    Case("phi", "phi", "PhiConfig", "parallel blocks, partial rotary embeddings", _llama(
        hidden_size=240, num_attention_heads=3, num_key_value_heads=3, head_dim=80,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.4})),
    Case("phi-norm", "phi", "PhiConfig", "norms of queries and keys", _llama(
        hidden_size=256, num_key_value_heads=1, qk_layernorm=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5})),
    Case("phi3", "phi3", "Phi3Config", "fused projections, sliding window", _llama(
        hidden_size=256, num_key_value_heads=4, original_max_position_embeddings=128, **WINDOWS)),
    Case("phi3-long", "phi3", "Phi3Config", "LongRoPE of part of a head", _llama(
        hidden_size=256, num_key_value_heads=1, original_max_position_embeddings=64,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75, **LONG})),
    Case("gemma", "gemma", "GemmaConfig", "norms + 1, scaled embeddings", _llama(
        num_key_value_heads=1, head_dim=96, tie_word_embeddings=True)),
    Case("gemma2", "gemma2", "Gemma2Config", "soft caps, alternating windows", _llama(
        num_hidden_layers=3, query_pre_attn_scalar=48, attn_logit_softcapping=7.0, final_logit_softcapping=30.0,
        tie_word_embeddings=True, **WINDOWS)),
    Case("gemma3", "gemma3_text", "Gemma3TextConfig", "two rotary embeddings, norms of queries and keys", _llama(
        num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=100, tie_word_embeddings=True, **WINDOWS, rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}})),
    Case("gemma3-images", "gemma3", "Gemma3Config", "the text model in it", {
        "text_config": _llama(query_pre_attn_scalar=64, tie_word_embeddings=True, **WINDOWS),
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4}),
    Case("gpt2", "gpt2", "GPT2Config", "learned positions, transposed matrices", _gpt()),
    Case("gpt2-scaled", "gpt2", "GPT2Config", "scores scaled by layer", _gpt(
        n_embd=160, n_head=2, n_inner=200, scale_attn_by_inverse_layer_idx=True, activation_function="relu")),
    Case("gpt-bigcode", "gpt_bigcode", "GPTBigCodeConfig", "one head of keys and values", _gpt()),
    Case("gpt-bigcode-heads", "gpt_bigcode", "GPTBigCodeConfig", "all heads", _gpt(
        n_embd=160, n_head=2, multi_query=False)),
    Case("gptj", "gptj", "GPTJConfig", "interleaved partial rotary embeddings", _gpt(rotary_dim=16)),
    Case("codegen", "codegen", "CodeGenConfig", "fused projection in four blocks", _gpt(
        n_embd=256, n_head=4, rotary_dim=32)),
    Case("starcoder2", "starcoder2", "Starcoder2Config", "sliding window, biases", {
        k: v for k, v in _llama(hidden_size=192, num_attention_heads=3, num_key_value_heads=1, **WINDOWS).items()
        if k != "head_dim"}),
    Case("falcon-7b", "falcon", "FalconConfig", "one head of keys and values, parallel", _falcon()),
    Case("falcon-40b", "falcon", "FalconConfig", "new decoder architecture", _falcon(
        new_decoder_architecture=True, num_kv_heads=2, tie_word_embeddings=False)),
    Case("falcon-11b", "falcon", "FalconConfig", "one norm in it", _falcon(
        new_decoder_architecture=True, num_kv_heads=1, num_ln_in_parallel_attn=1)),
    Case("falcon-rw", "falcon", "FalconConfig", "ALiBi, all heads, sequential", _falcon(
        alibi=True, multi_query=False, parallel_attn=False, bias=True),
        attention="sdpa"),  # eager attention adds the biases twice: to the scores, and with the mask
    Case("mpt", "mpt", "MptConfig", "ALiBi of no power of two of heads", {
        "vocab_size": VOCAB, "d_model": 192, "n_heads": 3, "n_layers": 2, "max_seq_len": 128}),
    Case("granite", "granite", "GraniteConfig", "scales of embeddings, residuals, scores, logits", _llama(
        hidden_size=256, num_key_value_heads=4, embedding_multiplier=3.0, residual_multiplier=0.6,
        attention_multiplier=0.2, logits_scaling=2.5)),
    Case("olmo2", "olmo2", "Olmo2Config", "norms behind the blocks, and of all heads at once", {
        k: v for k, v in _llama(hidden_size=256, num_key_value_heads=2).items() if k != "head_dim"}),
    Case("glm", "glm", "GlmConfig", "interleaved rotary embeddings of half a head", _llama(head_dim=80)),
    Case("chatglm2", "chatglm", "", "fused projections, interleaved rotary embeddings", _chatglm()),
    Case("chatglm3", "chatglm", "", "all heads, a longer base", _chatglm(
        multi_query_group_num=4, kv_channels=80, rope_ratio=50.0)),
    Case("glm4", "glm4", "Glm4Config", "norms around the blocks", _llama(num_key_value_heads=1)),
)  # fmt: skip


def write(case: Case, directory: Path) -> Logits:
    """The checkpoint in `directory`; the model in float32, which gives the logits of every one of some tokens."""
    return logits_of(write_transformers(case, directory)) if case.config else _write_chatglm(case, directory)


def write_transformers(case: Case, directory: Path) -> Any:
    """The checkpoint of a family that transformers has, and the model itself."""
    import torch
    import transformers

    config = getattr(transformers, case.config)(**case.fields, attn_implementation=case.attention)
    kind = "AutoModelForImageTextToText" if "vision_config" in case.fields else "AutoModelForCausalLM"
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        model = getattr(transformers, kind).from_config(config).float().eval()
        randomize(model, torch.Generator().manual_seed(case.seed))
        model.save_pretrained(directory)
    return model


def logits_of(model: Any) -> Logits:
    """Those of a model of transformers."""
    import torch

    def logits(ids: Sequence[int]) -> NDArray[Any]:
        with torch.no_grad():
            return np.asarray(model(torch.tensor([list(ids)])).logits[0].numpy())

    return logits


def _write_chatglm(case: Case, directory: Path) -> Logits:
    import torch

    from tests.e2e import chatglm_reference

    source = RandomSource(shape("chatglm", **case.fields).graph("chatglm", 1, 1), case.seed)
    tensors = assembled({name: source.get(name).astype(np.float32) for name in source.names()})
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"model_type": "chatglm", **case.fields}))
    state, sizes = {n: torch.from_numpy(t) for n, t in tensors.items()}, SimpleNamespace(**case.fields)
    return lambda ids: np.asarray(chatglm_reference.logits(state, sizes, ids).numpy())


def randomize(model: Any, generator: Any) -> None:
    """Numbers for which logits are far apart: matrices keep the size of a row, norms are near 1, biases small."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                fan_in = weight.shape[-2] if type_of(model, name) == "Conv1D" else weight.shape[-1]
                weight.copy_(drawn * (1.0 if "embed" in name or "wte" in name else 1.4 / fan_in**0.5))
            else:
                centre = 0.0 if name.endswith("bias") else weight.detach().clone()
                weight.copy_(centre + 0.2 * drawn)


def type_of(model: Any, name: str) -> str:
    return type(model.get_submodule(name.rpartition(".")[0])).__name__


def table() -> str:
    """Markdown: a row for each family that the tests hold against another implementation."""
    rows = ["| family | `model_type` | runs on | held against transformers with |", "|---|---|---|---|"]
    for model_type, family in FAMILIES.items():
        cases = [case for case in CASES if case.model_type == model_type]
        targets = ", ".join(name for name in ALL if any(name in case.targets for case in cases))
        shown = "; ".join(case.shows for case in cases)
        note = "" if all(case.config for case in cases) else " (our own torch reference)"
        rows.append(f"| {family.title} | `{model_type}` | {targets} | {shown}{note} |")
    return "\n".join(rows)
