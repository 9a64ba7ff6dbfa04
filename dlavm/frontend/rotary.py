"""Rotary embeddings of a family: which elements of a head turn, how fast, and how that is stretched to longer
contexts. Formulas as transformers has them (modeling_rope_utils.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float64]  # [dim / 2], radians a position


class Scaling(Protocol):
    """How frequencies are changed for contexts beyond those of the training."""

    def apply(self, rotary: Rotary, ctx: int) -> tuple[Frequencies, float]:
        """Those of a context of `ctx` positions, and what cos and sin are multiplied with."""


@dataclass(frozen=True)
class Rotary:
    """The first `dim` elements of a head turn, in pairs (j, j + dim / 2), or (2j, 2j + 1) when `interleaved`, by
    position * theta^(-2j / dim)."""

    dim: int
    theta: float = 10000.0
    interleaved: bool = False
    scaling: Scaling | None = None

    @property
    def plain(self) -> Frequencies:
        """The frequencies before scaling."""
        return self.theta ** (-np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)


@dataclass(frozen=True)
class Linear:
    """Positions divided by a factor (position interpolation, arXiv 2306.15595)."""

    factor: float

    def apply(self, rotary: Rotary, ctx: int) -> tuple[Frequencies, float]:
        return rotary.plain / self.factor, 1.0


@dataclass(frozen=True)
class Llama3:
    """Low frequencies divided by a factor, high ones kept, those between interpolated (Llama 3.1)."""

    factor: float
    low: float
    high: float
    original: int

    def apply(self, rotary: Rotary, ctx: int) -> tuple[Frequencies, float]:
        plain = rotary.plain
        turns = self.original * plain / (2 * math.pi)  # in the original context
        smooth = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return (1 - smooth) * plain / self.factor + smooth * plain, 1.0


@dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071): interpolated below `slow` turns in the original context, kept above `fast`."""

    factor: float
    original: int
    scale: float
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True

    def apply(self, rotary: Rotary, ctx: int) -> tuple[Frequencies, float]:
        low, high = self._pair(self.fast, rotary), self._pair(self.slow, rotary)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary.dim - 1)
        ramp = np.clip((np.arange(rotary.dim // 2) - low) / (high - low or 0.001), 0, 1)
        plain = rotary.plain
        return plain / self.factor * ramp + plain * (1 - ramp), self.scale

    def _pair(self, turns: float, rotary: Rotary) -> float:
        """The pair, as a real number, that turns so often in the original context."""
        return rotary.dim * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(rotary.theta))


@dataclass(frozen=True)
class LongRope:
    """LongRoPE (arXiv 2402.13753): a factor for each frequency. The cache of a graph has one length, so that its
    context decides which of the two lists holds, as it does in llama.cpp; transformers changes over while it runs."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original: int
    scale: float

    def apply(self, rotary: Rotary, ctx: int) -> tuple[Frequencies, float]:
        return rotary.plain / np.array(self.long if ctx > self.original else self.short), self.scale
