"""ChatGLM2 in torch, from its published description and apart from the graph: transformers does not carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu

Weights = Mapping[str, torch.Tensor]


def logits(weights: Weights, shape: Any, ids: Sequence[int]) -> torch.Tensor:
    """float64 (len(ids), vocab); `weights` by checkpoint name, `shape` with the names of config.json."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = w["transformer.embedding.word_embeddings.weight"][torch.tensor(ids)]
    for layer in range(shape.num_layers):
        part = {n.split(f"layers.{layer}.")[1]: t for n, t in w.items() if f"layers.{layer}." in n}
        x = x + attention(part, shape, rms_norm(x, part["input_layernorm.weight"], shape))
        x = x + mlp(part, rms_norm(x, part["post_attention_layernorm.weight"], shape))
    x = rms_norm(x, w["transformer.encoder.final_layernorm.weight"], shape)
    return linear(x, w["transformer.output_layer.weight"])


def rms_norm(x: torch.Tensor, weight: torch.Tensor, shape: Any) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + shape.layernorm_epsilon) * weight


def attention(w: Weights, shape: Any, x: torch.Tensor) -> torch.Tensor:
    heads, groups, d = shape.num_attention_heads, shape.multi_query_group_num, shape.kv_channels
    fused = linear(x, w["self_attention.query_key_value.weight"], w["self_attention.query_key_value.bias"])
    parts = fused.split([heads * d, groups * d, groups * d], dim=-1)
    q, k, v = (part.reshape(len(x), -1, d).transpose(0, 1) for part in parts)  # (heads, token, d)
    base = 10000.0 * getattr(shape, "rope_ratio", 1.0)
    k, v = (part.repeat_interleave(heads // groups, dim=0) for part in (rotate(k, base), v))
    mixed = scaled_dot_product_attention(rotate(q, base)[None], k[None], v[None], is_causal=True)[0]
    return linear(mixed.transpose(0, 1).reshape(len(x), -1), w["self_attention.dense.weight"])


def rotate(x: torch.Tensor, base: float) -> torch.Tensor:
    """Adjacent pairs of the first half of a head, as complex numbers, turned by position * base^(-2j / (d/2))."""
    half = x.shape[-1] // 2
    frequencies = base ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequencies
    pairs = torch.view_as_complex(x[..., :half].reshape(*x.shape[:-1], half // 2, 2).contiguous())
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    return torch.cat([turned, x[..., half:]], dim=-1)


def mlp(w: Weights, x: torch.Tensor) -> torch.Tensor:
    gate, up = linear(x, w["mlp.dense_h_to_4h.weight"]).chunk(2, dim=-1)
    return linear(silu(gate) * up, w["mlp.dense_4h_to_h.weight"])
