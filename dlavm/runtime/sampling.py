"""Choosing the next token from the exact fp16 logits, the same one on every machine for the same seed.

The generator is SplitMix64 used by counter (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
2014): draw number i of a seed is a function of (seed, i) alone, so a run can be resumed or replayed at any token.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.tokenizer import check_count, check_sampling
from dlavm.support.errors import DlavmError

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, odd


def splitmix64(seed: int, counter: int) -> int:
    """The 64-bit draw number `counter` (from 0) of `seed`."""
    z = (seed + (counter + 1) * GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(seed: int, counter: int) -> float:
    """A double in [0, 1): the upper 53 bits of the draw, times 2^-53; exact."""
    return (splitmix64(seed, counter) >> 11) * 2.0**-53


@dataclass
class Sampler:
    """Temperature, then top-k, then top-p.

    `temperature` 0 takes the largest logit, the lowest index of equal ones, and draws nothing. Otherwise tokens are
    ordered by (-logit, index); `top_k` keeps the first k (0: all); `top_p` keeps the shortest beginning whose
    float64 softmax at that temperature sums to at least `top_p` of what top-k kept; one draw chooses among the rest.
    Raises DlavmError for a parameter out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = field(default_factory=lambda: secrets.randbits(64))
    counter: int = 0

    def __post_init__(self) -> None:
        check_sampling({"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}, "sampler")
        check_count("seed", self.seed, MASK, "sampler")
        check_count("counter", self.counter, MASK, "sampler")

    @classmethod
    def from_defaults(cls, generation: Mapping[str, Any], **chosen: Any) -> Sampler:
        """A sampler with the values in `chosen` that are not None, else those of generation_config.json.

        `do_sample: false` there means temperature 0 unless a temperature is chosen.
        """
        keys = ("temperature", "top_k", "top_p")
        values = {k: generation[k] for k in keys if generation.get(k) is not None}
        if generation.get("do_sample") is False:
            values["temperature"] = 0.0
        return cls(**(values | {k: v for k, v in chosen.items() if v is not None}))

    def sample(self, logits: NDArray[np.float16]) -> int:
        """The next token id. `logits`: (vocab_size,) fp16. Raises DlavmError for another shape or no number."""
        if logits.ndim != 1 or logits.size == 0 or not np.isfinite(logits).all():
            raise DlavmError(f"logits: expected one row of finite numbers, got shape {logits.shape!r}")
        if self.temperature == 0:
            return int(np.argmax(logits))
        values = logits.astype(np.float64)
        order = np.argsort(-values, kind="stable")
        if self.top_k:
            order = order[: self.top_k]
        with np.errstate(over="ignore", under="ignore"):
            weights = np.exp((values[order] - values[order[0]]) / self.temperature)
        sums = np.cumsum(weights)
        if self.top_p < 1:
            sums = sums[: int(np.searchsorted(sums, self.top_p * sums[-1])) + 1]
        draw = uniform(self.seed, self.counter) * sums[-1]
        self.counter += 1
        # A product that rounds up to the whole sum must not reach tokens whose weight underflowed to zero.
        last = np.searchsorted(sums, sums[-1])
        return int(order[min(np.searchsorted(sums, draw, side="right"), last)])
