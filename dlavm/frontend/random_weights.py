"""Weights drawn at random, so that a shape can be built, run and measured without a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Grid
from dlavm.frontend.model import ALL
from dlavm.graph import Graph
from dlavm.support.errors import DlavmError

LEVELS = 1 << 16  # numbers that a tensor's values are chosen from
PART = 1 << 20  # numbers that are drawn at once, a multiple of 4
_NO_DRAWS = np.empty(0, np.uint16)
VECTOR_SPREAD = 0.1  # standard deviation of biases around 0 and of norm weights around 1


class RandomSource:
    """A `WeightSource` for the params of a graph: a tensor depends on the seed, its name and its shape alone.

    Uniform numbers in fp16, from the bits of a counter-based generator, which are the same with every numpy. A matrix
    (n, k) has a standard deviation of 1 / sqrt(k), so that activations and logits keep about the size that trained
    models give them. A vector of indices is a permutation.
    """

    def __init__(self, graph: Graph, seed: int = 0) -> None:
        self.place = f"random:{seed}"
        self._seed = seed
        self._shapes = dict(tensor for param in graph.params for tensor in param.tensors)
        self._orders = {tensor.name for param in graph.params if param.type.dtype == "i32" for tensor in param.tensors}
        self._norms = {value.source for node in graph.nodes for operand, value in node.operands if operand == "gamma"}

    def names(self) -> list[str]:
        return sorted(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise DlavmError(f"weights {self.place}: expected a param of the model, got {name!r}")
        return self._shapes[name]

    def dtype(self, name: str) -> str:
        self.shape(name)
        return "I32" if name in self._orders else "F16"

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        """The values of some rows, made anew at each call."""
        shape = self.shape(name)
        if name in self._orders:
            return np.argsort(self._draws(name, 0)(shape[0]), kind="stable").astype(np.int32)[rows]
        chosen = range(shape[0])[rows]
        width = math.prod(shape[1:])
        centre = np.float32(name in self._norms)
        spread = VECTOR_SPREAD if len(shape) == 1 else 1 / math.sqrt(shape[-1])
        # Sixteen random bits choose one of as many numbers, evenly spaced in [-1, 1), which deviate by 1 / sqrt(3).
        evenly = np.arange(-LEVELS // 2, LEVELS // 2, dtype=np.float32) / np.float32(LEVELS // 2)
        levels = (centre + evenly * np.float32(spread * math.sqrt(3))).astype(np.float16)
        values = np.empty(len(chosen) * width, np.float16)
        draws = self._draws(name, chosen.start * width)
        for start in range(0, len(values), PART):
            part = values[start : start + PART]
            np.take(levels, draws(len(part)), out=part, mode="wrap")
        return values.reshape(len(chosen), *shape[1:])

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        return None

    def note(self, name: str) -> str:
        return ""

    def nearest(self, name: str) -> str:
        return ""

    def _draws(self, name: str, first: int) -> Callable[[int], NDArray[np.uint16]]:
        """Gives the next numbers of 16 bits of the tensor's sequence, from number `first` on."""
        digest = sha256(f"{self._seed}:{name}".encode()).digest()
        generator = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
        generator.advance(first // 16)  # a step of the counter gives four words of four numbers
        skipped = first % 16
        ahead = generator.random_raw(4).astype("<u8", copy=False).view("<u2")[skipped:] if skipped else _NO_DRAWS

        def draws(count: int) -> NDArray[np.uint16]:
            nonlocal ahead
            missing = max(0, count - len(ahead))
            more = generator.random_raw(-(-missing // 4)).astype("<u8", copy=False).view("<u2")
            found = np.concatenate([ahead, more])
            ahead = found[count:]
            return found[:count]

        return draws
