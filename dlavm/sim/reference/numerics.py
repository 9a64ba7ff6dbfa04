"""Arithmetic of doc/numerics.md on numpy arrays; one function a rule, sections named in the docstrings."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK
from dlavm.target.tables import FLT_MAX, LOG2E_BITS, f32_from_bits, unit_tables

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]
I32 = NDArray[np.int32]

LANES = 128  # virtual lanes of a reduction, on every board
ZERO_EXPONENT = -24  # of a block of zeros: the smallest exponent of fp16
EXP_MIN = -40 << 16  # clamp of exp's fixed-point argument


def sat(x: F32) -> F32:
    """Section 1: an fp32 result past the largest finite value becomes that value."""
    return np.clip(x, -FLT_MAX, FLT_MAX)


def add(a: F32, b: F32 | np.float32) -> F32:
    with np.errstate(over="ignore"):
        return sat(np.add(a, b, dtype=np.float32))


def sub(a: F32, b: F32 | np.float32) -> F32:
    with np.errstate(over="ignore"):
        return sat(np.subtract(a, b, dtype=np.float32))


def mul(a: F32, b: F32 | np.float32) -> F32:
    with np.errstate(over="ignore", under="ignore"):
        return sat(np.multiply(a, b, dtype=np.float32))


def load16(bits: NDArray[np.uint16]) -> F32:
    """fp16 as memory holds it -> fp32; exponent 31 reads as +-65504."""
    values = bits.view(np.float16).astype(np.float32)
    special = bits & 0x7C00 == 0x7C00
    return np.where(special, np.where(bits & 0x8000 != 0, np.float32(-65504), np.float32(65504)), values)


def load32(bits: NDArray[np.uint32]) -> F32:
    """fp32 as memory holds it; exponent 255 reads as the largest finite value with its sign."""
    special = bits & 0x7F800000 == 0x7F800000
    limit = np.where(bits & 0x80000000 != 0, -FLT_MAX, FLT_MAX).astype(np.float32)
    return np.where(special, limit, np.where(special, np.uint32(0), bits).view(np.float32))


def rn16(x: F32) -> F16:
    """fp32 -> fp16 to nearest even, saturating at 65504."""
    return np.clip(x, np.float32(-65504), np.float32(65504)).astype(np.float16)


def quantize(x: NDArray[np.floating], bits: int) -> tuple[I32, I32]:
    """Section 2: rows [..., K] -> mantissas [..., blocks, 32] and exponents e [..., blocks] (x is about m * 2^e)."""
    k = x.shape[-1]
    blocks = -(-k // BLOCK)
    padded = np.zeros((*x.shape[:-1], blocks * BLOCK), dtype=np.float64)
    padded[..., :k] = x
    padded = padded.reshape(*x.shape[:-1], blocks, BLOCK)
    largest = np.abs(padded).max(axis=-1)
    exponent = np.where(largest > 0, np.frexp(largest)[1] - 1, ZERO_EXPONENT)
    limit = (1 << (bits - 1)) - 1
    scaled = np.rint(np.ldexp(padded, (bits - 2 - exponent)[..., None]))
    return np.clip(scaled, -limit, limit).astype(np.int32), (exponent - (bits - 2)).astype(np.int32)


def power_of_two(e: I32) -> F32:
    return np.ldexp(np.float32(1), e).astype(np.float32)


def lane_sum(x: F32) -> F32:
    """Section 4: sums over the last axis with 128 virtual lanes and a fixed tree."""
    n = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-n // LANES) * LANES), dtype=np.float32)
    padded[..., :n] = x
    lanes = np.zeros((*x.shape[:-1], LANES), dtype=np.float32)
    for start in range(0, n, LANES):
        width = min(LANES, n - start)
        lanes[..., :width] = add(lanes[..., :width], padded[..., start:start + width])
    step = LANES // 2
    while step:
        lanes[..., :step] = add(lanes[..., :step], lanes[..., step:2 * step])
        step //= 2
    return lanes[..., 0]


def _interpolate(table: I32, index: I32, fraction: I32, bits: int) -> NDArray[np.int64]:
    low = table[index].astype(np.int64)
    return low + ((table[index + 1] - low) * fraction >> bits)


def exp(x: F32) -> F32:
    """Section 7: exp of x <= 0."""
    t = mul(x, f32_from_bits(LOG2E_BITS))
    q = np.maximum(np.rint(t.astype(np.float64) * 65536), EXP_MIN).astype(np.int64)
    mantissa = _interpolate(unit_tables()["exp"], (q >> 8 & 255).astype(np.int32), (q & 255).astype(np.int32), 8)
    return np.ldexp(mantissa.astype(np.float32), ((q >> 16) - 22).astype(np.int32))


def _split(x: F32) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """x > 0 as (23 mantissa bits, exponent E) with x = 1.m * 2^E, subnormals normalised."""
    fraction, exponent = np.frexp(x)
    mantissa = (fraction.astype(np.float64) * 2**24).astype(np.int64) - 2**23
    return mantissa, exponent.astype(np.int64) - 1


def _scaled(mantissa: NDArray[np.int64], exponent: NDArray[np.int64], valid: NDArray[np.bool_]) -> F32:
    """mantissa * 2^exponent, rounded once where subnormal, saturated; the largest finite value where not valid."""
    with np.errstate(over="ignore", under="ignore"):
        exact = np.ldexp(mantissa.astype(np.float64), exponent.astype(np.int32))
        return np.where(valid, sat(exact.astype(np.float32)), FLT_MAX)


def reciprocal(x: F32) -> F32:
    """Section 7: 1 / x by table; the largest finite value for x <= 0."""
    valid = x > 0
    mantissa, exponent = _split(np.where(valid, x, np.float32(1)))
    result = _interpolate(unit_tables()["recip"], mantissa >> 15, mantissa & 0x7FFF, 15)
    return _scaled(result, -exponent - 23, valid)


def rsqrt(x: F32) -> F32:
    """Section 7: 1 / sqrt(x) by tables for even and odd exponents; the largest finite value for x <= 0."""
    valid = x > 0
    mantissa, exponent = _split(np.where(valid, x, np.float32(1)))
    odd = exponent & 1
    index, fraction = mantissa >> 15, mantissa & 0x7FFF
    tables = unit_tables()
    result = np.where(odd == 1, _interpolate(tables["rsqrt1"], index, fraction, 15),
                      _interpolate(tables["rsqrt0"], index, fraction, 15))
    return _scaled(result, -((exponent - odd) // 2) - 23, valid)


def activation(x: F32, table: F32) -> F32:
    """Section 6: `table` float32[2048, 2] applied to rn16(x)."""
    bits = rn16(x).view(np.uint16).astype(np.int32)
    segment = bits >> 5
    return add(table[segment, 0], mul(table[segment, 1], (bits & 31).astype(np.float32)))
