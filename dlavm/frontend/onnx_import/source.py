"""Weights of an ONNX graph, as the steps of the decoder need them: turned, rows chosen, on the grid of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Grid
from dlavm.frontend.model import ALL
from dlavm.frontend.onnx_import.constants import Constants
from dlavm.frontend.onnx_import.ir import Array, OnnxNode
from dlavm.frontend.onnx_import.meaning.matrix import nbits_codes
from dlavm.support.errors import DlavmError

MAPPED = 1 << 28  # bytes of the file that may be resident
TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F32"}


@dataclass(frozen=True, eq=False)
class Matrix:
    """A constant of two axes, as (rows, k): `turned` where it is stored (k, rows); of its rows those in `chosen`."""

    constant: str
    turned: bool
    shape: tuple[int, ...]
    chosen: Array | None = None


@dataclass(frozen=True, eq=False)
class Blocks:
    """The codes of a MatMulNBits or GatherBlockQuantized node, as (rows, k)."""

    node: OnnxNode
    shape: tuple[int, ...]
    chosen: Array | None = None


@dataclass(frozen=True, eq=False)
class Vector:
    """Numbers that the trace worked out."""

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)


Entry = Matrix | Blocks | Vector


@dataclass(frozen=True, eq=False)
class _Codes:
    """A quantised matrix of the file: codes u8 (n, k), scales and zero points (n, groups) of `block` codes."""

    codes: Array
    scale: Array
    zero: Array | None
    block: int
    bits: int


class OnnxSource:
    """A `WeightSource` over the entries that `add` was given."""

    def __init__(self, constants: Constants) -> None:
        self.place = constants.graph.place
        self._constants = constants
        self._entries: dict[str, Entry] = {}
        self._read = 0
        self._grids: dict[str, tuple[_Codes, str, str]] = {}

    def add(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry

    def names(self) -> list[str]:
        return sorted(self._entries)

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise DlavmError(f"weights {self.place}: expected a tensor of the model, got {name!r}")
        return self._entries[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        entry = self._entry(name)
        if isinstance(entry, Vector):
            return "F32"
        if isinstance(entry, Blocks):
            return self._grid(name, entry)[1] or "F32"
        origin, _ = self._constants.origin(entry.constant)
        tensor = self._constants.graph.tensors.get(origin)
        return TYPES.get(tensor.dtype.name, "F32") if tensor is not None else "F32"

    def note(self, name: str) -> str:
        entry = self._entry(name)
        return self._grid(name, entry)[2] if isinstance(entry, Blocks) else ""

    def nearest(self, name: str) -> str:
        return ""

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        entry = self._entry(name)
        if isinstance(entry, Vector):
            return np.asarray(entry.values[rows], np.float32)
        values = self._matrix(entry, rows) if isinstance(entry, Matrix) else self._blocks(name, entry, rows)
        self._released(values.nbytes)
        if not np.isfinite(values).all():
            raise DlavmError(f"weights {self.place}: {name} expected finite values, got NaN or infinity")
        return values

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        entry = self._entry(name)
        if not isinstance(entry, Blocks) or not self._grid(name, entry)[1]:
            return None
        found, format, _ = self._grid(name, entry)
        index = np.arange(entry.shape[0])[rows] if entry.chosen is None else entry.chosen[rows]
        return _grid_of(found, FORMATS[format], index)

    def _released(self, read: int) -> None:
        self._read += read
        if self._read > MAPPED:
            self._constants.graph.release()
            self._read = 0

    def _matrix(self, entry: Matrix, rows: slice) -> Array:
        """Only the rows are read of what is stored as it is, or transposed."""
        origin, turned = self._constants.origin(entry.constant)
        stored = self._constants.value(origin if origin in self._constants.graph.tensors else entry.constant)
        transposed = entry.turned != (turned if origin in self._constants.graph.tensors else False)
        index: Any = rows if entry.chosen is None else entry.chosen[rows]
        part = stored[:, index].T if transposed else stored[index]
        return np.ascontiguousarray(part) if part.dtype == np.float16 else part.astype(np.float32)

    def _blocks(self, name: str, entry: Blocks, rows: slice) -> Array:
        found = self._grid(name, entry)[0]
        index: Any = rows if entry.chosen is None else entry.chosen[rows]
        k = found.codes.shape[1]
        group = np.arange(k) // found.block
        middle = 1 << (found.bits - 1)
        zero = middle if found.zero is None else found.zero[index].astype(np.float32)[:, group]
        return (found.codes[index].astype(np.float32) - zero) * found.scale[index].astype(np.float32)[:, group]

    def _grid(self, name: str, entry: Blocks) -> tuple[_Codes, str, str]:
        """The codes, the format that holds them exactly ('' for none), and why there is none."""
        if name not in self._grids:
            node, value = entry.node, lambda i: self._constants.value(entry.node.inputs[i])
            product = node.op == "MatMulNBits"  # the table of the other operator stands first among its operands
            bits, block = node.attrs.get("bits", 4), node.attrs.get("block_size", 128)
            zero = value(3) if len(node.inputs) > 3 and node.inputs[3] else None
            n, k = (node.attrs["N"], node.attrs["K"]) if product else entry.shape
            codes, scale, points = nbits_codes(node.where, value(int(product)), value(2), zero, n, k, bits, block)
            found = _Codes(codes, scale, None if zero is None else points, block, bits)
            self._grids[name] = (found, *_format_of(found))
        return self._grids[name]


def _format_of(found: _Codes) -> tuple[str, str]:
    """A format of FORMATS that holds the numbers exactly, or why none does."""
    scale = found.scale.astype(np.float32)
    if (scale.astype(np.float16).astype(np.float32) != scale).any():
        return "", "its scales are float32 numbers that fp16 does not hold"
    if found.zero is not None and found.zero.dtype != np.uint8:
        return "", "its zero points are floats"
    group = min(found.block, 128)
    if found.block % group or group not in (32, 64, 128):
        return "", f"its blocks have {found.block} numbers"
    name = f"int{max(found.bits, 4)}g{group}{'z' if found.zero is not None and found.bits > 2 else ''}"
    return name, ""


def _grid_of(found: _Codes, format: Any, index: Array) -> Grid:
    """Rows of the codes on a grid of the same numbers; two bits become four, larger blocks several groups."""
    codes, scale = found.codes[index], found.scale[index].astype(np.float16)
    zero = None if found.zero is None else found.zero[index]
    if found.bits == 2:
        group = np.arange(codes.shape[1]) // found.block
        points = 2 if zero is None else zero[:, group].astype(np.int16)
        codes, zero = (codes.astype(np.int16) - points + 8).astype(np.uint8), None
    groups = format.groups(codes.shape[1])
    repeat = found.block // format.group
    scale = np.repeat(scale, repeat, axis=1)[:, :groups]
    zero = None if zero is None else np.repeat(zero, repeat, axis=1)[:, :groups]
    return Grid(format, np.ascontiguousarray(codes), np.ascontiguousarray(scale), zero)
