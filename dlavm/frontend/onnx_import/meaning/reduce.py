"""Operators that look along axes: sums, means, extremes, softmax, norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.meaning.table import CONTRIB, Array, Call, as_float, meaning

Reduction = Callable[[Array, tuple[int, ...], bool], Any]


def axes_of(c: Call, rank: int, axes: Array | None) -> tuple[int, ...] | None:
    """The axes of a reduction, an operand or (before opset 18, ReduceSum 13) an attribute; None: nothing to do."""
    found = c.attrs.get("axes", []) if axes is None else c.ints(axes, "axes")
    if not found:
        return None if c.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(c.count_axis(a, rank) for a in found)


def _log_sum_exp(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    highest = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    safe = np.where(np.isfinite(highest), highest, 0)
    total = np.log(np.sum(np.exp(x - safe), axis=axes, keepdims=True)) + safe
    return total if keep else np.squeeze(total, axes)


def _wide(of: Reduction) -> Reduction:
    """Computed in float64 or int64."""
    return lambda x, axes, keep: of(x.astype(np.float64 if x.dtype.kind not in "iu" else x.dtype), axes, keep)


def _extreme(of: Any, lowest: Callable[[np.dtype[Any]], Any]) -> Reduction:
    def apply(x: Array, axes: tuple[int, ...], keep: bool) -> Any:
        return of(x, axis=axes, keepdims=keep, initial=lowest(x.dtype))

    return apply


def _least(dtype: np.dtype[Any]) -> Any:
    return False if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _most(dtype: np.dtype[Any]) -> Any:
    return True if dtype.kind == "b" else np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": _wide(lambda x, axes, keep: np.sum(np.abs(x), axis=axes, keepdims=keep)),
    "ReduceL2": _wide(lambda x, axes, keep: np.sqrt(np.sum(x * x, axis=axes, keepdims=keep))),
    "ReduceLogSum": _wide(lambda x, axes, keep: np.log(np.sum(x, axis=axes, keepdims=keep))),
    "ReduceLogSumExp": _wide(_log_sum_exp),
    "ReduceMax": _extreme(np.max, _least),
    "ReduceMean": _wide(lambda x, axes, keep: np.mean(x, axis=axes, keepdims=keep)),
    "ReduceMin": _extreme(np.min, _most),
    "ReduceProd": _wide(lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep)),
    "ReduceSum": _wide(lambda x, axes, keep: np.sum(x, axis=axes, keepdims=keep)),
    "ReduceSumSquare": _wide(lambda x, axes, keep: np.sum(x * x, axis=axes, keepdims=keep)),
}
OF_ONE: dict[str, Callable[[Array], Array]] = {  # what a reduction over no axes still does
    "ReduceL1": np.abs,
    "ReduceL2": np.abs,
    "ReduceLogSum": np.log,
    "ReduceSumSquare": np.square,
}


def _reduction(name: str, of: Reduction) -> Callable[..., Array]:
    def apply(c: Call, x: Array, axes: Array | None = None) -> Array:
        chosen = axes_of(c, x.ndim, axes)
        with np.errstate(all="ignore"):
            if chosen is None:
                return np.asarray(OF_ONE.get(name, lambda x: x)(x)).astype(x.dtype)
            return np.asarray(of(x, chosen, bool(c.integer("keepdims", 1)))).astype(x.dtype)

    return apply


for _name, _of in REDUCTIONS.items():
    meaning(_name)(_reduction(_name, _of))


def _arg(of: Any) -> Callable[[Call, Array], Array]:
    def apply(c: Call, x: Array) -> Array:
        axis = c.axis(x.ndim, default=0)
        if c.integer("select_last_index", 0):
            found = x.shape[axis] - 1 - of(np.flip(x, axis), axis=axis, keepdims=True)
        else:
            found = of(x, axis=axis, keepdims=True)
        found = found.astype(np.int64)
        return found if c.integer("keepdims", 1) else np.squeeze(found, axis)

    return apply


meaning("ArgMax")(_arg(np.argmax))
meaning("ArgMin")(_arg(np.argmin))


def _cumulative(of: Any, neutral: int) -> Callable[[Call, Array, Array], Array]:
    def apply(c: Call, x: Array, axis: Array) -> Array:
        along = c.count_axis(np.asarray(axis).reshape(-1)[0], x.ndim)
        y = np.flip(x, along) if c.integer("reverse", 0) else x
        if c.integer("exclusive", 0):
            first = np.full([1 if i == along else n for i, n in enumerate(y.shape)], neutral, y.dtype)
            y = np.concatenate([first, np.take(y, range(y.shape[along] - 1), axis=along)], axis=along)
        y = of(y, axis=along).astype(x.dtype)
        return np.flip(y, along) if c.integer("reverse", 0) else y

    return apply


meaning("CumSum")(_cumulative(np.cumsum, 0))
meaning("CumProd")(_cumulative(np.cumprod, 1))


def softmax(x: Array, axis: int = -1) -> Array:
    """In the operand's own precision; a row of -inf alone gives zeros."""
    highest = np.max(x, axis=axis, keepdims=True)
    p = np.exp(x - np.where(np.isneginf(highest), np.zeros((), x.dtype), highest))
    total = np.sum(p, axis=axis, keepdims=True)
    return np.asarray(p / np.where(total == 0, np.ones((), x.dtype), total))


@meaning("Softmax")
def _softmax(c: Call, x: Array) -> Array:
    with np.errstate(all="ignore"):
        return softmax(x, c.axis(x.ndim, default=-1))


@meaning("LogSoftmax")
def _log_softmax(c: Call, x: Array) -> Array:
    axis, wide = c.axis(x.ndim, default=-1), as_float(x)
    shifted = wide - np.max(wide, axis=axis, keepdims=True)
    return (shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))).astype(x.dtype)


@meaning("Hardmax")
def _hardmax(c: Call, x: Array) -> Array:
    axis = c.axis(x.ndim, default=-1)
    result = np.zeros_like(x)
    np.put_along_axis(result, np.argmax(x, axis=axis, keepdims=True), 1, axis=axis)
    return result


@meaning("TopK")
def _top_k(c: Call, x: Array, k: Array) -> tuple[Array, Array]:
    axis, count = c.axis(x.ndim, default=-1), int(np.asarray(k).reshape(-1)[0])
    if not 0 <= count <= x.shape[axis]:
        c.fail(f"k expected within 0..{x.shape[axis]}", count)
    if c.integer("largest", 1):  # a stable sort of the reversed row puts the lowest index of equal values first
        order = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
        order = x.shape[axis] - 1 - order
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    order = np.take(order, range(count), axis=axis).astype(np.int64)
    return np.take_along_axis(x, order, axis=axis), order


def layer_norm(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    """The centred and scaled operand, its mean and the inverse of its deviation."""
    mean = np.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    inverse = 1 / np.sqrt(np.mean(centred * centred, axis=axes, keepdims=True) + np.asarray(eps, x.dtype))
    return centred * inverse, mean, inverse


def rms_norm(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    inverse = 1 / np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + np.asarray(eps, x.dtype))
    return x * inverse, inverse


@meaning("LayerNormalization")
def _layer_normalization(c: Call, x: Array, scale: Array, bias: Array | None = None) -> Any:
    axes = tuple(range(c.axis(x.ndim, default=-1), x.ndim))
    y, mean, inverse = layer_norm(as_float(x), axes, c.number("epsilon", 1e-5))
    y = (y.astype(x.dtype) * scale + (0 if bias is None else bias)).astype(x.dtype)
    return (y, mean, inverse)[: c.outputs] if c.outputs > 1 else y


@meaning("RMSNormalization")
def _rms_normalization(c: Call, x: Array, scale: Array) -> Any:
    axes = tuple(range(c.axis(x.ndim, default=-1), x.ndim))
    y, inverse = rms_norm(as_float(x), axes, c.number("epsilon", 1e-5))
    y = (y.astype(x.dtype) * scale).astype(x.dtype)
    return (y, inverse) if c.outputs > 1 else y


@meaning("SkipSimplifiedLayerNormalization", domain=CONTRIB)
def _skip_rms(c: Call, x: Array, skip: Array, gamma: Array, bias: Array | None = None) -> Any:
    total = x + skip if bias is None else x + skip + bias
    y, inverse = rms_norm(as_float(total), (-1,), c.number("epsilon", 1e-5))
    y = (y.astype(x.dtype) * gamma).astype(x.dtype)
    return (y, inverse, inverse, total)[: c.outputs] if c.outputs > 1 else y


@meaning("SkipLayerNormalization", domain=CONTRIB)
def _skip_norm(
    c: Call, x: Array, skip: Array, gamma: Array, beta: Array | None = None, bias: Array | None = None
) -> Any:
    total = x + skip if bias is None else x + skip + bias
    y, mean, inverse = layer_norm(as_float(total), (-1,), c.number("epsilon", 1e-5))
    y = (y.astype(x.dtype) * gamma + (0 if beta is None else beta)).astype(x.dtype)
    return (y, mean, inverse, total)[: c.outputs] if c.outputs > 1 else y


meaning("SimplifiedLayerNormalization", domain=CONTRIB)(_rms_normalization)


@meaning("LpNormalization")
def _lp_normalization(c: Call, x: Array) -> Array:
    axis, order = c.axis(x.ndim, default=-1), c.integer("p", 2)
    wide = as_float(x)
    size = np.abs(wide).sum(axis, keepdims=True) if order == 1 else np.sqrt((wide * wide).sum(axis, keepdims=True))
    return np.where(size == 0, 0, wide / np.where(size == 0, 1, size)).astype(x.dtype)
