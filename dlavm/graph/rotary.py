"""Rotary position tables (Su et al., RoFormer, arXiv 2104.09864)."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError


def rotary_table(ctx: int, dim: int, theta: float) -> NDArray[np.float64]:
    """(ctx, dim): cos (dim/2) then sin (dim/2) of position * theta^(-2j/dim)."""
    return _table(ctx, theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim), 1.0)


def scaled_rotary_table(ctx: int, frequencies: str, scale: float) -> NDArray[np.float64]:
    """(ctx, 2n): cos (n) then sin (n) of position * frequency, times `scale`; `frequencies` is `packed`.

    Raises DlavmError for frequencies that are not base64 of float64 numbers.
    """
    try:
        values = np.frombuffer(base64.b64decode(frequencies, validate=True), dtype="<f8")
    except (binascii.Error, ValueError):
        raise DlavmError(f"rotary: frequencies expected base64 of float64, got {frequencies[:32]!r}") from None
    return _table(ctx, values, scale)


def packed(frequencies: NDArray[np.float64]) -> str:
    """Base64 of float64, little-endian: how frequencies stand in a graph's text."""
    return base64.b64encode(np.ascontiguousarray(frequencies, dtype="<f8").tobytes()).decode()


def _table(ctx: int, frequencies: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    angles = np.arange(ctx, dtype=np.float64)[:, None] * frequencies  # (ctx, n)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * scale
