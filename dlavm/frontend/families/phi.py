"""Phi 1, 1.5 and 2 (parallel blocks, partial rotary embeddings), Phi-3 and Phi-4 (fused projections)."""

from __future__ import annotations

from dataclasses import replace

from dlavm.frontend.decoder import Decoder, Norm
from dlavm.frontend.families.family import attention_of, decoder_of, mlp_of, names
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.families.llama import rms

PHI_NAMES = names(
    final_norm="final_layernorm",
    o="self_attn.dense",
    mlp_norm=None,
    gate=None,
    up="mlp.fc1",
    down="mlp.fc2",
    q_norm="self_attn.q_layernorm",
    k_norm="self_attn.k_layernorm",
)
PHI3_NAMES = names(
    q=None, k=None, v=None, qkv="self_attn.qkv_proj", gate=None, up=None, gate_up="mlp.gate_up_proj"
)  # fmt: skip


def phi(f: Fields) -> Decoder:
    norm = Norm(f.real("layer_norm_eps", 1e-5), "layer_norm", beta=True)
    attention = attention_of(f, bias=True, output_bias=True, partial=0.5)
    if f.flag("qk_layernorm", False):
        attention = replace(attention, qk_norm=norm)
    decoder = decoder_of(f, attention, mlp_of(f, True, "gelu_new", gated=False), norm, PHI_NAMES)
    return replace(decoder, parallel=True, head_bias=True)


def phi3(f: Fields) -> Decoder:
    window = f.count("sliding_window") if f.has("sliding_window") else 0
    attention = replace(attention_of(f), window=window)
    return decoder_of(f, attention, mlp_of(f), rms(f, 1e-5), PHI3_NAMES)
