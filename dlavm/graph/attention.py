"""The float32 meaning of attention and of what its caches hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK
from dlavm.graph.activations import activation, softcap
from dlavm.graph.opdef import Array

CACHE_BITS = {"mxint8": 8}  # of the mantissas of a cache, by dtype; any other holds numbers as they are


def stored(x: Array, dtype: str) -> Array:
    """What a cache of that dtype makes of rows [..., d]: doc/numerics.md section 2, in float32."""
    if dtype not in CACHE_BITS:
        return x
    bits, dim = CACHE_BITS[dtype], x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-dim // BLOCK) * BLOCK), np.float32)
    padded[..., :dim] = x
    blocks = padded.reshape(*x.shape[:-1], -1, BLOCK)
    unit = np.frexp(np.abs(blocks).max(axis=-1, keepdims=True))[1] - (bits - 1)
    limit = (1 << (bits - 1)) - 1
    rounded = np.ldexp(np.clip(np.rint(np.ldexp(blocks, -unit)), -limit, limit), unit)
    return np.asarray(rounded.reshape(padded.shape)[..., :dim])


def alibi_slopes(heads: int, most: float) -> NDArray[np.float64]:
    """float64[heads]: 2^(-most * i / n) for i = 1 .. n where n is a power of two; otherwise those of the next lower
    power, followed by every other one of twice as many (Press et al., arXiv 2108.12409)."""
    n = 1 << int(math.log2(heads))
    slopes = 2.0 ** (-most * np.arange(1, n + 1) / n)
    more = 2.0 ** (-most * np.arange(1, 2 * (heads - n), 2) / (2 * n))
    return np.concatenate([slopes, more])


def attention_reference(v: Mapping[str, Array], a: Mapping[str, Any], kv_len: int) -> Array:
    """q (T, heads, d), caches (kv_heads, ctx, d) -> (T, heads, d)."""
    tokens, heads, d = v["q"].shape
    kv_heads, seen = v["k_cache"].shape[0], kv_len + tokens
    q = v["q"].reshape(tokens, kv_heads, heads // kv_heads, d)
    k, values = v["k_cache"][:, :seen], v["v_cache"][:, :seen]
    scores = np.einsum("tgqd,gsd->gqts", q, k, optimize=True) * np.float32(a["scale"])
    if a["softcap"]:
        scores = activation(softcap(a["softcap"]))(scores)
    distance = np.arange(seen) - (kv_len + np.arange(tokens)[:, None])  # (T, seen), position of k less that of q
    if a["alibi"]:
        slopes = (alibi_slopes(heads, a["alibi"]) * a["alibi_scale"]).astype(np.float32)
        scores = scores + slopes.reshape(kv_heads, -1, 1, 1) * distance.astype(np.float32)
    hidden = distance > 0
    if a["window"]:
        hidden |= distance <= -a["window"]
    scores = np.where(hidden, np.float32(-np.inf), scores)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    return np.asarray(np.einsum("gqts,gsd->tgqd", p, values, optimize=True).reshape(tokens, heads, d))
