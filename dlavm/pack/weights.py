"""The packed layout of weights, one byte array a memory channel (doc/numerics.md section 3), and rows of fp16."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK, Format, Grid
from dlavm.formats.table import E8M0_BIAS, E8M0_LIMIT
from dlavm.pack.units import to_slices
from dlavm.support.errors import DlavmError
from dlavm.target.layout import ROW_BYTES, PackedWeights, ceildiv, row_bytes
from dlavm.target.spec import Memory

T = TypeVar("T", bound=np.generic)


def pack_grid(grid: Grid, memory: Memory) -> NDArray[np.uint8]:
    """Packed weights [channels, bytes of a channel]. Rows past n and weights past k have the code of zero; rows past n
    have scale zero, too."""
    layout, element = PackedWeights(memory, *grid.shape, grid.format), grid.format.element
    out = np.zeros((memory.channels, layout.tiles, layout.tile_beats, memory.port_bytes), dtype=np.uint8)
    out[:, :, layout.scale_beats] = _metadata(grid.scale, 0, layout)
    if grid.zero is not None:
        out[:, :, layout.zero_beats] = _metadata(grid.zero, zero_code(grid.format), layout)
    codes = _padded(grid.codes, layout.blocks * BLOCK, zero_code(grid.format), layout)
    slices = to_slices(codes.reshape(-1, layout.blocks, BLOCK), element.bits)
    units = slices.reshape(layout.tiles, memory.channels, -1, *slices.shape[1:])  # .., row, block, slice, 4
    beats = layout.block_beats[:, None] + np.arange(layout.unit_beats)
    ordered = units.transpose(1, 0, 3, 4, 2, 5).reshape(memory.channels, layout.tiles, *beats.shape, memory.port_bytes)
    out[:, :, beats] = ordered
    return out.reshape(memory.channels, -1)


def zero_code(format: Format) -> int:
    """The code of zero, where no zero point says otherwise."""
    return 0 if format.element.float_type else format.element.middle


def _padded(values: NDArray[T], columns: int, fill: int, layout: PackedWeights) -> NDArray[T]:
    """[n, c] -> [rows of all tiles, columns]."""
    n, c = values.shape
    out = np.full((layout.tiles * layout.memory.row_tile, columns), fill, dtype=values.dtype)
    out[:n, :c] = values
    return out


def _metadata(values: NDArray[np.generic], fill: int, layout: PackedWeights) -> NDArray[np.uint8]:
    """Scales or zero points [n, groups] as beats [channels, tiles, beats, port bytes]."""
    beats = ceildiv(values.shape[1] * values.itemsize, ROW_BYTES)
    padded = _padded(values, beats * ROW_BYTES // values.itemsize, fill, layout).view(np.uint8)
    rows = padded.reshape(layout.tiles, layout.memory.channels, -1, beats, ROW_BYTES)
    return rows.transpose(1, 0, 3, 2, 4).reshape(layout.memory.channels, layout.tiles, beats, -1)


def checked(grid: Grid, name: str) -> Grid:
    """A grid that the engines read as it is meant. Scales of groups that are zero are brought into their range.

    Raises DlavmError naming the tensor for fp16 scales that are not finite, for E8M0 scales beyond 2^+-40, and for
    codes that mean NaN.
    """
    if grid.format.element.name == "e4m3" and ((grid.codes & 0x7F) == 0x7F).any():
        raise DlavmError(f"weight {name}: expected numbers, got an E4M3 code of NaN")
    if grid.format.scale != "e8m0":
        if not np.isfinite(grid.scale).all():
            raise DlavmError(f"weight {name}: expected finite scales, got NaN or infinity")
        return grid
    scale = np.clip(grid.scale, E8M0_BIAS - E8M0_LIMIT, E8M0_BIAS + E8M0_LIMIT)
    starts = np.arange(0, grid.shape[1], grid.format.group)
    changed = scale != grid.scale
    if changed.any():
        used = np.logical_or.reduceat(grid.integers() != 0, starts, axis=1)
        if (changed & used).any():
            worst = int(grid.scale[changed & used][0]) - E8M0_BIAS
            raise DlavmError(f"weight {name}: scales expected within 2^+-{E8M0_LIMIT}, got 2^{worst}")
    return Grid(grid.format, grid.codes, scale, grid.zero)


def pack_rows(rows: NDArray[np.floating], name: str = "") -> NDArray[np.uint8]:
    """fp16 rows [r, n], each padded to a multiple of 16 bytes: linear bytes.

    Raises DlavmError where fp16 overflows, and when it makes zero of a tensor that is not."""
    half = to_half(rows, name)
    out = np.zeros((half.shape[0], row_bytes(half.shape[1])), dtype=np.uint8)
    out[:, :2 * half.shape[1]] = np.ascontiguousarray(half).view(np.uint8)
    return out.reshape(-1)


def pack_index(index: NDArray[np.integer], name: str = "") -> NDArray[np.uint8]:
    """A vector of indices into itself as u32. Raises DlavmError for one that is not an element's."""
    wide = np.asarray(index).astype(np.int64)
    bad = np.flatnonzero((wide < 0) | (wide >= wide.size))
    if bad.size:
        raise DlavmError(f"tensor {name}: element {bad[0]} expected 0..{wide.size - 1}, got {wide[bad[0]]}")
    return wide.astype("<u4").view(np.uint8)


def to_half(values: NDArray[np.floating], name: str = "") -> NDArray[np.float16]:
    """Rounded to fp16. Raises DlavmError as `pack_rows` does."""
    half = round_half(values, name)
    if not half.any() and np.any(values):
        raise DlavmError(f"tensor {name}: expected values that fp16 does not make zero, got {np.abs(values).max()}")
    return half


def round_half(values: NDArray[np.floating], name: str = "") -> NDArray[np.float16]:
    """Some rows of a tensor rounded to fp16. Raises DlavmError where fp16 overflows."""
    with np.errstate(over="ignore", under="ignore"):
        half = np.asarray(values).astype(np.float16)
    if not np.isfinite(half).all():
        raise DlavmError(f"tensor {name}: values that do not fit fp16")
    return half


def stripe(data: NDArray[np.uint8], memory: Memory) -> NDArray[np.uint8]:
    """Linear bytes -> [channels, bytes of a channel], padded to whole beat rows."""
    padded = np.zeros(ceildiv(data.size, memory.beat_row) * memory.beat_row, dtype=np.uint8)
    padded[:data.size] = data
    beats = padded.reshape(-1, memory.channels, memory.port_bytes)
    return np.ascontiguousarray(beats.transpose(1, 0, 2)).reshape(memory.channels, -1)
