"""Operators that place elements: shapes, slices, gathers. Those marked `moves` can be applied to addresses too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.meaning.table import Array, Call, meaning, number_type

INTS = np.int64


@meaning("Identity", moves="first")
def _identity(c: Call, x: Array) -> Array:
    return x


@meaning("Dropout", moves="first")
def _dropout(c: Call, x: Array, ratio: Array | None = None, training: Array | None = None) -> Any:
    if training is not None and training.any():
        c.fail("training_mode expected false", True)
    return (x, np.ones(x.shape, bool)) if c.outputs > 1 else x


@meaning("Shape")
def _shape(c: Call, x: Array) -> Array:
    start, end = c.integer("start", 0), c.integer("end", x.ndim)
    return np.asarray(x.shape[slice(*slice(start, end).indices(x.ndim))], INTS)


@meaning("Size")
def _size(c: Call, x: Array) -> Array:
    return np.asarray(x.size, INTS)


@meaning("Reshape", moves="first")
def _reshape(c: Call, x: Array, shape: Array) -> Array:
    wanted = c.ints(shape, "shape")
    if not c.integer("allowzero", 0):
        if any(v == 0 for v in wanted[x.ndim :]):
            c.fail(f"shape expected zeros only where the operand of {x.ndim} axes has one", wanted)
        wanted = [x.shape[i] if v == 0 else v for i, v in enumerate(wanted)]
    try:
        return x.reshape(wanted)
    except ValueError:
        c.fail(f"shape expected {x.size} elements of {list(x.shape)}", wanted)


@meaning("Flatten", moves="first")
def _flatten(c: Call, x: Array) -> Array:
    axis = c.integer("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        c.fail(f"axis expected within {-x.ndim}..{x.ndim}", axis)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1 if x.size else math.prod(x.shape[axis:]))


@meaning("Squeeze", moves="first")
def _squeeze(c: Call, x: Array, axes: Array | None = None) -> Array:
    found = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else c.ints(axes, "axes")
    chosen = tuple(c.count_axis(a, x.ndim) for a in found)
    if any(x.shape[a] != 1 for a in chosen):
        c.fail(f"axes expected extents of 1 in {list(x.shape)}", list(chosen))
    return np.squeeze(x, chosen)


@meaning("Unsqueeze", moves="first")
def _unsqueeze(c: Call, x: Array, axes: Array) -> Array:
    found = c.ints(axes, "axes")
    rank = x.ndim + len(found)
    chosen = {c.count_axis(a, rank) for a in found}
    if len(chosen) != len(found):
        c.fail("axes expected each once", found)
    rest = iter(x.shape)
    return x.reshape([1 if i in chosen else next(rest) for i in range(rank)])


@meaning("Transpose", moves="first")
def _transpose(c: Call, x: Array) -> Array:
    order = c.attrs.get("perm", list(range(x.ndim))[::-1])
    if sorted(order) != list(range(x.ndim)):
        c.fail(f"perm expected a permutation of {x.ndim} axes", order)
    return x.transpose(order)


@meaning("Concat", moves="all")
def _concat(c: Call, *xs: Array) -> Array:
    axis = c.axis(xs[0].ndim)
    shapes = [[*x.shape[:axis], *x.shape[axis + 1 :]] for x in xs]
    if any(x.ndim != xs[0].ndim for x in xs) or any(s != shapes[0] for s in shapes):
        c.fail(f"operands expected equal shapes but for axis {axis}", [list(x.shape) for x in xs])
    return np.concatenate(xs, axis=axis)


@meaning("Split", moves="first")
def _split(c: Call, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis = c.axis(x.ndim, default=0)
    length = x.shape[axis]
    if sizes is None:
        part = -(-length // c.outputs)
        parts = [min(part, max(0, length - i * part)) for i in range(c.outputs)]
    else:
        parts = c.ints(sizes, "split")
    if sum(parts) != length or min(parts, default=0) < 0 or len(parts) != c.outputs:
        c.fail(f"split expected {c.outputs} sizes that sum to {length}", parts)
    return tuple(np.split(x, np.cumsum(parts)[:-1].tolist(), axis=axis))


@meaning("Slice", moves="first")
def _slice(
    c: Call, x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    first, last = c.ints(starts, "starts"), c.ints(ends, "ends")
    along = list(range(len(first))) if axes is None else c.ints(axes, "axes")
    strides = [1] * len(first) if steps is None else c.ints(steps, "steps")
    if not len(first) == len(last) == len(along) == len(strides) or 0 in strides:
        c.fail(
            "starts, ends, axes and steps expected equal lengths and steps other than 0", (first, last, along, strides)
        )
    chosen = [slice(None)] * x.ndim
    for start, end, axis, step in zip(first, last, along, strides, strict=True):
        # An end below every index means "to the front" only to a negative step; numpy counts -n - 1 so too.
        stop = None if step < 0 and end < -x.shape[c.count_axis(axis, x.ndim)] else end
        chosen[c.count_axis(axis, x.ndim)] = slice(start, stop, step)
    return x[tuple(chosen)]


def _indices(c: Call, indices: Array, length: int) -> Array:
    if indices.dtype.kind not in "iu":
        c.fail("indices expected integers", str(indices.dtype))
    if indices.size and not (-length <= indices.min() and indices.max() < length):
        c.fail(f"indices expected within {-length}..{length - 1}", [int(indices.min()), int(indices.max())])
    return indices


@meaning("Gather", moves="first")
def _gather(c: Call, x: Array, indices: Array) -> Array:
    axis = c.axis(x.ndim, default=0)
    c.room((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    return np.take(x, _indices(c, indices, x.shape[axis]), axis=axis)


@meaning("GatherElements", moves="first")
def _gather_elements(c: Call, x: Array, indices: Array) -> Array:
    axis = c.axis(x.ndim, default=0)
    if indices.ndim != x.ndim:
        c.fail(f"indices expected {x.ndim} axes", list(indices.shape))
    _indices(c, indices, x.shape[axis])
    grid: list[Array] = list(np.ogrid[tuple(slice(0, n) for n in indices.shape)])
    if any(n > m for i, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True)) if i != axis):
        c.fail(f"indices expected extents of at most {list(x.shape)}", list(indices.shape))
    grid[axis] = indices
    return np.asarray(x[tuple(grid)])


@meaning("GatherND", moves="first")
def _gather_nd(c: Call, x: Array, indices: Array) -> Array:
    batch = c.integer("batch_dims", 0)
    depth = indices.shape[-1]
    if not 0 <= batch < min(x.ndim, indices.ndim) or batch + depth > x.ndim or x.shape[:batch] != indices.shape[:batch]:
        c.fail("batch_dims and indices expected to fit the operand", [batch, list(indices.shape), list(x.shape)])
    for i in range(depth):
        _indices(c, indices[..., i], x.shape[batch + i])
    grid: list[Array] = list(np.ogrid[tuple(slice(0, n) for n in x.shape[:batch])]) if batch else []
    grid = [g.reshape(g.shape + (1,) * (indices.ndim - 1 - batch)) for g in grid]
    return np.asarray(x[(*grid, *(indices[..., i] for i in range(depth)))])


REDUCERS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _put(c: Call, target: Array, where: tuple[Any, ...], values: Array) -> Array:
    kind = c.attr("reduction", "none")
    if kind == "none":
        target[where] = values
    elif kind in REDUCERS:
        REDUCERS[kind].at(target, where, values)
    else:
        c.fail(f"reduction expected none or one of {list(REDUCERS)}", kind)
    return target


@meaning("ScatterElements", moves="scatter")
def _scatter_elements(c: Call, x: Array, indices: Array, updates: Array) -> Array:
    axis = c.axis(x.ndim, default=0)
    if indices.ndim != x.ndim or indices.shape != updates.shape:
        c.fail(f"indices and updates expected one shape of {x.ndim} axes", [list(indices.shape), list(updates.shape)])
    if any(n > m for i, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True)) if i != axis):
        c.fail(f"indices expected extents of at most {list(x.shape)}", list(indices.shape))
    grid: list[Array] = list(np.ogrid[tuple(slice(0, n) for n in indices.shape)])
    grid[axis] = np.where(_indices(c, indices, x.shape[axis]) < 0, indices + x.shape[axis], indices)
    return _put(c, x.copy(), tuple(np.broadcast_arrays(*grid)), updates)


@meaning("ScatterND", moves="scatter")
def _scatter_nd(c: Call, x: Array, indices: Array, updates: Array) -> Array:
    depth = indices.shape[-1] if indices.ndim else 0
    if depth > x.ndim or updates.shape != (*indices.shape[:-1], *x.shape[depth:]):
        c.fail(
            "indices and updates expected to fit the operand", [list(indices.shape), list(updates.shape), list(x.shape)]
        )
    for i in range(depth):
        _indices(c, indices[..., i], x.shape[i])
    return _put(c, x.copy(), tuple(indices[..., i] for i in range(depth)), updates)


@meaning("TensorScatter", moves="tensor_scatter")
def _tensor_scatter(c: Call, past: Array, update: Array, starts: Array | None = None) -> Array:
    axis, result = c.axis(past.ndim, default=-2), past.copy()
    length, count = past.shape[axis], update.shape[axis]
    begin = np.zeros(past.shape[0], INTS) if starts is None else starts
    for batch in range(past.shape[0]):
        index = int(begin[batch]) + np.arange(count)
        if c.attr("mode", "linear") == "circular":
            index %= length
        elif count and not (index[0] >= 0 and index[-1] < length):
            c.fail(f"write_indices expected {count} positions within 0..{length - 1}", int(begin[batch]))
        where: list[Any] = [slice(None)] * past.ndim
        where[0], where[axis] = batch, index
        rows: list[Any] = [slice(None)] * past.ndim
        rows[0] = batch
        # The batch index drops its axis, so that both sides have the written axis at the same place.
        result[tuple(where)] = update[tuple(rows)] if axis == 1 else _aligned(update[batch], axis - 1)
    return result


def _aligned(update: Array, axis: int) -> Array:
    """An integer beside an index vector that is not its neighbour moves the vector's axis to the front."""
    return update if axis == 0 else np.moveaxis(update, axis, 0)


@meaning("Expand", moves="first")
def _expand(c: Call, x: Array, shape: Array) -> Array:
    wanted = tuple(c.ints(shape, "shape"))
    try:
        return np.broadcast_to(x, c.room(np.broadcast_shapes(x.shape, wanted)))
    except ValueError:
        c.fail(f"shape expected to broadcast with {list(x.shape)}", list(wanted))


@meaning("Tile", moves="first")
def _tile(c: Call, x: Array, repeats: Array) -> Array:
    counts = c.ints(repeats, "repeats")
    if len(counts) != x.ndim or min(counts, default=0) < 0:
        c.fail(f"repeats expected {x.ndim} counts", counts)
    c.room([n * r for n, r in zip(x.shape, counts, strict=True)])
    return np.tile(x, counts)


@meaning("Range")
def _range(c: Call, start: Array, limit: Array, delta: Array) -> Array:
    first, last, step = (np.asarray(v).reshape(-1)[0] for v in (start, limit, delta))
    if step == 0 or not all(np.isfinite(float(v)) for v in (first, last, step)):
        c.fail("delta expected a finite number other than 0", float(step))
    if start.dtype.kind in "iu":
        count = max(0, -(-(int(last) - int(first)) // int(step)))
        c.room([count])
        return (int(first) + int(step) * np.arange(count, dtype=INTS)).astype(start.dtype)
    count = max(0, math.ceil((float(last) - float(first)) / float(step)))
    c.room([count])
    return (float(first) + np.arange(count) * float(step)).astype(start.dtype)


@meaning("ConstantOfShape")
def _constant_of_shape(c: Call, shape: Array) -> Array:
    value = c.attrs.get("value", np.zeros(1, np.float32))
    return np.full(c.room(c.ints(shape, "shape")), np.asarray(value).reshape(-1)[0])


@meaning("Trilu", moves="trilu")
def _trilu(c: Call, x: Array, k: Array | None = None) -> Array:
    offset = 0 if k is None else int(np.asarray(k).reshape(-1)[0])
    if x.ndim < 2:
        c.fail("operand expected two axes or more", list(x.shape))
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    kept = columns - rows >= offset if c.integer("upper", 1) else columns - rows <= offset
    return np.where(kept, x, np.zeros((), x.dtype))


@meaning("EyeLike")
def _eye_like(c: Call, x: Array) -> Array:
    if x.ndim != 2:
        c.fail("operand expected two axes", list(x.shape))
    dtype = number_type(c, c.integer("dtype")) if "dtype" in c.attrs else x.dtype
    return np.eye(x.shape[0], x.shape[1], k=c.integer("k", 0)).astype(dtype)


@meaning("OneHot")
def _one_hot(c: Call, indices: Array, depth: Array, values: Array) -> Array:
    count = int(np.asarray(depth).reshape(-1)[0])
    axis = c.axis(indices.ndim + 1, default=-1)
    c.room([*indices.shape, count])
    whole = indices.astype(INTS)
    positive = np.expand_dims(np.where(whole < 0, whole + count, whole), axis)
    positions = np.arange(count).reshape([count if i == axis else 1 for i in range(indices.ndim + 1)])
    return np.where(positive == positions, values[1], values[0]).astype(values.dtype)


@meaning("NonZero")
def _non_zero(c: Call, x: Array) -> Array:
    return np.asarray(np.nonzero(x), INTS)


@meaning("Compress")
def _compress(c: Call, x: Array, condition: Array) -> Array:
    axis = None if "axis" not in c.attrs else c.axis(x.ndim)
    return np.compress(condition.astype(bool), x, axis=axis)


@meaning("Pad", moves="pad")
def _pad(c: Call, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None) -> Array:
    along = list(range(x.ndim)) if axes is None else [c.count_axis(a, x.ndim) for a in c.ints(axes, "axes")]
    counts = c.ints(pads, "pads")
    if len(counts) != 2 * len(along):
        c.fail(f"pads expected {2 * len(along)} counts", counts)
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(along):
        widths[axis] = (counts[i], counts[i + len(along)])
    c.room([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)])
    cut = tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, widths, strict=True))
    x, widths = x[cut], [(max(0, a), max(0, b)) for a, b in widths]
    mode = c.attr("mode", "constant")
    if mode == "constant":
        fill = x.dtype.type(0) if value is None else value.reshape(-1)[0]
        return np.pad(x, widths, constant_values=fill)
    if mode not in ("edge", "reflect", "wrap"):
        c.fail("mode expected constant, edge, reflect or wrap", mode)
    return np.pad(x, widths, mode=mode)


@meaning("DepthToSpace", moves="first")
def _depth_to_space(c: Call, x: Array) -> Array:
    n, depth, height, width = x.shape
    block = c.integer("blocksize")
    inner = depth // block**2
    if c.attr("mode", "DCR") == "DCR":
        y = x.reshape(n, block, block, inner, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, inner, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, inner, height * block, width * block)


@meaning("SpaceToDepth", moves="first")
def _space_to_depth(c: Call, x: Array) -> Array:
    n, depth, height, width = x.shape
    block = c.integer("blocksize")
    order = (0, 3, 5, 1, 2, 4) if c.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    y = x.reshape(n, depth, height // block, block, width // block, block).transpose(order)
    return y.reshape(n, depth * block**2, height // block, width // block)
