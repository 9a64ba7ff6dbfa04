"""A quantised matrix: codes, scales, zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats.table import E8M0_BIAS, Format


@dataclass(frozen=True)
class Grid:
    """[n, k] weights: `codes` uint8 [n, k]; `scale` [n, groups], float16 or the uint8 of E8M0; `zero` uint8
    [n, groups], None where the format has no zero points."""

    format: Format
    codes: NDArray[np.uint8]
    scale: NDArray[Any]
    zero: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.codes.shape
        return n, k

    def integers(self) -> NDArray[np.int32]:
        """[n, k]: what the matrix engine multiplies mantissas with."""
        if self.zero is None:
            return self.format.element.table[self.codes]
        return self.codes.astype(np.int32) - self._spread(self.zero).astype(np.int32)

    def values(self) -> NDArray[np.float32]:
        """[n, k]: the numbers, rounded once where a scale has so many bits that float32 does not hold the product."""
        integers = self.integers().astype(np.float32)
        return np.multiply(integers, self._spread(self.factors()), dtype=np.float32)

    def factors(self) -> NDArray[np.float32]:
        """[n, groups]: what one unit of an integer is worth; exact."""
        unit = self.format.element.unit_exponent
        if self.format.scale == "e8m0":
            return np.ldexp(np.float32(1), self.scale.astype(np.int32) - E8M0_BIAS + unit).astype(np.float32)
        return np.ldexp(self.scale.astype(np.float32), unit)

    def rows(self, start: int, stop: int) -> Grid:
        """A view of some rows."""
        zero = None if self.zero is None else self.zero[start:stop]
        return Grid(self.format, self.codes[start:stop], self.scale[start:stop], zero)

    def _spread(self, per_group: NDArray[Any]) -> NDArray[Any]:
        """[n, groups] -> [n, k]."""
        return np.repeat(per_group, self.format.group, axis=1)[:, : self.codes.shape[1]]
