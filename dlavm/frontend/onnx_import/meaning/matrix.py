"""Operators that multiply matrices, and those that change or decode number formats."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np

from dlavm.frontend.onnx_import.meaning.table import CONTRIB, Array, Call, as_float, meaning, number_type
from dlavm.support.errors import DlavmError


def _product(c: Call, a: Array, b: Array) -> Array:
    try:
        wide = a if a.dtype.kind in "iu" else as_float(a)
        return np.asarray(np.matmul(wide, b if b.dtype.kind in "iu" else as_float(b))).astype(a.dtype)
    except ValueError:
        c.fail("operands expected shapes that multiply", [list(a.shape), list(b.shape)])


@meaning("MatMul")
def _matmul(c: Call, a: Array, b: Array) -> Array:
    if a.ndim and b.ndim:
        c.room([*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *b.shape[-1:]])
    return _product(c, a, b)


@meaning("Gemm")
def _gemm(c: Call, a: Array, b: Array, bias: Array | None = None) -> Array:
    a = a.T if c.integer("transA", 0) else a
    b = b.T if c.integer("transB", 0) else b
    y = _product(c, a, b) * np.asarray(c.number("alpha", 1.0), a.dtype)
    if bias is not None:
        y = y + bias * np.asarray(c.number("beta", 1.0), a.dtype)
    return y.astype(a.dtype)


@meaning("Einsum")
def _einsum(c: Call, *xs: Array) -> Array:
    equation = str(c.attr("equation")).replace(" ", "")
    if not re.fullmatch(r"[A-Za-z.]*(,[A-Za-z.]*)*(->[A-Za-z.]*)?", equation) or equation.count(",") + 1 != len(xs):
        c.fail(f"equation expected letters and commas for {len(xs)} operands", equation)
    try:
        return np.asarray(np.einsum(equation, *(as_float(x) for x in xs), optimize=True)).astype(xs[0].dtype)
    except ValueError as error:
        c.fail("equation expected to fit the operands", f"{equation}: {error}")


FLOAT8 = (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz)


def cast(x: Array, to: np.dtype[Any], saturate: bool = True, round_mode: str = "up") -> Array:
    """`x` in another type, as ONNX's tables of conversions say."""
    with np.errstate(all="ignore"):
        if to == ml_dtypes.float8_e8m0fnu:
            return _to_exponents(x, saturate, round_mode)
        if to.type in FLOAT8 and saturate:
            limit = float(ml_dtypes.finfo(to).max)
            return np.clip(as_float(x), -limit, limit).astype(to)
        if to == ml_dtypes.float4_e2m1fn and x.dtype.kind != "b":
            return as_float(x).astype(to)
        if to in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2) and x.dtype.kind in "fV":
            return as_float(x).astype(np.int64).astype(to)
        if x.dtype.kind == "V" and to.kind in "biu":
            return as_float(x).astype(to)
        return x.astype(to)


def _to_exponents(x: Array, saturate: bool, round_mode: str) -> Array:
    """Powers of two by their exponent alone."""
    bits = as_float(x).astype(np.float32).view(np.uint32)
    exponent, rest = (bits >> 23 & 0xFF).astype(np.int64), bits & 0x7FFFFF
    nan = (exponent == 0xFF) & ((rest != 0) | (not saturate))
    up = {"up": rest > 0, "down": np.zeros(rest.shape, bool), "nearest": rest >= 0x400000}[round_mode]
    code = np.where(exponent == 0xFF, 0xFE, exponent + up)
    over = 0xFE if saturate else 0xFF
    return np.where(nan, 0xFF, np.where(code > 0xFE, over, code)).astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)


@meaning("Cast", moves="cast")
def _cast(c: Call, x: Array) -> Array:
    to = number_type(c, c.integer("to"))
    return cast(x, to, bool(c.integer("saturate", 1)), c.attr("round_mode", "up"))


@meaning("CastLike", moves="cast")
def _cast_like(c: Call, x: Array, like: Array) -> Array:
    return cast(x, like.dtype, bool(c.integer("saturate", 1)), c.attr("round_mode", "up"))


@meaning("BitCast")
def _bit_cast(c: Call, x: Array) -> Array:
    to = number_type(c, c.integer("to"))
    if to.itemsize != x.dtype.itemsize:
        c.fail(f"to expected a type of {x.dtype.itemsize} bytes", str(to))
    return np.ascontiguousarray(x).view(to).reshape(x.shape)


def per_block(c: Call, x: Array, factor: Array, default_axis: int = 1) -> Array:
    """Scale or zero point laid along the elements of `x`: one for all, one an index of an axis, or one a block."""
    if factor.size == 1:
        return factor.reshape(())
    axis = c.axis(x.ndim, default=default_axis)
    if factor.ndim == 1:
        if factor.shape[0] != x.shape[axis]:
            c.fail(f"scale expected {x.shape[axis]} numbers, one an index of axis {axis}", factor.shape[0])
        return factor.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    block = c.integer("block_size", 0) or -(-x.shape[axis] // factor.shape[axis])
    if factor.shape != (*x.shape[:axis], -(-x.shape[axis] // block), *x.shape[axis + 1 :]):
        c.fail(f"scale expected a number for each {block} elements of axis {axis} of {list(x.shape)}", factor.shape)
    return np.take(np.repeat(factor, block, axis=axis), range(x.shape[axis]), axis=axis)


@meaning("DequantizeLinear")
def _dequantize(c: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    code = c.integer("output_dtype", 0)
    to = number_type(c, code) if code else scale.dtype
    wide = x.astype(np.float32) if x.dtype.kind in "fV" else x.astype(np.int64)
    if zero is not None:
        wide = wide - per_block(c, x, zero).astype(wide.dtype)
    return (wide.astype(np.float32) * per_block(c, x, scale).astype(np.float32)).astype(to)


@meaning("QuantizeLinear")
def _quantize(c: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    code = c.integer("output_dtype", 0)
    to = zero.dtype if zero is not None else number_type(c, code) if code else np.dtype(np.uint8)
    y = as_float(x) / per_block(c, x, scale).astype(np.float32)
    offset = 0 if zero is None else per_block(c, x, zero).astype(np.float32)
    if to.kind in "fV" and to not in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2):
        return cast((y + offset).astype(np.float32), to, bool(c.integer("saturate", 1)))
    limits = ml_dtypes.iinfo(to)
    return np.clip(np.rint(y) + offset, limits.min, limits.max).astype(np.int32).astype(to)


@meaning("DynamicQuantizeLinear")
def _dynamic_quantize(c: Call, x: Array) -> tuple[Array, Array, Array]:
    low, high = min(0.0, float(x.min(initial=0))), max(0.0, float(x.max(initial=0)))
    scale = np.float32((high - low) / 255) if high > low else np.float32(1)
    zero = np.uint8(np.clip(np.rint(-np.float32(low) / scale), 0, 255))
    y = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    return y, np.asarray(scale, np.float32), np.asarray(zero, np.uint8)


@meaning("MatMulInteger")
def _matmul_integer(c: Call, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
    left = a.astype(np.int32) - (0 if a_zero is None else _column(a_zero.astype(np.int32)))
    right = b.astype(np.int32) - (0 if b_zero is None else b_zero.astype(np.int32))
    return _product(c, left, right)


def _column(zero: Array) -> Array:
    return zero[:, None] if zero.ndim == 1 and zero.size > 1 else zero


def unpack_bits(packed: Array, bits: int, count: int) -> Array:
    """Codes (.., count) u8 of `bits` bits, the lowest first, from bytes (.., at least count * bits / 8)."""
    each = np.unpackbits(packed, axis=-1, bitorder="little")[..., : count * bits]
    each = each.reshape(*packed.shape[:-1], count, bits)
    return np.packbits(each, axis=-1, bitorder="little")[..., 0]


def nbits_codes(
    place: str, packed: Array, scales: Array, zero: Array | None, n: int, k: int, bits: int, block: int
) -> tuple[Array, Array, Array]:
    """Codes u8 (n, k), scales (n, groups), zero points (n, groups; u8 or float) of a MatMulNBits weight.

    Raises DlavmError, beginning with `place`, where the operands do not have the sizes that the attributes say.
    """
    groups = -(-k // block) if block > 0 else 0
    good = bits in (2, 4, 8) and n > 0 and k > 0 and block >= 16
    if not good or packed.size != n * groups * (block * bits // 8) or scales.size != n * groups:
        raise DlavmError(
            f"{place}: B and scales expected {n} rows of {k} numbers of {bits} bits in blocks of {block}, "
            f"got {list(packed.shape)} and {list(scales.shape)}"
        )
    codes = unpack_bits(packed.astype(np.uint8).reshape(n, -1), bits, groups * block)[:, :k]
    if zero is None:
        zeros = np.full((n, groups), 1 << (bits - 1), np.uint8)
    elif zero.dtype == np.uint8:
        row = -(-groups * bits // 8)
        if zero.size != n * row:
            raise DlavmError(f"{place}: zero_points expected {n} rows of {row} bytes, got {list(zero.shape)}")
        zeros = unpack_bits(zero.reshape(n, row), bits, groups)
    else:
        zeros = zero.reshape(n, groups)
    return codes, scales.reshape(n, groups), zeros


@meaning("MatMulNBits", domain=CONTRIB)
def _matmul_nbits(
    c: Call, a: Array, packed: Array, scales: Array, zero: Array | None = None, g_idx: Array | None = None,
    bias: Array | None = None,
) -> Array:  # fmt: skip
    n, k, bits, block = c.integer("N"), c.integer("K"), c.integer("bits", 4), c.integer("block_size")
    codes, scale, zeros = nbits_codes(c.where, packed, scales, zero, n, k, bits, block)
    group = np.arange(k) // block if g_idx is None else g_idx[:k]
    w = (codes - zeros.astype(np.float32)[:, group]) * scale.astype(np.float32)[:, group]
    y = _product(c, a, w.T.astype(np.float32))
    return y if bias is None else y + bias


@meaning("GatherBlockQuantized", domain=CONTRIB)
def _gather_block_quantized(c: Call, data: Array, indices: Array, scales: Array, zero: Array | None = None) -> Array:
    bits, block = c.integer("bits", 4), c.integer("block_size", 128)
    if c.integer("gather_axis", 0) != 0 or data.ndim != 2 or c.axis(2, "quantize_axis", 1) != 1:
        c.fail("data expected a matrix, gathered by rows and quantised along them", list(data.shape))
    rows = data[indices]
    points = None if zero is None else zero[indices]
    if data.dtype == np.uint8:  # packed
        rows = unpack_bits(rows, bits, rows.shape[-1] * 8 // bits).astype(np.float32)
        default = 1 << (bits - 1)
        if points is not None:
            points = unpack_bits(points, bits, scales.shape[-1])
    else:
        rows, default = rows.astype(np.float32), 0
    group = np.arange(rows.shape[-1]) // block
    offset = default if points is None else points.astype(np.float32)[..., group]
    return ((rows - offset) * scales[indices].astype(np.float32)[..., group]).astype(scales.dtype)
