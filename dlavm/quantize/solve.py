"""Quantising the matrices of one unit: scales of channels, rounding, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlavm.formats import Format, Grid, quantize
from dlavm.quantize import awq
from dlavm.quantize.budget import stored_bits
from dlavm.quantize.folds import Fold
from dlavm.quantize.gptq import compensate
from dlavm.quantize.hessian import F32, Factor, Hessian
from dlavm.quantize.units import Matrix, Unit

SLAB_BYTES = 32 << 20  # of float32 weights that are worked on at once
SEARCH_ROWS = 512  # of a matrix that a search looks at
Read = Callable[[str, slice], F32]  # tensor of the source, rows


@dataclass(frozen=True)
class Method:
    """`scales` of channels are searched for; rounding `compensates` for its errors, with `act_order` in the order of
    the columns' activations."""

    scales: bool = False
    compensates: bool = False
    act_order: bool = False


METHODS = {"rtn": Method(), "gptq": Method(compensates=True), "awq": Method(scales=True),
           "awq+gptq": Method(scales=True, compensates=True)}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A matrix W on a grid; W diag(s) where the channels of its input are divided by s. `row` is what is reported."""

    matrix: Matrix
    grid: Grid
    row: dict[str, Any]


class Solver:
    """`read` gives the source's weights, `settle(fold, s)` the scales nearest to s that its vectors can be divided by
    exactly, in the type of the checkpoint."""

    def __init__(self, method: Method, read: Read, settle: Callable[[Fold, F32], F32]) -> None:
        self.method, self.read, self.settle = method, read, settle

    def scales(
        self, unit: Unit, format: Format, fold: Fold | None, hessian: Hessian, powers_of_two: bool
    ) -> F32 | None:
        """The scales [entries of the fold] by which the unit's input is to be divided, None for none."""
        if fold is None or not self.method.scales:
            return None
        samples = [sample(self.read, matrix) for matrix in unit.matrices]
        found = awq.search(samples, hessian, format, fold.index, powers_of_two)
        return None if found is None else self.settle(fold, found)

    def solve(self, unit: Unit, format: Format, hessian: Hessian | None, s: F32 | None) -> Iterator[Result]:
        """Matrix after matrix; `hessian` is used up. `s` [k] scales the columns."""
        measure: _Measure = _weights_only
        if hessian is not None:
            if s is not None:
                hessian.scale(1 / s.astype(np.float64))
            measure = self._compensated(hessian) if self.method.compensates else _rounded(hessian)
        for matrix in unit.matrices:
            yield self._matrix(matrix, format, measure, s)

    def _compensated(self, hessian: Hessian) -> _Measure:
        order = None
        if self.method.act_order:
            order = np.argsort(-np.diagonal(hessian.h), kind="stable")
            hessian.permute(order)
        factor = Factor(hessian)

        def measure(w: F32, format: Format, name: str) -> tuple[Grid, float | None, float | None]:
            grid, error = compensate(w, factor, format, name, order)
            return grid, error, factor.energy(w.T if order is None else w.T[order])

        return measure

    def _matrix(self, matrix: Matrix, format: Format, measure: _Measure, s: F32 | None) -> Result:
        n, k = matrix.shape
        sums, grids = np.zeros(4), []
        known = True
        for start, stop in slabs(n, k):
            w = self.read(matrix.source, slice(start, stop))
            grid, error, energy = measure(w if s is None else w * s, format, matrix.name)
            d = (grid.values() if s is None else grid.values() / s) - w
            known = known and error is not None
            sums += [*(np.square(m, dtype=np.float64).sum() for m in (d, w)), error or 0, energy or 0]
            grids.append(grid)
        bits = stored_bits(format, n, k)
        row = {"name": matrix.name, "format": format.name, "shape": [n, k], "bits_per_weight": bits / (n * k),
               "bytes": bits // 8, "weight_error": _relative(sums[0], sums[1]),
               "output_error": _relative(sums[2], sums[3]) if known else None, "scaled": s is not None}  # fmt: skip
        return Result(matrix, _stacked(grids), row)


_Measure = Callable[[F32, Format, str], tuple[Grid, float | None, float | None]]  # grid, squares of error and output


def _weights_only(w: F32, format: Format, name: str) -> tuple[Grid, None, None]:
    return quantize(w, format, name), None, None


def _rounded(hessian: Hessian) -> _Measure:
    def measure(w: F32, format: Format, name: str) -> tuple[Grid, float, float]:
        grid = quantize(w, format, name)
        return grid, hessian.energy(grid.values() - w), hessian.energy(w)

    return measure


def sensitivity(unit: Unit, format: Format, hessian: Hessian | None, read: Read) -> float:
    """How much of the outputs of a unit rounding to nearest changes: the square of the error over that of the outputs;
    of the weights where nothing is known of the inputs. From a sample of the rows."""
    error = total = 0.0
    for matrix in unit.matrices:
        w = sample(read, matrix)
        d = quantize(w, format, matrix.name).values() - w
        energy = hessian.energy if hessian is not None else lambda m: float(np.square(m, dtype=np.float64).sum())
        error, total = error + energy(d), total + energy(w)
    return error / total if total else 0.0


def sample(read: Read, matrix: Matrix) -> F32:
    """At most SEARCH_ROWS of the matrix's rows, evenly."""
    n, k = matrix.shape
    count = min(n, SEARCH_ROWS)
    wanted = np.arange(count) * n // count
    parts = []
    for start, stop in slabs(n, k):
        here = wanted[(wanted >= start) & (wanted < stop)]
        parts.append(read(matrix.source, slice(start, stop))[here - start])
    return np.concatenate(parts)


def slabs(n: int, k: int) -> list[tuple[int, int]]:
    """Rows of a matrix [n, k] in runs of at most SLAB_BYTES."""
    step = max(1, SLAB_BYTES // (4 * k))
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def _relative(error: float, total: float) -> float:
    return float(np.sqrt(error / total)) if total > 0 else 0.0


def _stacked(grids: list[Grid]) -> Grid:
    codes, scale = np.concatenate([g.codes for g in grids]), np.concatenate([g.scale for g in grids])
    zeros = [g.zero for g in grids if g.zero is not None]
    return replace(grids[0], codes=codes, scale=scale, zero=np.concatenate(zeros) if zeros else None)
