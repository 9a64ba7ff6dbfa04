"""The tensors that a quantised matrix is made of, held against the shapes that they must have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.model import DTYPES
from dlavm.frontend.safetensors_source import SafetensorsSource
from dlavm.support.errors import DlavmError

ALL = slice(None)


class Tensors:
    """Those of a checkpoint; what is asked for by name is also noted as used."""

    def __init__(self, source: SafetensorsSource) -> None:
        self.source = source
        self.present = frozenset(source.names())
        self.used: set[str] = set()

    def error(self, name: str, expectation: str, got: object) -> DlavmError:
        return DlavmError(f"{self.source.path_of(name)}: {name} expected {expectation}, got {got!r}")

    def ending(self, suffix: str) -> list[str]:
        """What stands before the suffix in the names that have it."""
        return [name.removesuffix(suffix) for name in sorted(self.present) if name.endswith(suffix)]

    def has(self, name: str) -> bool:
        return name in self.present

    def ignore(self, *names: str) -> None:
        """Notes those that there are as used."""
        self.used |= self.present & set(names)

    def shape(self, name: str, dtypes: tuple[str, ...], rank: int | None = None) -> tuple[int, ...]:
        """Raises DlavmError for a tensor that is missing, of another type or rank, or empty."""
        if name not in self.present:
            raise DlavmError(f"weights {self.source.place}: expected a tensor {name}, got none")
        if self.source.dtype(name) not in dtypes:
            raise self.error(name, f"the type {' or '.join(dtypes)}", self.source.dtype(name))
        shape = self.source.shape(name)
        if (rank is not None and len(shape) != rank) or 0 in shape:
            raise self.error(name, f"{'an array' if rank is None else f'{rank} axes'} that are not empty", list(shape))
        self.used.add(name)
        return shape

    def expect(self, name: str, dtypes: tuple[str, ...], *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape. Raises DlavmError for a tensor that is missing, of another type, or of none of these shapes."""
        shape = self.shape(name, dtypes)
        if shape not in shapes:
            raise self.error(name, "the shape " + " or ".join(str(list(one)) for one in shapes), list(shape))
        return shape

    def floats(self, name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        return self.expect(name, DTYPES, *shapes)

    def read(self, name: str, rows: slice = ALL, columns: slice = ALL) -> NDArray[Any]:
        """A part as it is stored."""
        return self.source.stored(name, rows, columns)


def order_of(tensors: Tensors, name: str, group: int, groups: int) -> NDArray[np.int32] | None:
    """The columns group by group, from a vector that has the group of each; None where they lie so already.

    Raises DlavmError for groups that there are not, and for ones that are not full.
    """
    owner = tensors.read(name).astype(np.int64)
    columns = len(owner)
    if owner.min() < 0 or owner.max() >= groups:
        wrong = owner[(owner < 0) | (owner >= groups)][0]
        raise tensors.error(name, f"groups of 0..{groups - 1}", int(wrong))
    if np.array_equal(owner, np.arange(columns) // group):
        return None
    counts = np.bincount(owner, minlength=groups)
    full = np.minimum(group, columns - np.arange(groups) * group)
    if not np.array_equal(counts, full):
        worst = int(np.flatnonzero(counts != full)[0])
        raise tensors.error(name, f"{full[worst]} columns of group {worst}", int(counts[worst]))
    return np.argsort(owner, kind="stable").astype(np.int32)
