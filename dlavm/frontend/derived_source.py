"""Tensors that are made of others (dlavm/graph/derived.py), from any source of weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import Grid
from dlavm.frontend.model import ALL, DTYPES, WeightSource
from dlavm.graph.derived import Derived, derived

BLOCK_BYTES = 1 << 25  # read at once of a matrix that is transposed


class DerivedSource:
    """A `WeightSource` that has the tensors of another and all that can be made of them.

    What is asked for is read in parts, and no more of it than is needed. `names` are those of the other, but for what
    the globs `hidden` match: buffers that a checkpoint holds and no model reads. Where the other has NAME|T itself, as
    quantised checkpoints of our own do, it is taken from there.
    """

    def __init__(self, inner: WeightSource, hidden: Sequence[str] = ()) -> None:
        self.place = inner.place
        self._inner, self._hidden = inner, tuple(hidden)
        self._turned = frozenset(name for name in inner.names() if name.endswith("|T"))

    def names(self) -> list[str]:
        names = (name.removesuffix("|T") for name in self._inner.names())
        return [n for n in names if not any(fnmatch.fnmatchcase(n, glob) for glob in self._hidden)]

    def _made(self, name: str) -> Derived:
        """How a tensor is made of the other's."""
        made = derived(name)
        turned = f"{made.base}|T"
        return replace(made, base=turned, transposed=False) if made.transposed and turned in self._turned else made

    def shape(self, name: str) -> tuple[int, ...]:
        made = self._made(name)
        return made.shape(tuple(self._inner.shape(made.base)))

    def dtype(self, name: str) -> str:
        made = self._made(name)
        stored = self._inner.dtype(made.base)
        return "F32" if made.plus_one or (made.transposed and stored not in DTYPES) else stored

    def note(self, name: str) -> str:
        made = self._made(name)
        if made.transposed and self._inner.grid(made.base, slice(0, 1)) is not None:
            return "quantised along the other axis"
        return self._inner.note(made.base)

    def nearest(self, name: str) -> str:
        made = self._made(name)
        return "" if made.transposed else self._inner.nearest(made.base)

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        made = self._made(name)
        if made.base == name:
            return self._inner.get(name, rows)
        wanted = range(self.shape(name)[0])[rows]
        spans = [slice(wanted.start, wanted.stop)] if made.rows is None else made.rows.spans(wanted)
        values = (self._columns if made.transposed else self._rows)(made.base, spans)
        return np.asarray(values, np.float32) + np.float32(1) if made.plus_one else values

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        made = self._made(name)
        if made.transposed or made.plus_one:
            return None
        if made.rows is None:
            return self._inner.grid(name, rows)
        wanted = range(self.shape(name)[0])[rows]
        parts = [self._inner.grid(made.base, span) for span in made.rows.spans(wanted)]
        return _joined([part for part in parts if part is not None])

    def _rows(self, base: str, spans: Sequence[slice]) -> NDArray[Any]:
        parts = [self._inner.get(base, span) for span in spans]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _columns(self, base: str, spans: Sequence[slice]) -> NDArray[Any]:
        """Columns of the other's matrix as rows. Its rows are read in blocks, of which only these columns stay."""
        height, width = self._inner.shape(base)
        step = max(1, BLOCK_BYTES // (4 * width))
        blocks = []
        for start in range(0, height, step):
            block = self._inner.get(base, slice(start, min(start + step, height)))
            blocks.append(np.concatenate([block[:, span].T for span in spans]))
        return np.ascontiguousarray(np.concatenate(blocks, axis=1))


def _joined(parts: Sequence[Grid]) -> Grid | None:
    """Grids of the same format, one below the other."""
    if not parts:
        return None
    zeros = [part.zero for part in parts if part.zero is not None]
    return Grid(
        parts[0].format,
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.scale for part in parts]),
        np.concatenate(zeros) if zeros else None,
    )
