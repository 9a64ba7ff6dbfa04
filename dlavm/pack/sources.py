"""Tensors of a checkpoint read some rows at a time: as fp16, or on the grid of a weight format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Format, Grid, convert, quantize
from dlavm.pack.losses import Meter, Record
from dlavm.pack.weights import checked, pack_index, round_half
from dlavm.support.errors import DlavmError

FLOATS_AT_ONCE = 1 << 20  # numbers that are held as fp32


@dataclass(frozen=True)
class Tensor:
    """A tensor of `shape`; `get` reads some of its rows, `grid` the same as the checkpoint quantised them, None where
    it did not, or not in a format of ours; `note` says what of its own quantisation cannot be kept."""

    name: str
    shape: tuple[int, ...]
    get: Callable[[slice], NDArray[Any]]
    grid: Callable[[slice], Grid | None] = lambda rows: None
    note: str = ""


def spans(rows: int, columns: int, at_once: int) -> Iterator[tuple[int, int]]:
    """First and behind the last of so many rows as have `at_once` numbers, of all of them in turn."""
    step = max(1, at_once // max(1, columns))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


class _Stack:
    """Rows of tensors that stand one below the other."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts
        self._bounds = [0, *accumulate(part.shape[0] for part in parts)]

    def cut(self, start: int, stop: int) -> Iterator[tuple[Tensor, int, int]]:
        """The tensors that have the rows start .. stop - 1, and which of their own these are."""
        for part, (first, end) in zip(self._parts, pairwise(self._bounds), strict=True):
            if start < end and stop > first:
                yield part, max(start, first) - first, min(stop, end) - first


@dataclass
class _Seen:
    """Whether a tensor had numbers, and whether any of them was left by rounding."""

    largest: float = 0.0
    left: bool = False


class Halves:
    """Tensors one below the other as fp16 [rows, columns]; those of one axis are one row, side by side."""

    def __init__(self, name: str, parts: Sequence[Tensor]) -> None:
        self._name, self._parts, self._stack = name, parts, _Stack(parts)
        self._seen = {part.name: _Seen() for part in parts}

    def rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Rows start .. stop - 1. Raises DlavmError for what fp16 cannot hold."""
        if len(self._parts[0].shape) == 1:
            return np.concatenate([self._rounded(part, slice(None)) for part in self._parts])[None]
        return np.concatenate([self._rounded(p, slice(a, b)) for p, a, b in self._stack.cut(start, stop)])

    def _rounded(self, part: Tensor, rows: slice) -> NDArray[np.float16]:
        wide = part.get(rows)
        half = round_half(wide, part.name)
        _look(self._seen[part.name], wide, half)
        return half

    def finish(self) -> None:
        """Behind the last row. Raises DlavmError for a tensor that fp16 made zero."""
        _refuse_lost(self._seen, "tensor", "values")


class Quantised:
    """Tensors one below the other on the grid of a format: the checkpoint's own grid where that has the same numbers,
    quantised to nearest otherwise. What a row becomes depends on its tensor alone, not on the rows asked for at once.
    `record` is told at the end what became of each tensor that came quantised.
    """

    def __init__(self, parts: Sequence[Tensor], format: Format, record: Record = lambda loss: None) -> None:
        self._format, self._stack, self._record = format, _Stack(parts), record
        self._seen = {part.name: _Seen() for part in parts}
        self._keeps = {part.name: _keeps(part, format) for part in parts}
        self._meters = {
            part.name: Meter(part.name, part.grid(slice(0, 1)), part.note, format, self._keeps[part.name])
            for part in parts
        }

    def rows(self, start: int, stop: int) -> Grid:
        """Rows start .. stop - 1. Raises DlavmError for what the format cannot hold."""
        grids = [self._grid(part, a + first, min(a + last, b))
                 for part, a, b in self._stack.cut(start, stop)
                 for first, last in spans(b - a, part.shape[1], FLOATS_AT_ONCE)]  # fmt: skip
        return _joined(grids)

    def _grid(self, part: Tensor, start: int, stop: int) -> Grid:
        rows, meter = slice(start, stop), self._meters[part.name]
        if self._keeps[part.name]:
            grid = checked(_converted(part, rows, self._format), part.name)
            if meter.measures:
                meter.add(part.get(rows), grid)
            return grid
        wide = np.asarray(part.get(rows), dtype=np.float32)
        grid = quantize(wide, self._format, part.name, whole=False)
        _look(self._seen[part.name], wide, grid.scale)
        if meter.measures:
            meter.add(wide, grid)
        return grid

    def finish(self) -> None:
        """Behind the last row. Raises DlavmError for a tensor of which every scale became zero."""
        _refuse_lost(self._seen, "weight", "a scale")
        for meter in self._meters.values():
            if meter.quantised:
                self._record(meter.loss)


def read_through(tensor: Tensor, kind: str, format: Format | None) -> None:
    """Reads and rounds a whole tensor for a constant of that kind. Raises DlavmError for what no artifact can hold."""
    if kind == "index":
        pack_index(tensor.get(slice(None)), tensor.name)
        return
    columns = 1 if len(tensor.shape) == 1 else tensor.shape[1]
    source = Quantised([tensor], format) if format else Halves(tensor.name, [tensor])
    for start, stop in spans(tensor.shape[0], columns, FLOATS_AT_ONCE):
        source.rows(start, stop)
    source.finish()


def _keeps(part: Tensor, format: Format) -> bool:
    """Whether all of the checkpoint's own grid has the same numbers in the format. Where formats differ, all of it is
    looked at first: one answer for the tensor, whatever rows a board packs at once."""
    first = part.grid(slice(0, 1))
    if first is None:
        return False
    rows = spans(part.shape[0], part.shape[1], FLOATS_AT_ONCE)
    return first.format == format or all(_exact(part, slice(a, b), format) is not None for a, b in rows)


def _exact(part: Tensor, rows: slice, format: Format) -> Grid | None:
    grid = part.grid(rows)
    return None if grid is None else convert(grid, format)


def _converted(part: Tensor, rows: slice, format: Format) -> Grid:
    grid = _exact(part, rows, format)
    if grid is None:
        raise DlavmError(f"weight {part.name}: row {rows.start}: expected the grid that the first rows have")
    return grid


def _joined(grids: Sequence[Grid]) -> Grid:
    if len(grids) == 1:
        return grids[0]
    zeros = [grid.zero for grid in grids if grid.zero is not None]
    return Grid(grids[0].format, np.concatenate([g.codes for g in grids]), np.concatenate([g.scale for g in grids]),
                np.concatenate(zeros) if zeros else None)  # fmt: skip


def _look(seen: _Seen, wide: NDArray[Any], kept: NDArray[Any]) -> None:
    seen.largest = max(seen.largest, float(np.abs(wide).max(initial=0)))
    seen.left = seen.left or bool(kept.any())


def _refuse_lost(seen: dict[str, _Seen], what: str, kept: str) -> None:
    for name, one in seen.items():
        if one.largest > 0 and not one.left:
            raise DlavmError(f"{what} {name}: expected {kept} that fp16 does not make zero, "
                             f"got {what}s up to {one.largest}")
