"""Tensors that are made of a checkpoint's tensors. How they are made stands in their names, behind bars:

    h.0.attn.c_attn.weight|T               transposed
    qkv_proj.weight|0-64of192              rows 0 .. 63 of every 192
    c_attn.weight|T|64-128of192            transposed, then the rows
    norm.weight|plus1                      1 added to every number

so that a graph says by itself what its params are, and what is read off an artifact can be put together again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dlavm.graph.opdef import Array
from dlavm.support.errors import DlavmError

_NAME = re.compile(r"([^|]+)(\|T)?(?:\|(\d+)-(\d+)of(\d+))?(\|plus1)?")


@dataclass(frozen=True)
class Rows:
    """Rows `start` .. `end` - 1 of every `period` rows."""

    start: int
    end: int
    period: int

    def count(self, rows: int) -> int:
        """How many there are in a tensor of `rows`, a multiple of the period."""
        return rows // self.period * (self.end - self.start)

    def spans(self, wanted: range) -> list[slice]:
        """The rows of the tensor that are numbers `wanted` (consecutive ones) of these, in runs."""
        found, size, at = [], self.end - self.start, wanted.start
        while at < wanted.stop:
            block, first = divmod(at, size)
            stop = min(size, first + wanted.stop - at)
            base = block * self.period + self.start
            found.append(slice(base + first, base + stop))
            at += stop - first
        return found


@dataclass(frozen=True)
class Derived:
    """What a tensor is made of: first transposed, then a choice of its rows, then 1 added."""

    base: str
    transposed: bool = False
    rows: Rows | None = None
    plus_one: bool = False

    @cached_property
    def name(self) -> str:
        rows = f"|{self.rows.start}-{self.rows.end}of{self.rows.period}" if self.rows else ""
        return self.base + "|T" * self.transposed + rows + "|plus1" * self.plus_one

    def shape(self, base: tuple[int, ...]) -> tuple[int, ...]:
        """The shape, from that of the checkpoint's tensor. Raises DlavmError where there is no such part of it."""
        if self.transposed and len(base) != 2:
            raise DlavmError(f"tensor {self.base}: expected a matrix to transpose, got shape {list(base)!r}")
        shape = base[::-1] if self.transposed else base
        if self.rows is None:
            return shape
        if not shape or shape[0] % self.rows.period:
            raise DlavmError(
                f"tensor {self.base}: expected a multiple of {self.rows.period} "
                f"{'columns' if self.transposed else 'rows'}, got shape {list(base)!r}"
            )
        return (self.rows.count(shape[0]), *shape[1:])


def derived(name: str) -> Derived:
    """What stands behind a name; a plain one is a tensor of the checkpoint as it is.

    Raises DlavmError for bars with something else behind them.
    """
    if "|" not in name:
        return Derived(name)
    found = _NAME.fullmatch(name)
    if found is None:
        raise DlavmError(f"tensor {name}: expected |T, |A-BofC, |plus1 behind a name, in this order")
    base, transposed, start, end, period, plus_one = found.groups()
    rows = Rows(int(start), int(end), int(period)) if start else None
    if rows and not rows.start < rows.end <= rows.period:
        raise DlavmError(f"tensor {name}: rows expected A < B <= C in A-BofC, got {start}-{end}of{period}")
    return Derived(base, transposed is not None, rows, plus_one is not None)


def assembled(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The checkpoint's tensors, from all those that are made of them, by name.

    Raises DlavmError where rows of one are missing.
    """
    bases: dict[str, list[tuple[Derived, Array]]] = {}
    for name, values in tensors.items():
        made = derived(name)
        bases.setdefault(made.base, []).append((made, values - 1 if made.plus_one else values))
    return {base: _whole(base, parts) for base, parts in bases.items()}


def _whole(base: str, parts: list[tuple[Derived, Array]]) -> Array:
    first, values = parts[0]
    if first.rows is None:
        return np.ascontiguousarray(values.T) if first.transposed else values
    size, period = first.rows.end - first.rows.start, first.rows.period
    blocks, width = len(values) // size, values.shape[1:]
    whole = np.empty((blocks, period, *width), values.dtype)
    covered = np.zeros(period, bool)
    for made, rows in parts:
        if made.rows is None or made.rows.period != period:
            raise DlavmError(f"tensor {base}: expected parts of every {period} rows, got {made.name!r}")
        whole[:, made.rows.start : made.rows.end] = rows.reshape(blocks, -1, *width)
        covered[made.rows.start : made.rows.end] = True
    if not covered.all():
        raise DlavmError(f"tensor {base}: expected all of every {period} rows, got {int(covered.sum())}")
    joined = whole.reshape(blocks * period, *width)
    return np.ascontiguousarray(joined.T) if first.transposed else joined
