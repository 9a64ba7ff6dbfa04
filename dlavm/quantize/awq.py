"""Scales of input channels that keep weights of large activations more exact: AWQ (Lin et al., arXiv 2306.00978)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Format, quantize
from dlavm.quantize.hessian import F32, Hessian

STEPS = 20  # values of alpha in 0 .. 1
SMALLEST = 1e-4  # of the largest magnitude: what smaller ones count as


def search(
    weights: Sequence[F32], hessian: Hessian, format: Format, index: NDArray[np.intp], powers_of_two: bool = False
) -> F32 | None:
    """The scales s [entries] with which rounding W diag(s) to nearest changes the outputs for inputs x / s least; None
    where s = 1 does best.

    `weights` [rows, k] of all layers of the input, or a sample of their rows; channel j has the scale of entry
    index[j]. s = m^alpha, where m is the mean magnitude of the entry's channels, divided by sqrt(max s * min s); alpha
    is tried in steps of 1/20. `powers_of_two` rounds them to such.
    """
    entries = np.bincount(index)
    m = np.bincount(index, weights=hessian.magnitudes) / entries
    if not m.any():
        return None
    m = np.maximum(m, SMALLEST * m.max())
    best, chosen = _error(weights, hessian, format, np.ones(len(index), np.float32)), None
    for step in range(1, STEPS):
        s = m ** (step / STEPS)
        s /= np.sqrt(s.max() * s.min())
        if powers_of_two:
            s = np.exp2(np.rint(np.log2(s)))
        error = _error(weights, hessian, format, s.astype(np.float32)[index])
        if error < best:
            best, chosen = error, s.astype(np.float32)
    return chosen


def _error(weights: Sequence[F32], hessian: Hessian, format: Format, s: F32) -> float:
    return sum(hessian.energy(quantize(w * s, format).values() / s - w) for w in weights)
