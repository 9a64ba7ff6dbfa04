"""Weights from GGUF files, under the names that a Hugging Face checkpoint of the model has."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Grid
from dlavm.frontend.gguf_blocks import BlockType
from dlavm.frontend.gguf_file import GgufFile
from dlavm.frontend.model import ALL
from dlavm.support.errors import DlavmError

SHARD = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf")


@dataclass(frozen=True)
class Place:
    """Where a tensor is: rows `start` on of the tensor `name`, in this shape.

    `heads` above 0: the rows of each head were put in pairs for a rotary embedding of neighbours, (j, j + head_dim / 2)
    side by side; they are given in the order of the checkpoint. `offset` is taken from every value.
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0
    heads: int = 0
    offset: float = 0.0

    @property
    def rows(self) -> int:
        return self.shape[0]


def open_files(path: Path) -> list[GgufFile]:
    """The file or, where it is the first of several shards, all of them in order.

    Raises DlavmError as `GgufFile` does, for missing shards, and for tensors that are in two of them.
    """
    first = GgufFile(path)
    count = first.metadata.get("split.count", 1)
    if not isinstance(count, int) or not 1 <= count <= 99999:
        raise DlavmError(f"{path}: split.count expected a number of files, got {count!r}")
    if count == 1:
        return [first]
    named = SHARD.fullmatch(path.name)
    if named is None or (int(named[2]), int(named[3])) != (1, count):
        expectation = f"the first of {count} files, called NAME-00001-of-{count:05}.gguf"
        raise DlavmError(f"{path}: expected {expectation}, got {path.name!r}")
    files = [first, *(GgufFile(path.with_name(f"{named[1]}-{i:05}-of-{count:05}.gguf")) for i in range(2, count + 1))]
    seen: dict[str, Path] = {}
    for file in files:
        for name in file.tensors:
            if seen.setdefault(name, file.path) != file.path:
                raise DlavmError(f"{file.path}: expected tensors once, got {name!r} in {seen[name]} too")
    return files


class GgufSource:
    """A `WeightSource` over the tensors at `places`, by the name under which they are offered."""

    def __init__(self, files: Sequence[GgufFile], places: Mapping[str, Place]) -> None:
        self.place = str(files[0].path)
        self._files = {name: file for file in files for name in file.tensors}
        self._places = dict(places)

    def names(self) -> list[str]:
        return sorted(self._places)

    def _at(self, name: str) -> Place:
        if name not in self._places:
            raise DlavmError(f"weights {self.place}: expected a tensor of the checkpoint, got {name!r}")
        return self._places[name]

    def _type(self, name: str) -> BlockType:
        place = self._at(name)
        return self._files[place.name].tensors[place.name].type

    def shape(self, name: str) -> tuple[int, ...]:
        return self._at(name).shape

    def dtype(self, name: str) -> str:
        kind, place = self._type(name), self._at(name)
        return kind.format if kind.format and len(place.shape) == 2 else "F32" if place.offset else kind.dtype

    def note(self, name: str) -> str:
        return self._type(name).note if len(self.shape(name)) == 2 else ""

    def nearest(self, name: str) -> str:
        return self._type(name).nearest if len(self.shape(name)) == 2 else ""

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        place, kind = self._at(name), self._type(name)
        blocks = self._blocks(name, rows)
        with np.errstate(invalid="ignore", over="ignore"):  # of numbers that are refused
            values = kind.values(blocks).reshape(-1, *place.shape[1:])
        self._files[place.name].release(blocks.nbytes)
        if len(place.shape) == 1:
            values = values[_order(place)][rows]
        if place.offset:
            values -= np.float32(place.offset)
        if not np.isfinite(values).all():
            raise self._error(place, "finite values, got NaN or infinity")
        return values.astype(np.float16) if kind.dtype == "F16" and not place.offset else values

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        place, kind = self._at(name), self._type(name)
        if self.dtype(name) not in FORMATS or kind.grid is None:
            return None
        blocks = self._blocks(name, rows)
        codes, scale = kind.grid(blocks)
        self._files[place.name].release(blocks.nbytes)
        if not np.isfinite(scale).all():
            raise self._error(place, "finite scales, got NaN or infinity")
        n, k = -1, place.shape[-1]
        return Grid(FORMATS[kind.format], codes.reshape(n, k), scale.reshape(n, k // kind.elements))

    def _blocks(self, name: str, rows: slice) -> NDArray[np.uint8]:
        """[blocks, bytes] of some rows, of a vector of all of it."""
        place = self._at(name)
        raw, kind = self._files[place.name].rows(place.name), self._type(name)
        if len(place.shape) > 1:
            per_row = math.prod(place.shape[1:-1])  # rows of the file in one of ours
            raw = raw.reshape(len(raw) // per_row, -1)[place.start : place.start + place.rows]
            raw = raw[_order(place)[rows]] if place.heads else raw[rows]
        return raw.reshape(-1, kind.bytes)

    def _error(self, place: Place, what: str) -> DlavmError:
        return DlavmError(f"{self._files[place.name].path}: {place.name} expected {what}")


def _order(place: Place) -> NDArray[np.int64]:
    """Which row of the file is row i of the checkpoint."""
    rows = np.arange(place.rows)
    return rows.reshape(place.heads, -1, 2).swapaxes(1, 2).reshape(-1) if place.heads else rows
