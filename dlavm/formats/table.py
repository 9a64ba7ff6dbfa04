"""The table of weight formats. A weight is an exact integer times a power of two times the scale of its group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError

BLOCK = 32
"""Elements that share an exponent: of activations, of a cache, of the OCP formats (doc/numerics.md section 2)."""


@dataclass(frozen=True)
class Element:
    """How a weight is stored, as an unsigned code of `bits` bits.

    An integer element is code - zero, where zero is half of the range unless the format stores it for each group. A
    `float_type` is a code of the OCP formats (sign, exponent, mantissa) and stands for an exact integer times
    2^unit_exponent.
    """

    name: str
    bits: int
    unit_exponent: int = 0
    float_type: type | None = None

    @property
    def middle(self) -> int:
        """The code of zero of an integer element."""
        return 1 << (self.bits - 1)

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """The integer behind each code, int32[2^bits], of a format without zero points. The codes of E4M3 that mean
        NaN stand for the largest value with their sign."""
        codes = np.arange(1 << self.bits, dtype=np.uint8)
        if self.float_type is None:
            return codes.astype(np.int32) - self.middle
        values = codes.view(self.float_type).astype(np.float64)
        largest = float(ml_dtypes.finfo(self.float_type).max)
        values = np.where(np.isnan(values), np.where(codes >> (self.bits - 1) == 1, -largest, largest), values)
        return (values * 2.0**-self.unit_exponent).astype(np.int32)

    @property
    def largest_exponent(self) -> int:
        """floor(log2) of the largest value: what the shared exponent of an MX block leaves to its elements."""
        if self.float_type is None:
            return self.bits - 2 + self.unit_exponent
        return int(np.frexp(float(ml_dtypes.finfo(self.float_type).max))[1]) - 1


ELEMENTS = {
    e.name: e
    for e in (
        Element("int4", 4),
        Element("int8", 8),
        Element("mxint8", 8, -6),
        Element("e2m1", 4, -1, ml_dtypes.float4_e2m1fn),
        Element("e2m3", 6, -3, ml_dtypes.float6_e2m3fn),
        Element("e4m3", 8, -9, ml_dtypes.float8_e4m3fn),
    )
}
E8M0_BIAS = 127  # a scale byte s means 2^(s - 127)
E8M0_LIMIT = 40  # scales beyond 2^+-40 are refused


@dataclass(frozen=True)
class Format:
    """`group` weights along K share a scale: an fp16, or the byte of a power of two (E8M0). With `zero` they share an
    unsigned zero point too."""

    name: str
    element: Element
    group: int
    scale: str  # f16, e8m0
    zero: bool = False

    def groups(self, k: int) -> int:
        """Groups of a row of k weights; the last one may be short."""
        return -(-k // self.group)

    def __str__(self) -> str:
        return self.name


def _integer_formats() -> list[Format]:
    return [
        Format(f"{element}g{group}{'z' if zero else ''}", ELEMENTS[element], group, "f16", zero)
        for element in ("int4", "int8")
        for group in (32, 64, 128)
        for zero in (False, True)
    ]


FORMATS = {
    f.name: f
    for f in (
        *_integer_formats(),
        Format("fp8g128", ELEMENTS["e4m3"], 128, "f16"),
        Format("mxfp4", ELEMENTS["e2m1"], BLOCK, "e8m0"),
        Format("mxfp6", ELEMENTS["e2m3"], BLOCK, "e8m0"),
        Format("mxfp8", ELEMENTS["e4m3"], BLOCK, "e8m0"),
        Format("mxint8", ELEMENTS["mxint8"], BLOCK, "e8m0"),
    )
}


def format_of(name: str) -> Format:
    """Raises DlavmError for a name that is not in the table."""
    if name not in FORMATS:
        raise DlavmError(f"weight format: expected one of {sorted(FORMATS)!r}, got {name!r}")
    return FORMATS[name]
