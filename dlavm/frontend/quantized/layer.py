"""A matrix that a checkpoint holds quantised, in terms of our number formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import ELEMENTS, FORMATS, Format, Grid
from dlavm.formats.table import E8M0_BIAS, E8M0_LIMIT
from dlavm.support.errors import DlavmError

Codes = NDArray[np.uint8]
Part = Callable[[slice], NDArray[Any]]  # of rows start..stop of the matrix
BLOCK = 1 << 20  # scales that are looked at together
ROUGH = 2.0**-7  # a scale that fp16 changes by more than this part of it is not kept
NAN_CODES = {"e4m3": (127, 255)}
NAN_SCALE = 255  # of E8M0
EXPONENT_FORMATS = {format.element.name: name for name, format in FORMATS.items() if format.scale == "e8m0"}


@dataclass(frozen=True)
class Fit:
    """The format that holds a matrix, None where none does, and what is lost: empty where nothing is."""

    format: Format | None
    note: str = ""


@dataclass(frozen=True)
class Layer:
    """The matrix [n, k] of a linear layer, called `name`, of the file or directory `place`.

    `codes` gives codes of the element type, uint8 [rows, k]; `scales` [rows, groups], floats or the bytes of E8M0;
    `zeros` uint8 [rows, groups], None where they are the middle of the range. `group` weights along k share a scale;
    the last group may be short. `order`: the columns that one after the other make up the groups, int32 [k], None
    where they lie so already: column i of what is given is column order[i] of the layer's input. `uses` names the
    tensors that this is made of.
    """

    name: str
    place: str
    shape: tuple[int, int]
    element: str
    group: int
    codes: Part
    scales: Part
    zeros: Part | None = None
    order: NDArray[np.int32] | None = None
    uses: frozenset[str] = frozenset()

    @property
    def groups(self) -> int:
        return -(-self.shape[1] // self.group)

    @cached_property
    def fit(self) -> Fit:
        """Looks at every scale and zero point. Raises DlavmError for scales that are not finite."""
        group = self._format_group()
        if group is None:
            return Fit(None, f"groups of {self.group} weights")
        if self.element == "e2m1" or self._has_exponents():
            return self._fit_exponents()
        note = self._rounding()
        if note is None:
            return Fit(None, "scales that fp16 does not hold")
        plain = self.zeros is None or all((self._zeros(rows) == self._middle).all() for rows in self._blocks())
        kind = "fp8" if self.element == "e4m3" else self.element
        return Fit(FORMATS[f"{kind}g{group}{'' if plain else 'z'}"], note)

    def _format_group(self) -> int | None:
        """Weights to a scale in the format: the checkpoint's own number, or one that divides it."""
        sizes = (32,) if self._has_exponents() else (128,) if self.element == "e4m3" else (128, 64, 32)
        return next((size for size in sizes if self.groups == 1 or self.group % size == 0), None)

    def _has_exponents(self) -> bool:
        return bool(self.scales(slice(0, 1)).dtype == np.uint8)

    @property
    def _middle(self) -> int:
        return ELEMENTS[self.element].middle

    def _blocks(self) -> Iterator[slice]:
        """Slices of rows with a bounded number of scales each."""
        step = max(1, BLOCK // self.groups)
        return (slice(start, min(start + step, self.shape[0])) for start in range(0, self.shape[0], step))

    def _rounding(self) -> str | None:
        """What fp16 makes of the scales: empty where it holds them, None where it is far off."""
        worst = 0.0
        for rows in self._blocks():
            scales = self._scales(rows)
            with np.errstate(over="ignore", under="ignore"):
                error = np.abs(scales.astype(np.float16).astype(np.float32) - scales)
            relative = np.divide(error, np.abs(scales), out=np.zeros_like(error), where=scales != 0)
            worst = max(worst, float(relative.max(initial=0)))
        if worst == 0:
            return ""
        return f"scales rounded to fp16, by up to {100 * worst:.2g} %" if worst < ROUGH else None

    def _fit_exponents(self) -> Fit:
        name = EXPONENT_FORMATS.get(self.element)
        if name is None or not self._has_exponents():
            return Fit(None, f"no format of {self.element} with {self.scales(slice(0, 1)).dtype} scales")
        for rows in self._blocks():
            far = self._far(self.scales(rows))
            if far.any() and self._integers(self._ordered_codes(rows))[self._spread(far)].any():
                return Fit(None, f"scales beyond 2^+-{E8M0_LIMIT}")
        return Fit(FORMATS[name])

    def _far(self, exponents: NDArray[Any]) -> NDArray[np.bool_]:
        if (exponents == NAN_SCALE).any():
            raise self._error("finite scales, got NaN")
        return np.abs(exponents.astype(np.int32) - E8M0_BIAS) > E8M0_LIMIT

    def grid(self, rows: slice) -> Grid | None:
        """Rows in the format of `fit`, their columns in `order`; None where there is none."""
        format = self.fit.format
        if format is None:
            return None
        starts = np.arange(format.groups(self.shape[1])) * format.group // self.group
        codes = self._ordered_codes(rows)
        if format.scale == "e8m0":
            exponents = self.scales(rows)
            exponents = np.where(self._far(exponents), E8M0_BIAS, exponents).astype(np.uint8)  # of zeros, all of them
            return Grid(format, codes, np.ascontiguousarray(exponents[:, starts]))
        scale = np.ascontiguousarray(self._scales(rows).astype(np.float16)[:, starts])
        zero = np.ascontiguousarray(self._zeros(rows)[:, starts]) if format.zero else None
        return Grid(format, codes, scale, zero)

    def values(self, rows: slice) -> NDArray[np.float32]:
        """Rows as the numbers that the checkpoint means, their columns in `order`."""
        element = ELEMENTS[self.element]
        integers = self._integers(self._ordered_codes(rows)).astype(np.float32)
        if self.zeros is not None:
            integers += np.float32(self._middle) - self._spread(self._zeros(rows).astype(np.float32))
        values = integers * self._spread(np.ldexp(self._factors(rows), element.unit_exponent))
        if not np.isfinite(values).all():
            raise self._error("finite values, got NaN or infinity")
        return values

    def _factors(self, rows: slice) -> NDArray[np.float32]:
        if not self._has_exponents():
            return self._scales(rows)
        exponents = self.scales(rows)
        self._far(exponents)
        return np.ldexp(np.float32(1), exponents.astype(np.int32) - E8M0_BIAS).astype(np.float32)

    def _scales(self, rows: slice) -> NDArray[np.float32]:
        scales = self.scales(rows).astype(np.float32)
        if not np.isfinite(scales).all():
            raise self._error("finite scales, got NaN or infinity")
        return scales

    def _zeros(self, rows: slice) -> Codes:
        assert self.zeros is not None
        return self.zeros(rows)

    def _integers(self, codes: Codes) -> NDArray[np.int32]:
        return ELEMENTS[self.element].table[codes]

    def _ordered_codes(self, rows: slice) -> Codes:
        codes = self.codes(rows)
        if self.element in NAN_CODES and np.isin(codes, NAN_CODES[self.element]).any():
            raise self._error("finite values, got NaN")
        return codes if self.order is None else np.take(codes, self.order, axis=1)

    def _spread(self, per_group: NDArray[Any]) -> NDArray[Any]:
        """[rows, groups] -> [rows, k]."""
        return np.repeat(per_group, self.group, axis=1)[:, : self.shape[1]]

    def _error(self, what: str) -> DlavmError:
        return DlavmError(f"{self.place}: {self.name} expected {what}")
