"""Number tables of doc/numerics.md sections 6 and 7, computed exactly once for Python, C++ and SystemVerilog.

Everything is computed in decimal arithmetic and rounded once, so that the tables do not depend on a machine's libm.
"""
from __future__ import annotations

import re
import struct
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError

SEGMENTS = 2048  # of an activation table
POINTS = 257  # of a table-unit function
LOG2E_BITS = 0x3FB8AA3B
FLT_MAX = np.float32(np.finfo(np.float32).max)
_PRECISION = 60


def _rounded(x: Decimal) -> int:
    return int(x.to_integral_value(rounding=ROUND_HALF_EVEN))


@lru_cache
def unit_tables() -> dict[str, NDArray[np.int32]]:
    """int32[257] points of exp, recip, rsqrt0 (even exponent), rsqrt1 (odd exponent)."""
    with localcontext() as ctx:
        ctx.prec = _PRECISION
        ln2 = Decimal(2).ln()
        steps = [Decimal(i) / 256 for i in range(POINTS)]
        points = {
            "exp": [_rounded((t * ln2).exp() * 2**22) for t in steps],
            "recip": [_rounded(2**23 / (1 + t)) for t in steps],
            "rsqrt0": [_rounded(2**23 / (1 + t).sqrt()) for t in steps],
            "rsqrt1": [_rounded(2**23 / (2 * (1 + t)).sqrt()) for t in steps],
        }
    return {name: np.array(values, dtype=np.int32) for name, values in points.items()}


def _sigmoid(x: Decimal) -> Decimal:
    if x < -100_000:  # exp would leave decimal's range; fp32 sees zero from -104 on
        return Decimal(0)
    return 1 / (1 + (-x).exp())


def _tanh(x: Decimal) -> Decimal:
    if abs(x) < Decimal("1e-6"):
        return x - x**3 / 3
    return 2 * _sigmoid(2 * x) - 1


def _normal_cdf(x: Decimal) -> Decimal:
    """Phi(x) by its Taylor series; beyond |x| = 12 it is 0 or 1 to far more digits than fp32 holds."""
    if abs(x) > 12:
        return Decimal(1 if x > 0 else 0)
    term, total, n = x, x, 0
    while abs(term) > Decimal(10) ** -(_PRECISION - 5):
        n += 1
        term = term * -x * x / (2 * n)
        total += term / (2 * n + 1)
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021164194988918")
    return Decimal(1) / 2 + total / two_pi.sqrt()


def _gelu_tanh(x: Decimal) -> Decimal:
    sqrt_8_over_pi = Decimal("1.59576912160573071175978423973752747390343452465714")
    return x * _sigmoid(sqrt_8_over_pi * (x + Decimal("0.044715") * x**3))


ACTIVATIONS: dict[str, Callable[[Decimal], Decimal]] = {
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * _normal_cdf(x),
    "gelu_tanh": _gelu_tanh,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": lambda x: max(x, Decimal(0)),
}


def _softcap(cap: Decimal, x: Decimal) -> Decimal:
    return cap * _tanh(x / cap)


def activation_function(name: str) -> Callable[[Decimal], Decimal]:
    """The function of a name in ACTIVATIONS, or of `softcap(c)`: c * tanh(x / c). Raises DlavmError for any other."""
    if found := re.fullmatch(r"softcap\((\d+(?:\.\d+)?)\)", name):
        return partial(_softcap, Decimal(found[1]))
    if name not in ACTIVATIONS:
        raise DlavmError(f"activation: expected one of {sorted(ACTIVATIONS)} or softcap(NUMBER), got {name!r}")
    return ACTIVATIONS[name]


def _segment_start(i: int) -> Decimal:
    """The fp16 value at which segment `i` of the positive half (0..1023) starts; 1024 stands for 2^16 * 2."""
    exponent, mantissa = i >> 5, (i & 31) << 5
    if exponent == 0:
        return Decimal(mantissa) * Decimal(2) ** -24
    return Decimal(1024 + mantissa) * Decimal(2) ** (exponent - 25)


@lru_cache
def activation_table(name: str) -> NDArray[np.float32]:
    """float32[2048, 2] (base, slope) of an activation function; section 6 of doc/numerics.md."""
    function = activation_function(name)
    table = np.zeros((SEGMENTS, 2), dtype=np.float32)
    with localcontext() as ctx:
        ctx.prec = _PRECISION + 40  # the series of the normal distribution cancels up to 31 digits at |x| = 12
        for sign in (0, 1):
            factor = -1 if sign else 1
            values = [function(factor * _segment_start(i)) for i in range(31 * 32 + 1)]
            half = table[sign * 1024:(sign + 1) * 1024]
            half[:31 * 32, 0] = [float(v) for v in values[:-1]]
            half[:31 * 32, 1] = [float((b - a) / 32) for a, b in zip(values, values[1:], strict=False)]
            half[31 * 32:, 0] = float(function(factor * Decimal(65504)))
    return table


def table_bytes(name: str) -> bytes:
    """16 KiB: the form that LOAD_TABLE reads, (base, slope) fp32 pairs."""
    return activation_table(name).astype("<f4").tobytes()


def f32_from_bits(bits: int) -> np.float32:
    return np.float32(struct.unpack("<f", struct.pack("<I", bits))[0])
