"""What the trace makes of operators that are whole norms, rotations, attentions: the same flows as of their parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.arithmetic import plain, plus_static, settled, total, unary
from dlavm.frontend.onnx_import.flow import Flow, Mask, NotRecognised, added, constant, together
from dlavm.frontend.onnx_import.ir import Array, OnnxNode
from dlavm.frontend.onnx_import.meaning import CONTRIB
from dlavm.frontend.onnx_import.meaning.attention import visible
from dlavm.frontend.onnx_import.products import product, softmax
from dlavm.frontend.onnx_import.trace import Trace, handler


def norm(t: Trace, node: OnnxNode, flow: Flow, centred: bool, axes: int) -> Flow:
    """Rows over their last axes divided by their size, or by their deviation around their mean."""
    rows, rank = t.rows(flow), len(flow.shape)
    first = axes % rank
    group = int(np.prod(flow.shape[first:]))
    if rows.arrangement.axis >= first or rows.columns % group:
        raise NotRecognised("expected to normalise within rows, got across positions")
    eps = float(node.attrs.get("epsilon", 1e-5))
    return t.result(t.made("norm", node, rows, rows.columns, centred=centred, eps=eps, group=group), rows)


def _scaled(t: Trace, node: OnnxNode, flow: Flow, operands: list[Any], first: int) -> Flow:
    """Times the scale at `first` among the operands, plus the bias behind it, where there is one."""
    scale = t.array(operands[first])
    result = flow.times(scale)
    if len(operands) > first + 1 and operands[first + 1] is not None:
        bias = t.array(operands[first + 1])
        return plus_static(t, node, result, bias, node.inputs[first + 1])
    return settled(t, node, result, scale)


@handler("LayerNormalization")
def _layer_norm(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    _only_first(node)
    return _scaled(t, node, norm(t, node, operands[0], True, node.attrs.get("axis", -1)), operands, 1)


@handler("RMSNormalization")
def _rms_norm(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    _only_first(node)
    return _scaled(t, node, norm(t, node, operands[0], False, node.attrs.get("axis", -1)), operands, 1)


handler("SimplifiedLayerNormalization", domain=CONTRIB)(_rms_norm)


def _only_first(node: OnnxNode) -> None:
    if any(node.outputs[1:]):
        raise NotRecognised("expected its first result alone to be used")


@handler("SkipSimplifiedLayerNormalization", domain=CONTRIB)
def _skip_rms_norm(t: Trace, node: OnnxNode, operands: list[Any]) -> tuple[Any, ...]:
    return _skip(t, node, operands, False, 3)


@handler("SkipLayerNormalization", domain=CONTRIB)
def _skip_layer_norm(t: Trace, node: OnnxNode, operands: list[Any]) -> tuple[Any, ...]:
    return _skip(t, node, operands, True, 4)


def _skip(t: Trace, node: OnnxNode, operands: list[Any], centred: bool, bias: int) -> tuple[Any, ...]:
    """A residual sum with its norm; the sum is the fourth result."""
    x, skip = operands[:2]
    if any(node.outputs[1:3]) or not isinstance(x, Flow) or not isinstance(skip, Flow):
        raise NotRecognised("expected two values of the tokens, and no use of mean and deviation")
    if len(operands) > bias and operands[bias] is not None:
        x = plus_static(t, node, x, t.array(operands[bias]), node.inputs[bias])
    whole = total(t, node, x, skip)
    return _scaled(t, node, norm(t, node, whole, centred, -1), operands[:bias], 2), None, None, whole


def _by_heads(flow: Flow, heads: int) -> Flow:
    """(batch, tokens, heads * d) as (batch, heads, tokens, d)."""
    if len(flow.shape) != 3 or heads < 1 or flow.shape[2] % heads:
        raise NotRecognised(f"expected (batch, tokens, {heads} heads * d), got {list(flow.shape)}")
    shape = (*flow.shape[:2], heads, flow.shape[2] // heads)
    return flow.move(lambda x: x.reshape(shape).transpose(0, 2, 1, 3))


def _merged(flow: Flow) -> Flow:
    batch, heads, tokens, d = flow.shape
    return flow.move(lambda x: x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * d))


def rotated(flow: Flow, cos: Array, sin: Array, interleaved: bool) -> Flow:
    """(batch, heads, tokens, d) turned by cos and sin (batch or 1, tokens, rot / 2)."""
    half, d = cos.shape[-1], flow.shape[3]
    if 2 * half > d or cos.shape != sin.shape or cos.shape[-2] != flow.shape[2]:
        raise NotRecognised(f"expected cos and sin of {flow.shape[2]} tokens and at most {d // 2} pairs")
    pairs = np.arange(2 * half).reshape(-1, 2) if interleaved else np.arange(2 * half).reshape(2, -1).T
    cos, sin = cos[:, None].astype(np.float64), sin[:, None].astype(np.float64)
    a, b = (flow.move(lambda x, i=i: x[..., pairs[:, i]]) for i in (0, 1))  # type: ignore[misc]
    first = added(a.times(cos), b.times(-sin))
    second = added(b.times(cos), a.times(sin))
    order = np.empty(2 * half, np.int64)
    order[pairs[:, 0]], order[pairs[:, 1]] = np.arange(half), half + np.arange(half)
    turned = together([first, second], lambda xs: np.concatenate(xs, axis=-1)[..., order])
    if 2 * half == d:
        return turned
    return together([turned, flow.move(lambda x: x[..., 2 * half :])], lambda xs: np.concatenate(xs, axis=-1))


def _table_rows(table: Array, positions: Array) -> Array:
    if positions.size and not (positions.min() >= 0 and positions.max() < len(table)):
        raise NotRecognised(
            f"expected positions below {len(table)}, the rows of its tables, got {int(positions.max())}"
        )
    return np.asarray(table[positions])


@handler("RotaryEmbedding")
def _rotary(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    flow, flat = operands[0], len(operands[0].shape) == 3
    heads = _by_heads(flow, node.attrs.get("num_heads", 0)) if flat else flow
    cos, sin = t.array(operands[1]), t.array(operands[2])
    if len(operands) > 3 and operands[3] is not None:
        cos, sin = (_table_rows(x, t.array(operands[3])) for x in (cos, sin))
    turned = rotated(heads, cos, sin, bool(node.attrs.get("interleaved", 0)))
    return _merged(turned) if flat else turned


@handler("RotaryEmbedding", domain=CONTRIB)
def _contrib_rotary(t: Trace, node: OnnxNode, operands: list[Any]) -> Flow:
    flow, flat = operands[0], len(operands[0].shape) == 3
    places, cos, sin = (t.array(x) for x in operands[1:4])
    part = node.attrs.get("rotary_embedding_dim", 0)
    count = node.attrs.get("num_heads", 0) or (flow.shape[2] // (part or 2 * cos.shape[1]) if flat else 0)
    heads = _by_heads(flow, count) if flat else flow
    if places.size == 1:
        places = places.reshape(-1)[0] + np.arange(heads.shape[2])[None]
    half = (part or heads.shape[3]) // 2
    cos, sin = (_table_rows(x[:, :half], places) for x in (cos, sin))
    turned = rotated(heads, cos, sin, bool(node.attrs.get("interleaved", 0)))
    turned = turned.times(np.array(node.attrs.get("scale", 1.0)))
    return _merged(turned) if flat else turned


def attended(
    t: Trace, node: OnnxNode, q: Flow, k: Flow, v: Flow, scale: float, softcap: float, hide: Callable[[Flow], Flow]
) -> Flow:
    """Of q (batch, heads, tokens, d), k and v (batch, kv heads, positions, d); `hide` puts masks on the scores."""
    if q.shape[1] % k.shape[1] or k.shape[:3] != v.shape[:3]:
        raise NotRecognised("expected a number of heads that is a multiple of those of keys and values")
    repeats = q.shape[1] // k.shape[1]
    k, v = (x.move(lambda y: np.repeat(y, repeats, axis=1)) for x in (k, v))
    scores = product(t, node, q, k.move(lambda x: x.swapaxes(2, 3))).times(np.array(scale))
    if softcap > 0:
        scores = unary(t, replace(node, op="Tanh"), scores.times(np.array(1 / softcap)), np.tanh).times(
            np.array(softcap)
        )
    return product(t, node, softmax(t, node, hide(scores)), v)


def hidden(flow: Flow, seen: Callable[[int, int], Array], past: int, tokens: int) -> Flow:
    """Scores of which a function of past and tokens says what rows see."""
    chosen = np.broadcast_to(seen(past, tokens), flow.shape)
    lowest = constant(np.broadcast_to(-np.inf, flow.shape))
    result = together([flow, lowest], lambda xs: np.where(chosen, *xs))
    return replace(result, masks=(*flow.masks, Mask(seen)))


def appended(t: Trace, node: OnnxNode, past: Any, new: Flow) -> Flow:
    """Cached rows, where there are any, with new ones behind them."""
    new = plain(t, node, new)
    if not isinstance(past, Flow) or not past.shape[2]:
        return new
    return together([past, new], lambda xs: np.concatenate(xs, axis=2))


@handler("Attention")
def _attention(t: Trace, node: OnnxNode, operands: list[Any]) -> tuple[Any, ...]:
    padded: tuple[Any, ...] = (*operands, *[None] * (7 - len(operands)))
    q, k, v, mask, past_k, past_v, lengths = padded
    if lengths is not None or len(node.outputs) > 3 and node.outputs[3]:
        raise NotRecognised("expected no nonpad_kv_seqlen and no use of the scores")
    if not all(isinstance(x, Flow) for x in (q, k, v)):
        raise NotRecognised("expected queries, keys and values of the tokens")
    flat = len(q.shape) == 3
    if flat:
        q, k, v = (_by_heads(x, node.attrs.get(f"{n}_num_heads", 0)) for x, n in ((q, "q"), (k, "kv"), (v, "kv")))
    k, v = appended(t, node, past_k, k), appended(t, node, past_v, v)
    before = past_k.shape[2] if isinstance(past_k, Flow) else 0
    left, right = node.attrs.get("left_window_size", -1), node.attrs.get("right_window_size", -1)
    causal = bool(node.attrs.get("is_causal", 0))

    def seen(past: int, tokens: int) -> Array:
        at = past if before else 0  # without a cache of its own the first row is the first position
        within = visible(tokens, past + tokens, at, left, right)
        return within & visible(tokens, past + tokens, at, -1, 0) if causal else within

    def hide(scores: Flow) -> Flow:
        scores = _masked(t, node, scores, mask, 3)
        return hidden(scores, seen, t.probe.past, t.probe.tokens) if causal or max(left, right) >= 0 else scores

    y = attended(t, node, q, k, v, _scale(node, q), float(node.attrs.get("softcap", 0.0)), hide)
    return _merged(y) if flat else y, k, v


def _scale(node: OnnxNode, q: Flow) -> float:
    return float(node.attrs.get("scale", 0.0)) or 1 / math.sqrt(q.shape[3])


def _masked(t: Trace, node: OnnxNode, scores: Flow, mask: Any, index: int) -> Flow:
    """With a mask among the operands, of booleans or added."""
    if mask is None:
        return scores
    array = t.array(mask)
    if array.dtype != bool:
        return plus_static(t, node, scores, array, node.inputs[index])
    chosen = np.broadcast_to(array, scores.shape)
    result = together([scores, constant(np.broadcast_to(-np.inf, scores.shape))], lambda xs: np.where(chosen, *xs))
    return replace(result, masks=(*scores.masks, Mask(node.inputs[index], True)))


@handler("GroupQueryAttention", domain=CONTRIB)
def _group_query_attention(t: Trace, node: OnnxNode, operands: list[Any]) -> tuple[Any, ...]:
    padded: tuple[Any, ...] = (*operands, *[None] * (11 - len(operands)))
    query, key, value, past_k, past_v, lengths, _, cos, sin, places, bias = padded[:11]
    if any(x is not None for x in operands[11:]) or node.attrs.get("smooth_softmax", 0) == 1:
        raise NotRecognised("expected no head_sink, smooth_softmax or quantised caches")
    heads, kv_heads = node.attrs.get("num_heads", 0), node.attrs.get("kv_num_heads", 0)
    if key is None:
        d = query.shape[2] // max(1, heads + 2 * kv_heads)
        cuts = (0, heads * d, (heads + kv_heads) * d, None)
        query, key, value = (query.move(lambda x, i=i: x[..., cuts[i] : cuts[i + 1]]) for i in range(3))
    q, k, v = _by_heads(query, heads), _by_heads(key, kv_heads), _by_heads(value, kv_heads)
    known = t.array(lengths).reshape(-1)
    if (known != t.probe.past + t.probe.tokens - 1).any():
        raise NotRecognised(f"expected seqlens_k of past and tokens less 1, got {known.tolist()} at {t.probe}")
    if node.attrs.get("do_rotary", 0):
        where = t.probe.past + np.arange(t.probe.tokens)[None] if places is None else t.array(places)
        cos, sin = (_table_rows(t.array(x), where) for x in (cos, sin))
        q, k = (rotated(x, cos, sin, bool(node.attrs.get("rotary_interleaved", 0))) for x in (q, k))
    k, v = appended(t, node, past_k, k), appended(t, node, past_v, v)
    window = node.attrs.get("local_window_size", -1)

    def hide(scores: Flow) -> Flow:
        return hidden(_masked(t, node, scores, bias, 10), _causal(window), t.probe.past, t.probe.tokens)

    y = attended(t, node, q, k, v, _scale(node, q), float(node.attrs.get("softcap", 0.0)), hide)
    return _merged(y), k, v


def _causal(window: int) -> Callable[[int, int], Array]:
    """What rows see of the positions up to their own, of the last `window` where that is above 0."""
    return lambda past, tokens: visible(tokens, past + tokens, past, window - 1 if window > 0 else -1, 0)


@handler("MultiHeadAttention", domain=CONTRIB)
def _multi_head_attention(t: Trace, node: OnnxNode, operands: list[Any]) -> tuple[Any, ...]:
    padded: tuple[Any, ...] = (*operands, *[None] * (8 - len(operands)))
    query, key, value, bias, padding, mask, past_k, past_v = padded[:8]
    if padding is not None or any(x is not None for x in operands[8:]) or not isinstance(key, Flow) or value is None:
        raise NotRecognised("expected query, key and value apart, without key_padding_mask or shared buffers")
    heads = node.attrs.get("num_heads", 0)
    if bias is not None:
        parts = zip((query, key, value), np.split(t.array(bias), 3), strict=True)
        query, key, value = (plus_static(t, node, x, part, node.inputs[3]) for x, part in parts)
    q, k, v = (_by_heads(x, heads) if len(x.shape) == 3 else x for x in (query, key, value))
    k, v = appended(t, node, past_k, k), appended(t, node, past_v, v)

    def hide(scores: Flow) -> Flow:
        scores = _masked(t, node, scores, mask, 5)
        causal = bool(node.attrs.get("unidirectional", 0))
        return hidden(scores, _causal(0), t.probe.past, t.probe.tokens) if causal else scores

    return _merged(attended(t, node, q, k, v, _scale(node, q), 0.0, hide)), k, v
