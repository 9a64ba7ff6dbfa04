"""Rounding that makes good for its errors: GPTQ (Frantar et al., arXiv 2210.17323), for any format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Format, Grid, nearest, scales
from dlavm.quantize.hessian import BLOCK, F32, Factor


def compensate(
    w: F32, factor: Factor, format: Format, name: str = "", order: NDArray[np.intp] | None = None
) -> tuple[Grid, float]:
    """Weights w [n, k] onto a grid, and tr(D H D^T) of the error D = w - grid.

    Column after column is rounded to nearest, after the errors so far have been made good for: with H = V V^T, column i
    of D V is what they leave to it, and w[i] moved by the sum over j < i of d[j] V[j, i] / V[i, i] would make it zero.
    This is the paper's update of all later columns, done when a column's turn comes; V is the inverse of its Cholesky
    factor of the inverse of H, so that nothing needs inverting. The scales of a group are chosen when its first
    column's turn comes, for its weights as they are moved then. With an `order` of the columns, which must be that of
    the factor, they are those of w itself, so that groups stay where they are.
    """
    rounding = _Rounding(w, factor, format, name, order)
    if order is not None:
        rounding.enter_all()
    for start in range(0, w.shape[1], BLOCK):
        rounding.block(start, min(start + BLOCK, w.shape[1]))
    return rounding.grid(), factor.energy(rounding.d)


class _Rounding:
    """`d` [k, n] has the errors of the columns so far, in the order of the factor; a column lies in one piece."""

    def __init__(self, w: F32, factor: Factor, format: Format, name: str, order: NDArray[np.intp] | None) -> None:
        n, self.k = w.shape
        groups = format.groups(self.k)
        self.w = np.ascontiguousarray(w.T)  # [k, n]
        self.d = np.zeros_like(self.w)
        self.codes = np.empty((self.k, n), np.uint8)
        self.scale: NDArray[Any] = np.empty((groups, n), np.uint8 if format.scale == "e8m0" else np.float16)
        self.zero = np.zeros((groups, n), np.uint8) if format.zero else None
        self.factor, self.format, self.name, self.order = factor, format, name, order
        self.single = replace(format, group=1)  # of a column alone

    def grid(self) -> Grid:
        codes, scale = np.ascontiguousarray(self.codes.T), np.ascontiguousarray(self.scale.T)
        return Grid(self.format, codes, scale, None if self.zero is None else np.ascontiguousarray(self.zero.T))

    def enter_all(self) -> None:
        for start in range(0, self.k, self.format.group):
            self._enter(start, self.w[start : start + self.format.group])

    def block(self, start: int, stop: int) -> None:
        """The columns at places start .. stop - 1 of the order, at most BLOCK, which is whole groups."""
        v, _ = self.factor.columns(start, stop)  # [stop, stop - start]
        far = v[:start].T @ self.d[:start]  # [stop - start, n]: what the blocks before leave to each
        for i in range(start, stop):
            if self.order is None and i % self.format.group == 0:
                last = min(i + self.format.group, stop)
                here = slice(i - start, last - start)
                left = far[here] + v[start:i, here].T @ self.d[start:i]
                self._enter(i, self.w[i:last] + np.linalg.inv(v[i:last, here]).T @ left)
            column = i if self.order is None else int(self.order[i])
            moved = self.w[column] + far[i - start] + v[start:i, i - start] @ self.d[start:i]
            self.d[i] = self.w[column] - self._round(column, moved)

    def _enter(self, first: int, columns: F32) -> None:
        """Chooses the scales of the group that begins with a column, for these values of its columns."""
        scale, zero = scales(columns.T, self.format, self.name)
        self.scale[first // self.format.group] = scale
        if self.zero is not None and zero is not None:
            self.zero[first // self.format.group] = zero

    def _round(self, column: int, values: F32) -> F32:
        """The nearest numbers of the grid."""
        group = column // self.format.group
        scale, zero = self.scale[group], None if self.zero is None else self.zero[group]
        self.codes[column] = nearest(values[:, None], scale, zero, self.format)[:, 0]
        one = Grid(self.single, self.codes[column][:, None], scale[:, None], None if zero is None else zero[:, None])
        return one.values()[:, 0]
