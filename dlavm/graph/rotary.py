"""Rotary position tables (Su et al., RoFormer, arXiv 2104.09864)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rotary_table(ctx: int, dim: int, theta: float) -> NDArray[np.float16]:
    """(ctx, dim) fp16: cos (dim/2) then sin (dim/2) of position * theta^(-2j/dim), computed in float64."""
    frequencies = theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)  # (dim/2,)
    angles = np.arange(ctx, dtype=np.float64)[:, None] * frequencies  # (ctx, dim/2)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
