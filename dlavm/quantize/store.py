"""Activations of the calibration samples between two layers, in memory as far as they fit, in files beyond."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dlavm.graph.opdef import Array

MEMORY = 256 << 20  # bytes that are kept


class Store:
    """Arrays by name, for each sample. Files are written to `directory`, which must be there; None keeps all."""

    def __init__(self, directory: Path | None, memory: int = MEMORY) -> None:
        self._directory, self._memory = directory, memory
        self._kept: dict[int, dict[str, Array]] = {}
        self._filed: dict[int, list[str]] = {}
        self._bytes = 0

    def put(self, sample: int, arrays: Mapping[str, Array]) -> None:
        """Replaces what the sample has."""
        self._drop(sample)
        size = sum(array.nbytes for array in arrays.values())
        if self._directory is None or self._bytes + size <= self._memory:
            self._kept[sample] = dict(arrays)
            self._bytes += size
            return
        with open(self._path(self._directory, sample), "wb") as file:
            for array in arrays.values():
                np.save(file, array, allow_pickle=False)
        self._filed[sample] = list(arrays)

    def get(self, sample: int) -> dict[str, Array]:
        """What was put; the arrays are not to be changed."""
        if self._directory is None or sample in self._kept:
            return dict(self._kept[sample])
        with open(self._path(self._directory, sample), "rb") as file:
            return {name: np.load(file, allow_pickle=False) for name in self._filed[sample]}

    def _drop(self, sample: int) -> None:
        self._bytes -= sum(array.nbytes for array in self._kept.pop(sample, {}).values())
        self._filed.pop(sample, None)

    @staticmethod
    def _path(directory: Path, sample: int) -> Path:
        return directory / f"sample-{sample:05}.npy"
