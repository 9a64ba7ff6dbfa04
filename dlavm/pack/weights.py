"""Quantised weights and their packed layout, one byte array a memory channel (doc/numerics.md section 3)."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError
from dlavm.target.layout import BLOCK, GROUP, PackedWeights, ceildiv, row_bytes
from dlavm.target.spec import Memory


def quantize_int4(w: NDArray[np.floating], name: str = "") -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Round-to-nearest symmetric INT4 in groups of 128 along K: w [n, k] -> integers [n, k] in -8..7 and fp16 scales
    [n, ceil(k/128)], scale = max|w| / 7. Raises DlavmError for values that are not finite, scales past
    fp16, and values so small that every scale becomes zero in fp16."""
    n, k = w.shape
    groups = ceildiv(k, GROUP)
    padded = np.zeros((n, groups * GROUP), dtype=np.float32)
    padded[:, :k] = w
    if not np.isfinite(padded).all():
        raise DlavmError(f"weight {name}: expected finite values, got NaN or infinity")
    grouped = padded.reshape(n, groups, GROUP)
    wide = np.abs(grouped).max(axis=-1) / np.float32(7)
    if wide.max(initial=0) > 65504:
        raise DlavmError(f"weight {name}: a scale of {wide.max()} does not fit fp16")
    scale = wide.astype(np.float16)
    if wide.any() and not scale.any():
        raise DlavmError(f"weight {name}: expected a scale that fp16 does not make zero, got {wide.max()}")
    divisor = np.where(scale > 0, scale.astype(np.float32), np.float32(1))
    q = np.clip(np.rint(grouped / divisor[..., None]), -8, 7).astype(np.int8)
    return q.reshape(n, -1)[:, :k], scale


def dequantize_int4(q: NDArray[np.int8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    """The numbers that the matrix engine multiplies with: float32 [n, k]."""
    return q.astype(np.float32) * np.repeat(scale.astype(np.float32), GROUP, axis=1)[:, :q.shape[1]]


def pack_int4(q: NDArray[np.int8], scale: NDArray[np.float16], memory: Memory) -> NDArray[np.uint8]:
    """Packed weights [channels, bytes of a channel]."""
    layout = PackedWeights(memory, *q.shape)
    rpc = memory.port_bytes // 2
    shape = (layout.tiles, memory.channels, rpc)
    nibbles = np.full((layout.tiles * memory.row_tile, layout.blocks * BLOCK), 8, dtype=np.uint8)
    nibbles[:q.shape[0], :q.shape[1]] = (q + 8).view(np.uint8)
    # [tile, channel, row, block, pair, half, kk] -> byte order [tile, channel, block, pair, row, kk] of two nibbles
    split = nibbles.reshape(*shape, layout.blocks, 4, 2, 4).transpose(0, 1, 3, 4, 2, 6, 5)
    units = (split[..., 0] | split[..., 1] << 4).reshape(layout.tiles, memory.channels, layout.blocks, -1)
    scales = np.zeros((layout.tiles * memory.row_tile, layout.groups), dtype=np.float16)
    scales[:scale.shape[0]] = scale
    beats = scales.reshape(*shape, layout.groups).transpose(0, 1, 3, 2)  # [tile, channel, group, row]
    out = np.empty((memory.channels, layout.tiles, layout.tile_beats * memory.port_bytes), dtype=np.uint8)
    at = 0
    for g in range(layout.groups):
        out[:, :, at:at + memory.port_bytes] = np.ascontiguousarray(beats[:, :, g]).view(np.uint8).transpose(1, 0, 2)
        at += memory.port_bytes
        blocks = units[:, :, 4 * g:4 * g + 4]
        size = blocks.shape[2] * blocks.shape[3]
        out[:, :, at:at + size] = blocks.reshape(layout.tiles, memory.channels, size).transpose(1, 0, 2)
        at += size
    return out.reshape(memory.channels, -1)


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
    wide = np.asarray(values)
    with np.errstate(over="ignore", under="ignore"):
        half = wide.astype(np.float16)
    if not np.isfinite(half).all():
        raise DlavmError(f"tensor {name}: values that do not fit fp16")
    if not half.any() and wide.any():
        raise DlavmError(f"tensor {name}: expected values that fp16 does not make zero, got {np.abs(wide).max()}")
    return half


def stripe(data: NDArray[np.uint8], memory: Memory) -> NDArray[np.uint8]:
    """Linear bytes -> [channels, bytes of a channel], padded to whole beat rows."""
    padded = np.zeros(ceildiv(data.size, memory.beat_row) * memory.beat_row, dtype=np.uint8)
    padded[:data.size] = data
    beats = padded.reshape(-1, memory.channels, memory.port_bytes)
    return np.ascontiguousarray(beats.transpose(1, 0, 2)).reshape(memory.channels, -1)
