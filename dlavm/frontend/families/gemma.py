"""Gemma 1, 2 and 3 (text): norms that store their factor less 1, scaled embeddings, soft caps, alternating windows."""

from __future__ import annotations

from dataclasses import replace

from dlavm.frontend.decoder import Attention, Decoder, Layer, Mlp, Norm
from dlavm.frontend.families.family import FULL, SLIDING, attention_of, decoder_of, mlp_of, names, windows_of
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.families.rope import rotary

SANDWICH = {
    "attn_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
GEMMA2_NAMES = names(**SANDWICH)
GEMMA3_NAMES = names(**SANDWICH, q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")
# What published files leave out: transformers has it in the defaults of its configuration classes.
DEFAULTS = {"head_dim": 256, "tie_word_embeddings": True, "max_position_embeddings": 8192}
GEMMA3_DEFAULTS = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
}


def gemma(f: Fields) -> Decoder:
    f = f.with_defaults(DEFAULTS)
    return _gemma(f, _attention(f), _mlp(f))


def gemma2(f: Fields) -> Decoder:
    f = f.with_defaults({**DEFAULTS, "query_pre_attn_scalar": 256, "sliding_window": 4096})
    cap = f.positive("attn_logit_softcapping") if f.has("attn_logit_softcapping") else 0.0
    attention = replace(_attention(f), scale=f.positive("query_pre_attn_scalar") ** -0.5, softcap=cap)
    decoder = replace(_gemma(f, attention, _mlp(f)), names=GEMMA2_NAMES, logit_softcap=_logit_cap(f))
    kinds = [FULL if layer % 2 else SLIDING for layer in range(len(decoder.layers))]
    return _alternating(f, decoder, kinds, {})


def gemma3(f: Fields) -> Decoder:
    """Layers with a window turn faster than those that see everything."""
    f = f.with_defaults({**GEMMA3_DEFAULTS, "query_pre_attn_scalar": 256})
    f.only("attn_logit_softcapping")
    scale = f.positive("query_pre_attn_scalar") ** -0.5
    local = Fields(
        f.place,
        {"rope_theta": f.raw.get("rope_local_base_freq", 10000.0), "rope_parameters": f.raw.get("rope_parameters")},
        f.prefix,
    )
    attention = replace(_attention(f, 1e6, FULL), scale=scale, qk_norm=_norm(f))
    near = replace(attention, rotary=rotary(local, attention.head_dim, kind=SLIDING))
    decoder = replace(_gemma(f, attention, _mlp(f)), names=GEMMA3_NAMES, logit_softcap=_logit_cap(f))
    period = f.count("sliding_window_pattern", f.count("_sliding_window_pattern", 6))
    kinds = [SLIDING if (layer + 1) % period else FULL for layer in range(len(decoder.layers))]
    return _alternating(f, decoder, kinds, {SLIDING: near})


def _gemma(f: Fields, attention: Attention, mlp: Mlp) -> Decoder:
    f.only("use_bidirectional_attention", False)
    scale = f.count("hidden_size") ** 0.5
    return replace(decoder_of(f, attention, mlp, _norm(f)), embedding_scale=scale)


def _norm(f: Fields) -> Norm:
    return Norm(f.real("rms_norm_eps", 1e-6), plus_one=True)


def _mlp(f: Fields) -> Mlp:
    """The first files say `gelu` in hidden_act and mean its tanh form, which newer ones have in hidden_activation."""
    name = "hidden_activation" if f.has("hidden_activation") else "hidden_act"
    mlp = mlp_of(f, act="gelu_pytorch_tanh", field=name)
    return replace(mlp, act="gelu_tanh") if name == "hidden_act" and mlp.act == "gelu" else mlp


def _attention(f: Fields, theta: float = 10000.0, kind: str = "") -> Attention:
    bias = f.flag("attention_bias", False)
    return attention_of(f, bias, bias, theta=theta, kind=kind)


def _logit_cap(f: Fields) -> float:
    return f.positive("final_logit_softcapping") if f.has("final_logit_softcapping") else 0.0


def _alternating(f: Fields, decoder: Decoder, default: list[str], other: dict[str, Attention]) -> Decoder:
    """Windows by the kind of each layer; `other` has the kinds whose attention differs in more than that."""
    kinds = f.kinds("layer_types", len(decoder.layers), (FULL, SLIDING), default)
    layers = [
        Layer(replace(other.get(kind, layer.attention), window=window), layer.mlp)
        for layer, kind, window in zip(decoder.layers, kinds, windows_of(f, kinds), strict=True)
    ]
    return replace(decoder, layers=tuple(layers))
