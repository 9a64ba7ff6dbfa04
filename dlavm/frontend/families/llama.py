"""Llama and the families that change little of it: biases, windows, norms of queries and keys, experts, scales."""

from __future__ import annotations

from dataclasses import replace

from dlavm.frontend.decoder import Attention, Decoder, Layer, Mlp, Norm
from dlavm.frontend.families.family import (
    FULL,
    LLAMA_NAMES,
    SLIDING,
    attention_of,
    decoder_of,
    mlp_of,
    names,
    windows_of,
)
from dlavm.frontend.families.fields import Fields

QWEN3_NAMES = names(q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")
QWEN3_MOE_NAMES = names(
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    router="mlp.gate",
    expert_gate="mlp.experts.{}.gate_proj",
    expert_up="mlp.experts.{}.up_proj",
    expert_down="mlp.experts.{}.down_proj",
)
MIXTRAL_NAMES = names(
    router="block_sparse_moe.gate",
    expert_gate="block_sparse_moe.experts.{}.w1",
    expert_up="block_sparse_moe.experts.{}.w3",
    expert_down="block_sparse_moe.experts.{}.w2",
)
OLMO2_NAMES = names(
    attn_norm=None,
    mlp_norm=None,
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
)


def rms(f: Fields, eps: float = 1e-6) -> Norm:
    return Norm(f.real("rms_norm_eps", eps))


def llama(f: Fields) -> Decoder:
    bias = f.flag("attention_bias", False)
    return decoder_of(f, attention_of(f, bias, bias), mlp_of(f, f.flag("mlp_bias", False)), rms(f))


def mistral(f: Fields) -> Decoder:
    window = f.count("sliding_window") if f.has("sliding_window") else 0
    return decoder_of(f, replace(attention_of(f), window=window), mlp_of(f), rms(f))


def mixtral(f: Fields) -> Decoder:
    window = f.count("sliding_window") if f.has("sliding_window") else 0
    mlp = replace(mlp_of(f), experts=f.count("num_local_experts", 8), top_k=_top_k(f, "num_local_experts", 2))
    attention = replace(attention_of(f, theta=1e6), window=window)
    return decoder_of(f, attention, mlp, rms(f, 1e-5), MIXTRAL_NAMES)


def qwen2(f: Fields) -> Decoder:
    return _windowed(f, decoder_of(f, attention_of(f, bias=True), mlp_of(f), rms(f)))


def qwen3(f: Fields) -> Decoder:
    return _windowed(f, decoder_of(f, _qwen3_attention(f), mlp_of(f), rms(f), QWEN3_NAMES))


def qwen3_moe(f: Fields) -> Decoder:
    """Some layers may have a plain MLP: those that mlp_only_layers names, and all but every decoder_sparse_step-th."""
    experts = "num_local_experts" if f.has("num_local_experts") else "num_experts"  # as transformers 5 writes it
    plain = mlp_of(f)
    mixed = Mlp(
        f.count("moe_intermediate_size", 768),
        plain.act,
        experts=f.count(experts, 128),
        top_k=_top_k(f, experts, 8),
        renormalize=f.flag("norm_topk_prob", False),
    )
    step, apart = f.count("decoder_sparse_step", 1), f.raw.get("mlp_only_layers") or []
    if not isinstance(apart, list):
        raise f.error("mlp_only_layers", "a list of layers")
    attention = _qwen3_attention(f)
    if f.flag("use_sliding_window", False) and f.has("sliding_window"):
        attention = replace(attention, window=f.count("sliding_window"))
    decoder = decoder_of(f, attention, plain, rms(f), QWEN3_MOE_NAMES)
    chosen = [plain if i in apart or (i + 1) % step else mixed for i in range(len(decoder.layers))]
    return replace(decoder, layers=tuple(Layer(attention, mlp) for mlp in chosen))


def granite(f: Fields) -> Decoder:
    bias = f.flag("attention_bias", False)
    attention = replace(attention_of(f, bias, bias), scale=f.positive("attention_multiplier", 1.0))
    return replace(
        decoder_of(f, attention, mlp_of(f, f.flag("mlp_bias", False)), rms(f)),
        embedding_scale=f.real("embedding_multiplier", 1.0),
        residual_scale=f.real("residual_multiplier", 1.0),
        logit_scale=1 / f.positive("logits_scaling", 1.0),
    )


def olmo2(f: Fields) -> Decoder:
    bias = f.flag("attention_bias", False)
    attention = replace(attention_of(f, bias, bias), qk_norm=rms(f, 1e-5), whole_norm=True)
    return decoder_of(f, attention, mlp_of(f), rms(f, 1e-5), OLMO2_NAMES)


def _qwen3_attention(f: Fields) -> Attention:
    bias = f.flag("attention_bias", False)
    f = f.with_defaults({"head_dim": 128})
    return replace(attention_of(f, bias, bias), qk_norm=rms(f))


def _windowed(f: Fields, decoder: Decoder) -> Decoder:
    """Qwen's windows: in the layers from max_window_layers on, or as layer_types says."""
    count = len(decoder.layers)
    uses = f.flag("use_sliding_window", False) and f.has("sliding_window")
    first = int(f.real("max_window_layers", 28))
    default = [SLIDING if uses and i >= first else FULL for i in range(count)]
    kinds = f.kinds("layer_types", count, (FULL, SLIDING), default)
    windows = windows_of(f, kinds if uses else [FULL] * count)
    return with_windows(decoder, windows)


def with_windows(decoder: Decoder, windows: list[int]) -> Decoder:
    """The decoder whose layers see so many positions."""
    layers = zip(decoder.layers, windows, strict=True)
    return replace(decoder, layers=tuple(replace(m, attention=replace(m.attention, window=w)) for m, w in layers))


def _top_k(f: Fields, experts: str, default: int) -> int:
    top_k = f.count("num_experts_per_tok", default)
    if top_k > f.count(experts, top_k):
        raise f.error("num_experts_per_tok", f"at most the {f.count(experts)} experts")
    return top_k


__all__ = ["LLAMA_NAMES", "granite", "llama", "mistral", "mixtral", "olmo2", "qwen2", "qwen3", "qwen3_moe"]
