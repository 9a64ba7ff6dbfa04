"""Choosing the next token from the exact fp16 logits, the same one on every machine for the same seed.

The rules are those of doc/numerics.md, section 12; the server of an artifact follows them too
(dlavm/codegen/templates/host/sampling.cpp). Every operation is one of IEEE 754 binary64, rounded once.

The generator is SplitMix64 used by counter (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
2014): draw number i of a seed is a function of (seed, i) alone, so a run can be resumed or replayed at any token.
"""

from __future__ import annotations

import math
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

EXP_LIMIT = -40.0  # exp of less is under half a unit of a sum that begins with 1
INV_LN2 = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42feep-1")  # 32 bits: the product with an integer of a few bits is exact
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
TAYLOR = tuple(1 / math.factorial(k) for k in range(14))  # each rounded once: k! is exact in float64


def splitmix64(seed: int, counter: int) -> int:
    """The 64-bit draw number `counter` (from 0) of `seed`."""
    z = (seed + (counter + 1) * GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(seed: int, counter: int) -> float:
    """A double in [0, 1): the upper 53 bits of the draw, times 2^-53; exact."""
    return (splitmix64(seed, counter) >> 11) * 2.0**-53


def stated_exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp of `EXP_LIMIT` <= x <= 0, of any shape, within 1.25 units in the last place."""
    n = np.rint(x * INV_LN2)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    result = np.full_like(r, TAYLOR[-1])
    for coefficient in TAYLOR[-2::-1]:
        result = result * r + coefficient
    return np.ldexp(result, n.astype(np.int32))


def descending(logits: NDArray[np.float16]) -> NDArray[np.intp]:
    """Token ids by (-logit, id); -0 equals +0. `logits`: (vocab_size,) finite."""
    bits = (logits + np.float16(0)).view(np.uint16)  # the sum makes -0 a +0
    keys = np.where(bits >> 15, bits, 0x7FFF - bits)
    return np.argsort(keys.astype(np.uint16), kind="stable")


@dataclass
class Sampler:
    """Temperature, then top-k, then top-p.

    `temperature` 0 takes the largest logit, the lowest index of equal ones, and draws nothing. Otherwise tokens are
    ordered by (-logit, index); `top_k` keeps the first k (0: all); `top_p` keeps the shortest beginning whose
    weights, exp((logit - largest) / temperature), sum to at least `top_p` of the sum over what top-k kept; one draw
    chooses among the rest.
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
        order = descending(logits)[: self.top_k or None]
        sums = np.cumsum(self._weights(logits[order].astype(np.float64)))
        if self.top_p < 1:
            sums = sums[: int(np.searchsorted(sums, self.top_p * sums[-1])) + 1]
        draw = uniform(self.seed, self.counter) * sums[-1]  # less than the sum: the draw is at most 1 - 2^-53
        self.counter = (self.counter + 1) & MASK
        return int(order[np.searchsorted(sums, draw, side="right")])

    def _weights(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of a descending row, without the end of it whose weights are zero."""
        with np.errstate(over="ignore"):
            x = (values - values[0]) / float(self.temperature)
        return stated_exp(x[x >= EXP_LIMIT])
