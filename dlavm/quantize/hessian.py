"""What a linear layer's inputs say about errors of its weights: H = sum of x x^T, and its triangular factor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError

F32 = NDArray[np.float32]
BLOCK = 128  # columns that are worked on together
PANEL = 1024  # rows of H that are summed up at once
DAMPING = 0.01  # of the mean of H's diagonal, added to it


class Hessian:
    """H [k, k] float64 over all inputs x [tokens, k] of a layer, and the sums of their magnitudes.

    An error D [n, k] of the weights changes the outputs by tr(D H D^T), the sum of the squares.
    """

    def __init__(self, k: int) -> None:
        self.h = np.zeros((k, k))
        self.magnitudes = np.zeros(k)
        self.tokens = 0

    def add(self, x: F32, where: str = "") -> None:
        """Further inputs. Raises DlavmError for values that are not finite."""
        if not np.isfinite(x).all():
            raise DlavmError(f"calibration, {where}: expected finite activations, got NaN or infinity")
        for start in range(0, len(self.h), PANEL):  # the upper triangle; `mirror` makes the lower
            self.h[start : start + PANEL, start:] += x[:, start : start + PANEL].T @ x[:, start:]
        self.magnitudes += np.abs(x).sum(axis=0, dtype=np.float64)
        self.tokens += len(x)

    def mirror(self) -> None:
        """Copies the upper triangle to the lower one, once all inputs are there."""
        for start in range(0, len(self.h), PANEL):
            rows = slice(start, start + PANEL)
            square = np.triu(self.h[rows, rows])
            self.h[rows, rows] = square + np.triu(square, 1).T
            self.h[start + PANEL :, rows] = self.h[rows, start + PANEL :].T

    def energy(self, d: F32) -> float:
        """tr(D H D^T) for D [n, k]; mirrored."""
        wide = d.astype(np.float64)
        return float(np.sum((wide @ self.h) * wide))

    def scale(self, factors: NDArray[np.floating]) -> None:
        """H of the inputs times `factors` [k]."""
        self.h *= factors
        self.h *= np.asarray(factors)[:, None]

    def permute(self, order: NDArray[np.intp]) -> None:
        """H of the inputs in another order; takes the memory of a second H meanwhile."""
        self.h = self.h[np.ix_(order, order)]


class Factor:
    """V, upper triangular, with H + damping = V V^T; made in the memory of H, which is gone afterwards.

    Then tr(D H D^T) is the sum of the squares of D V, less that of the damping. Column i of D V depends on the columns
    0 .. i of D alone: what errors of the first columns have left for the next one to make good.
    """

    def __init__(self, hessian: Hessian, damping: float = DAMPING) -> None:
        self.v = hessian.h
        diagonal = np.einsum("ii->i", self.v)
        self.damping = damping * float(diagonal.mean()) or 1.0  # inputs that are all zero: every error weighs alike
        diagonal += self.damping
        for stop in range(len(self.v), 0, -BLOCK):
            self._factorise(max(0, stop - BLOCK), stop)

    def _factorise(self, start: int, stop: int) -> None:
        """Columns start .. stop - 1, from those behind them."""
        v, right = self.v, self.v[start:stop, stop:]
        square = v[start:stop, start:stop] - right @ right.T
        square = np.triu(square) + np.triu(square, 1).T
        corner = np.linalg.cholesky(square[::-1, ::-1])[::-1, ::-1]  # upper: the order is reversed, and so back again
        v[start:stop, start:stop] = corner
        if start:
            above = v[:start, start:stop] - v[:start, stop:] @ right.T
            v[:start, start:stop] = np.linalg.solve(corner, above.T).T

    def columns(self, start: int, stop: int) -> tuple[F32, F32]:
        """Columns of V divided by their diagonal [stop, stop - start], and the diagonal."""
        block = self.v[:stop, start:stop].copy()
        block[start:] = np.triu(block[start:])
        diagonal = np.diagonal(block[start:]).copy()
        return (block / diagonal).astype(np.float32), diagonal.astype(np.float32)

    def energy(self, d: F32) -> float:
        """tr(D H D^T) for D^T [k, n]."""
        total = -self.damping * float(np.sum(np.square(d), dtype=np.float64))
        for start in range(0, len(d), BLOCK):
            stop = min(start + BLOCK, len(d))
            columns, diagonal = self.columns(start, stop)
            total += float(np.sum(np.square((columns.T @ d[:stop]) * diagonal[:, None]), dtype=np.float64))
        return max(total, 0.0)
