"""Attention and rotary operators, of ai.onnx (opset 23 on) and com.microsoft."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.meaning.reduce import softmax
from dlavm.frontend.onnx_import.meaning.table import CONTRIB, Array, Call, as_float, meaning, number_type


def heads_first(c: Call, x: Array, heads: int) -> Array:
    """(batch, tokens, heads * d) as (batch, heads, tokens, d)."""
    if heads < 1 or x.ndim != 3 or x.shape[2] % heads:
        c.fail(f"operand expected (batch, tokens, {heads} heads * d)", list(x.shape))
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)


def heads_last(x: Array) -> Array:
    """The opposite of `heads_first`."""
    batch, heads, tokens, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * d)


def attend(
    c: Call, q: Array, k: Array, v: Array, bias: Array, scale: float, softcap: float, precision: Any = None
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """The result, and the scores as they are in the course of it: plain, capped, biased, as probabilities.

    q (batch, heads, t, d), k and v (batch, kv heads, s, d); `bias` broadcasts to (batch, heads, t, s).
    """
    if q.shape[1] % k.shape[1] or k.shape[:3] != v.shape[:3] or q.shape[3] != k.shape[3]:
        c.fail("q, k and v expected matching heads, lengths and sizes", [list(x.shape) for x in (q, k, v)])
    c.room([*q.shape[:3], k.shape[2]])
    root = math.sqrt(abs(scale))
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, axis=1), np.repeat(v, repeats, axis=1)
    factor = np.asarray(root, q.dtype)
    plain = np.matmul(as_float(q * factor), as_float(k * factor).swapaxes(2, 3)).astype(q.dtype)
    if scale < 0:
        plain = -plain
    capped = (np.tanh(plain / softcap) * softcap).astype(q.dtype) if softcap > 0 else plain
    with np.errstate(all="ignore"):
        biased = (capped + bias).astype(q.dtype)
        p = softmax(biased if precision is None else biased.astype(precision))
    empty = np.isneginf(np.max(as_float(np.asarray(bias)), axis=-1, keepdims=True))
    p = np.where(empty, np.zeros((), p.dtype), p).astype(q.dtype)
    return np.matmul(as_float(p), as_float(v)).astype(q.dtype), (plain, capped, biased, p)


def visible(t: int, s: int, offset: Any, left: int, right: int) -> Array:
    """(.., t, s): whether row i, at position offset + i, may look at position j: i - left <= j <= i + right; a bound
    below 0 does not bind. `offset` is a number or one a batch."""
    at = (
        np.arange(t)[:, None] + np.asarray(offset).reshape(-1, 1, 1, 1)
        if np.ndim(offset)
        else np.arange(t)[:, None] + offset
    )
    ahead = np.arange(s) - at
    return (ahead >= -left if left >= 0 else True) & (ahead <= right if right >= 0 else True) & (ahead == ahead)


@meaning("Attention")
def _attention(
    c: Call, q: Array, k: Array, v: Array, mask: Array | None = None, past_k: Array | None = None,
    past_v: Array | None = None, lengths: Array | None = None,
) -> Any:  # fmt: skip
    flat = q.ndim == 3
    if flat:
        q = heads_first(c, q, c.integer("q_num_heads"))
        k, v = (heads_first(c, x, c.integer("kv_num_heads")) for x in (k, v))
    if (past_k is None) != (past_v is None):
        c.fail("past_key and past_value expected both or neither", [past_k is None, past_v is None])
    if past_k is not None:
        assert past_v is not None
        k, v = np.concatenate([past_k, k], axis=2), np.concatenate([past_v, v], axis=2)
    bias = _bias(c, q, k, mask, past_k, lengths)
    code = c.integer("softmax_precision", 0)
    y, scores = attend(c, q, k, v, bias, c.number("scale", 1 / math.sqrt(q.shape[3])), c.number("softcap", 0.0),
                       number_type(c, code) if code else None)  # fmt: skip
    results = (heads_last(y) if flat else y, k, v, scores[c.integer("qk_matmul_output_mode", 0)])
    return results[: c.outputs] if c.outputs > 1 else results[0]


def _bias(c: Call, q: Array, k: Array, mask: Array | None, past: Array | None, lengths: Array | None) -> Array:
    """What is added to the scores: 0 or the mask's number where a row sees a position, -inf elsewhere."""
    t, s = q.shape[2], k.shape[2]
    offset: Any = 0 if past is None else past.shape[2]
    if past is None and lengths is not None:
        offset = lengths.reshape(-1) - t
    seen = visible(t, s, offset, c.integer("left_window_size", -1), c.integer("right_window_size", -1))
    if c.integer("is_causal", 0):
        seen = seen & visible(t, s, offset, -1, 0)
    if lengths is not None:
        seen = seen & (np.arange(s) < lengths.reshape(-1, 1, 1, 1))
    added = np.zeros((), q.dtype)
    if mask is not None:
        short = s - mask.shape[-1]
        widths = [(0, 0)] * (mask.ndim - 1) + [(0, max(0, short))]
        if mask.dtype == bool:
            seen = seen & np.pad(mask, widths)
        else:
            added = np.pad(as_float(mask), widths, constant_values=-np.inf)
    return np.asarray(np.where(seen, added, -np.inf), dtype=as_float(q).dtype)


def rotate(c: Call, x: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
    """Rotates pairs of the first elements of x (batch, heads, t, d) by cos and sin (batch or 1, t, rot / 2)."""
    rot = 2 * cos.shape[-1]
    if rot > x.shape[3] or cos.shape != sin.shape or cos.shape[-2] != x.shape[2]:
        c.fail("cos and sin expected a row a token of half the rotated size", [list(cos.shape), list(x.shape)])
    first = slice(0, rot, 2) if interleaved else slice(0, rot // 2)
    second = slice(1, rot, 2) if interleaved else slice(rot // 2, rot)
    cos, sin, y = cos[:, None], sin[:, None], x.copy()
    a, b = x[..., first], x[..., second]
    y[..., first], y[..., second] = a * cos - b * sin, b * cos + a * sin
    return y


def _rows(c: Call, cache: Array, positions: Array) -> Array:
    if positions.size and not (positions.min() >= 0 and positions.max() < len(cache)):
        c.fail(f"position_ids expected within 0..{len(cache) - 1}", [int(positions.min()), int(positions.max())])
    return cache[positions]


@meaning("RotaryEmbedding")
def _rotary(c: Call, x: Array, cos: Array, sin: Array, positions: Array | None = None) -> Array:
    flat = x.ndim == 3
    heads = heads_first(c, x, c.integer("num_heads")) if flat else x
    if positions is not None:
        cos, sin = _rows(c, cos, positions), _rows(c, sin, positions)
    half = (c.integer("rotary_embedding_dim", 0) or heads.shape[3]) // 2
    if cos.ndim != 3 or cos.shape[-1] != half:
        c.fail(f"cos_cache expected {half} columns", list(cos.shape))
    y = rotate(c, heads, cos, sin, bool(c.integer("interleaved", 0)))
    return heads_last(y) if flat else y


@meaning("RotaryEmbedding", domain=CONTRIB)
def _contrib_rotary(c: Call, x: Array, positions: Array, cos: Array, sin: Array) -> Array:
    flat = x.ndim == 3
    rot = c.integer("rotary_embedding_dim", 0)
    count = c.integer("num_heads", 0) or (x.shape[2] // (rot or 2 * cos.shape[1]) if flat else 0)
    heads = heads_first(c, x, count) if flat else x
    tokens = heads.shape[2]
    where = positions.reshape(-1)[0] + np.arange(tokens)[None] if positions.size == 1 else positions
    half = (rot or heads.shape[3]) // 2
    y = rotate(
        c, heads, _rows(c, cos[:, :half], where), _rows(c, sin[:, :half], where), bool(c.integer("interleaved", 0))
    )
    y = y * np.asarray(c.number("scale", 1.0), x.dtype)
    return heads_last(y) if flat else y


def _grouped(c: Call, query: Array, key: Array | None, value: Array | None) -> tuple[Array, Array, Array]:
    """q, k and v by heads; packed behind each other in `query` where there is no key."""
    heads, kv_heads = c.integer("num_heads"), c.integer("kv_num_heads")
    if key is None or value is None:
        d = query.shape[2] // (heads + 2 * kv_heads)
        query, key, value = np.split(query, [heads * d, (heads + kv_heads) * d], axis=2)
    return heads_first(c, query, heads), heads_first(c, key, kv_heads), heads_first(c, value, kv_heads)


@meaning("GroupQueryAttention", domain=CONTRIB)
def _group_query_attention(
    c: Call, query: Array, key: Array | None, value: Array | None, past_k: Array | None, past_v: Array | None,
    seqlens: Array, total: Array, cos: Array | None = None, sin: Array | None = None, positions: Array | None = None,
    bias: Array | None = None, *others: Array | None,
) -> Any:  # fmt: skip
    if any(x is not None for x in others) or c.integer("smooth_softmax", 0) == 1:
        c.fail("head_sink, quantised caches and smooth_softmax expected to be absent", len(others))
    q, k, v = _grouped(c, query, key, value)
    t = q.shape[2]
    lengths = {int(n) + 1 for n in seqlens.reshape(-1)}
    if len(lengths) != 1:
        c.fail("seqlens_k expected equal lengths", sorted(lengths))
    past = max(0, lengths.pop() - t)
    if c.integer("do_rotary", 0):
        if cos is None or sin is None:
            c.fail("cos_cache and sin_cache expected for do_rotary", None)
        where = past + np.arange(t)[None] if positions is None else positions
        turned = bool(c.integer("rotary_interleaved", 0))
        q, k = (rotate(c, x, _rows(c, cos, where), _rows(c, sin, where), turned) for x in (q, k))
    if past and past_k is not None and past_v is not None:
        k = np.concatenate([past_k[:, :, :past], k], axis=2)
        v = np.concatenate([past_v[:, :, :past], v], axis=2)
    window = c.integer("local_window_size", -1)
    seen = visible(t, k.shape[2], k.shape[2] - t, window - 1 if window > 0 else -1, 0)
    added = np.zeros((), np.float32) if bias is None else as_float(bias)
    scale = c.number("scale", 0.0) or 1 / math.sqrt(q.shape[3])
    y, _ = attend(c, q, k, v, np.where(seen, added, -np.inf), scale, c.number("softcap", 0.0))
    return (heads_last(y), k, v)[: c.outputs] if c.outputs > 1 else heads_last(y)


@meaning("MultiHeadAttention", domain=CONTRIB)
def _multi_head_attention(
    c: Call, query: Array, key: Array | None = None, value: Array | None = None, qkv_bias: Array | None = None,
    padding: Array | None = None, bias: Array | None = None, past_k: Array | None = None, past_v: Array | None = None,
    *others: Array | None,
) -> Any:  # fmt: skip
    if key is None or value is None or query.ndim != 3 or any(x is not None for x in (padding, *others)):
        c.fail("query, key and value expected apart, without key_padding_mask or shared buffers", list(query.shape))
    heads = c.integer("num_heads")
    if qkv_bias is not None:
        width, kv = query.shape[2], query.shape[2] + (key.shape[2] if key.ndim == 3 else query.shape[2])
        query = query + qkv_bias[:width]
        if key.ndim == 3:
            key, value = key + qkv_bias[width:kv], value + qkv_bias[kv:]
    q = heads_first(c, query, heads)
    k, v = (x if x.ndim == 4 else heads_first(c, x, heads) for x in (key, value))
    if past_k is not None and past_v is not None:
        k, v = np.concatenate([past_k, k], axis=2), np.concatenate([past_v, v], axis=2)
    t, s = q.shape[2], k.shape[2]
    seen = visible(t, s, s - t, -1, 0 if c.integer("unidirectional", 0) else -1)
    added = np.zeros((), np.float32) if bias is None else as_float(bias)
    scale = c.number("scale", 0.0) or 1 / math.sqrt(q.shape[3])
    y, _ = attend(c, q, k, v, np.where(seen, added, np.float32(c.number("mask_filter_value", -10000.0))), scale, 0.0)
    return (heads_last(y), k, v)[: c.outputs] if c.outputs > 1 else heads_last(y)
