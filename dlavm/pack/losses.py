"""What becomes of the tensors that a checkpoint holds quantised, measured while they are packed, over all numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Format, Grid

EXACT, CONVERTED, ROUNDED, REQUANTISED = "exact", "converted", "rounded", "requantised"


@dataclass(frozen=True)
class Loss:
    """A tensor that came in `source`, a format or why it is in none, and is kept in `target`.

    `how`: exact (its own codes), converted (other codes for the same numbers), rounded (its codes, rounded scales),
    requantised (to nearest). `error` and `power`: sums of squares of what was added to its numbers, and of these.
    """

    name: str
    source: str
    target: str
    how: str
    error: float = 0.0
    power: float = 0.0


Record = Callable[[Loss], None]


class Meter:
    """The loss of one tensor, part by part."""

    def __init__(self, name: str, first: Grid | None, note: str, target: Format, keeps: bool) -> None:
        """`first`: a part of the checkpoint's own grid; `note`: what is not kept of it; `keeps`: all else is."""
        self.quantised = first is not None or note != ""
        source = first.format.name if first is not None else note
        kept = ROUNDED if note else EXACT if source == target.name else CONVERTED
        self._name, self._source, self._target = name, source, target.name
        self._how = kept if keeps else REQUANTISED
        self._error = self._power = 0.0

    @property
    def measures(self) -> bool:
        """Whether numbers can differ, so that `add` is to be told of all parts."""
        return self.quantised and self._how in (ROUNDED, REQUANTISED)

    def add(self, wide: NDArray[Any], grid: Grid) -> None:
        """A part: the checkpoint's numbers, and what they became."""
        self._error += _squares(grid.values() - wide)
        self._power += _squares(wide)

    @property
    def loss(self) -> Loss:
        return Loss(self._name, self._source, self._target, self._how, self._error, self._power)


def _squares(values: NDArray[Any]) -> float:
    return float(np.einsum("ij,ij->", values, values, dtype=np.float64))


def summary(losses: Iterable[Loss]) -> list[dict[str, Any]]:
    """A row for each way that tensors went: from, to, how, how many, relative RMS error over all of their numbers."""
    groups: dict[tuple[str, str, str], list[Loss]] = {}
    for loss in losses:
        groups.setdefault((loss.source, loss.target, loss.how), []).append(loss)
    return [
        {"from": source, "to": target, "how": how, "tensors": len(group), "relative_rms": _relative(group)}
        for (source, target, how), group in sorted(groups.items())
    ]


def _relative(group: list[Loss]) -> float:
    power = sum(loss.power for loss in group)
    return math.sqrt(sum(loss.error for loss in group) / power) if power else 0.0
