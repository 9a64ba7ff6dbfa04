"""Floats onto a grid by rounding to nearest; grids from one format to another where that is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats.grid import Grid
from dlavm.formats.table import E8M0_BIAS, E8M0_LIMIT, Format
from dlavm.support.errors import DlavmError

F32 = NDArray[np.float32]


def quantize(w: NDArray[np.floating], format: Format, name: str = "", whole: bool = True) -> Grid:
    """Round to nearest: w [n, k] onto the grid of `format`.

    Symmetric integers: scale = max|w| / (2^(bits-1) - 1). With zero points: the range from min(w, 0) to max(w, 0) has
    2^bits - 1 steps. Float elements with fp16 scales: scale = max|w| / largest element. MX (OCP specification 1.0): the
    shared exponent is floor(log2 max|w|) less that of the largest element; elements saturate.
    Raises DlavmError naming the tensor for values that are not finite, for scales past their type, and, where w is the
    `whole` tensor, for values so small that every scale becomes zero.
    """
    n, k = w.shape
    padded = np.zeros((n, format.groups(k) * format.group), dtype=np.float32)
    padded[:, :k] = w
    grouped = padded.reshape(n, format.groups(k), format.group)
    scale, zero = scales(grouped, format, name)
    if whole and not scale.any() and grouped.any():
        largest = np.abs(grouped).max()
        raise DlavmError(f"weight {name}: expected a scale that fp16 does not make zero, got weights up to {largest}")
    return Grid(format, nearest(grouped, scale, zero, format).reshape(n, -1)[:, :k], scale, zero)


def scales(grouped: F32, format: Format, name: str = "") -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Scale and zero point (None without) of groups [.., group], chosen as `quantize` does. Raises DlavmError for
    values that are not finite, and for scales past their type."""
    if not np.isfinite(grouped).all():
        raise DlavmError(f"weight {name}: expected finite values, got NaN or infinity")
    if format.scale == "e8m0":
        return _shared_exponent(grouped, format, name), None
    return _asymmetric(grouped, format, name) if format.zero else (_symmetric(grouped, format, name), None)


def nearest(
    grouped: F32, scale: NDArray[Any], zero: NDArray[np.uint8] | None, format: Format
) -> NDArray[np.uint8]:
    """The nearest codes of groups [.., group] on grids with these scales and zero points [..]; ties to even,
    saturating."""
    if format.scale == "e8m0":
        return _codes(np.ldexp(grouped, E8M0_BIAS - scale.astype(np.int32)[..., None]), format)
    units = grouped / _divisor(scale)[..., None]
    if zero is None:
        return _codes(units, format)
    return np.clip(np.rint(units) + zero[..., None], 0, (1 << format.element.bits) - 1).astype(np.uint8)


def _half(wide: F32, name: str) -> NDArray[np.float16]:
    if wide.max(initial=0) > 65504:
        raise DlavmError(f"weight {name}: a scale of {wide.max()} does not fit fp16")
    return wide.astype(np.float16)


def _divisor(scale: NDArray[np.float16]) -> F32:
    return np.where(scale > 0, scale.astype(np.float32), np.float32(1))


def _symmetric(grouped: F32, format: Format, name: str) -> NDArray[np.float16]:
    element = format.element
    largest = element.middle - 1 if element.float_type is None else np.ldexp(element.table.max(), element.unit_exponent)
    return _half(np.abs(grouped).max(axis=-1) / np.float32(largest), name)


def _codes(x: F32, format: Format) -> NDArray[np.uint8]:
    """The nearest codes of x, which counts values of the element."""
    element = format.element
    if element.float_type is None:
        units = x * np.float32(2.0**-element.unit_exponent)
        np.rint(units, out=units)
        np.clip(units, -element.middle, element.middle - 1, out=units)
        units += element.middle
        return units.astype(np.uint8)
    largest = np.float32(np.ldexp(float(element.table.max()), element.unit_exponent))
    return np.clip(x, -largest, largest).astype(element.float_type).view(np.uint8)


def _asymmetric(grouped: F32, format: Format, name: str) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    steps = (1 << format.element.bits) - 1
    low, high = np.minimum(grouped.min(axis=-1), 0), np.maximum(grouped.max(axis=-1), 0)
    scale = _half((high - low) / np.float32(steps), name)
    return scale, np.clip(np.rint(-low / _divisor(scale)), 0, steps).astype(np.uint8)


def _shared_exponent(grouped: F32, format: Format, name: str) -> NDArray[np.uint8]:
    largest = np.abs(grouped).max(axis=-1)
    exponent = np.where(largest > 0, np.frexp(largest)[1] - 1 - format.element.largest_exponent, 0)
    if np.abs(exponent).max(initial=0) > E8M0_LIMIT:
        worst = int(exponent.flat[np.abs(exponent).argmax()])
        raise DlavmError(f"weight {name}: scales expected within 2^+-{E8M0_LIMIT}, got 2^{worst}")
    return (exponent + E8M0_BIAS).astype(np.uint8)


def convert(grid: Grid, format: Format) -> Grid | None:
    """The same numbers on the grid of another format; None where it does not hold each of them exactly.

    Scales are repeated over smaller groups or shared by equal neighbours; integers may get zero points or more bits;
    floats become the integers that they are multiples of, powers of two fp16 scales.
    """
    if grid.format == format:
        return grid
    scale = _scales_as(grid, format)
    scale = None if scale is None else _regrouped(scale, grid, format)
    zero = None if grid.zero is None else _regrouped(grid.zero, grid, format)
    if scale is None or (grid.zero is not None and zero is None):
        return None
    if grid.format.element == format.element and (grid.zero is None) == (not format.zero):
        return Grid(format, grid.codes, scale, zero)
    if format.element.float_type is not None:
        return None
    return _recoded(grid.integers(), scale, format)


def _scales_as(grid: Grid, format: Format) -> NDArray[Any] | None:
    """The scales of a grid in the type that a format has, None where that does not hold them."""
    kinds = [(f.scale, f.element.float_type, f.element.unit_exponent) for f in (grid.format, format)]
    if kinds[0] == kinds[1]:
        return grid.scale
    if format.element.float_type is not None or format.element.unit_exponent != 0 or format.scale != "f16":
        return None
    factors = grid.factors()
    with np.errstate(over="ignore", under="ignore"):
        half = factors.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), factors) else None


def _regrouped(per_group: NDArray[Any], grid: Grid, format: Format) -> NDArray[Any] | None:
    """Per group of `format`; None where a larger group has members that differ."""
    k = grid.shape[1]
    ends = np.minimum(np.arange(1, format.groups(k) + 1) * format.group, k)
    starts = np.arange(format.groups(k)) * format.group
    first = per_group[:, starts // grid.format.group]
    for member in range(format.group // grid.format.group):
        here = np.minimum(starts + member * grid.format.group, ends - 1) // grid.format.group
        if not np.array_equal(per_group[:, here], first):
            return None
    return np.ascontiguousarray(first)


def _recoded(integers: NDArray[np.int32], scale: NDArray[Any], format: Format) -> Grid | None:
    """Integers with the format's own middle as zero point; None where one does not fit its bits."""
    middle = format.element.middle
    if integers.min(initial=0) < -middle or integers.max(initial=0) >= middle:
        return None
    zero = np.full(scale.shape, middle, dtype=np.uint8) if format.zero else None
    return Grid(format, (integers + middle).astype(np.uint8), scale, zero)
