"""The numbers of doc/numerics.md in straight numpy, for the benches. Floats travel as their bits (uint32, uint16)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

MAX_FINITE = np.uint32(0x7F7FFFFF)


def finite(bits: U32) -> F32:
    """fp32 values as an engine reads them: an exponent of all ones is the largest finite value."""
    special = (bits & 0x7F800000) == 0x7F800000
    return np.where(special, (bits & 0x80000000) | MAX_FINITE, bits).astype(np.uint32).view(np.float32)


def saturate(values: F32) -> U32:
    """An fp32 result as an engine writes it."""
    return finite(values.view(np.uint32)).view(np.uint32)


def add32(a: U32, b: U32) -> U32:
    """rn(a + b)."""
    with np.errstate(over="ignore"):
        return saturate(finite(a) + finite(b))


def mul32(a: U32, b: U32) -> U32:
    """rn(a * b)."""
    with np.errstate(over="ignore", under="ignore"):
        return saturate(finite(a) * finite(b))


def half(bits: U16) -> F32:
    """fp16 values as an engine reads them: exponent 31 is 65504."""
    special = (bits & 0x7C00) == 0x7C00
    clean = np.where(special, (bits & 0x8000) | 0x7BFF, bits).astype(np.uint16)
    return clean.view(np.float16).astype(np.float32)


def quantize(block: U16, act_bits: int) -> tuple[Ints, Ints]:
    """Section 2. block: (n, 32) fp16 -> mantissas (n, 32), exponents e (n,)."""
    x = half(block).astype(np.float64)
    top = np.abs(x).max(axis=1)
    exponent = np.where(top > 0, np.frexp(top)[1] - 1, -24).astype(np.int64)
    scaled = np.rint(np.ldexp(x, (act_bits - 2 - exponent)[:, None].astype(np.int32)))
    limit = 2 ** (act_bits - 1) - 1
    return np.clip(scaled, -limit, limit).astype(np.int64), exponent - (act_bits - 2)


def matmul(mantissa: Ints, exponent: Ints, weight: Ints, scale: U16, acc: U32 | None = None) -> U32:
    """Section 3, step by step. mantissa (token, K), exponent (token, K/32), weight (row, K), scale (row, ceil(K/128)).

    Returns the fp32 accumulators (token, row), continued from `acc` if it is given.
    """
    tokens, k = mantissa.shape
    out = np.zeros((tokens, weight.shape[0]), np.float32) if acc is None else acc.view(np.float32).copy()
    scale32 = half(scale)
    for kb in range(k // 32):
        part = slice(32 * kb, 32 * kb + 32)
        dot = (mantissa[:, part] @ weight[:, part].T).astype(np.float32)
        scaled = dot * scale32[None, :, kb // 4]
        out = out + scaled * np.ldexp(np.float32(1), exponent[:, kb].astype(np.int32))[:, None].astype(np.float32)
    return out.view(np.uint32)
