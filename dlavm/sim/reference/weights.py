"""Reading packed weights from device memory, beat by beat: doc/architecture.md "Layouts", doc/numerics.md section 3."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK, Format
from dlavm.formats.table import E8M0_BIAS, E8M0_LIMIT
from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.numerics import F32, I32, load16, power_of_two
from dlavm.target.layout import ceildiv

Bytes = NDArray[np.uint8]


def read_weights(
    memory: FlatMemory, address: int, tile_stride: int, n: int, k: int, format: Format
) -> tuple[NDArray[np.int32], F32]:
    """Packed weights -> integers [n, ceil(k/32), 32] and scales [n, groups]."""
    stream = _Stream(memory, address, tile_stride, n, k, format)
    blocks, groups, group_blocks = ceildiv(k, BLOCK), format.groups(k), format.group // BLOCK
    codes = np.empty((stream.rows, blocks, BLOCK), dtype=np.uint8)
    scale = np.empty((stream.rows, groups), dtype=np.float32)
    zero = np.full((stream.rows, groups), format.element.middle, dtype=np.int32)
    zeros = scales = np.empty((0, 2), dtype=np.uint8)
    for g in range(groups):
        if format.zero and g % 2 == 0:
            zeros = stream.metadata()
        if format.scale == "f16" or g % 2 == 0:
            scales = stream.metadata()
        scale[:, g] = load16(scales.view(np.uint16)[:, 0]) if format.scale == "f16" else _power(scales[:, g % 2])
        if format.zero:
            zero[:, g] = zeros[:, g % 2]
        for block in range(g * group_blocks, min((g + 1) * group_blocks, blocks)):
            codes[:, block] = stream.unit()
    return _integers(codes[:n], zero[:n], format), scale[:n]


def _power(byte: Bytes) -> F32:
    """E8M0: bytes beyond 2^+-40 read as that."""
    return power_of_two(np.clip(byte, E8M0_BIAS - E8M0_LIMIT, E8M0_BIAS + E8M0_LIMIT).astype(np.int32) - E8M0_BIAS)


def _integers(codes: Bytes, zero: I32, format: Format) -> NDArray[np.int32]:
    if format.element.float_type:
        return format.element.table[codes]
    per_block = np.repeat(zero, format.group // BLOCK, axis=1)[:, :codes.shape[1]]
    return codes.astype(np.int32) - per_block[..., None]


class _Stream:
    """The beats of all tiles side by side; each call takes the next ones."""

    def __init__(self, memory: FlatMemory, address: int, tile_stride: int, n: int, k: int, format: Format) -> None:
        space = memory.space(address)
        self._bits, self._port, self._at = format.element.bits, space.port_bytes, 0
        tiles, groups = ceildiv(n, space.row_tile), format.groups(k)
        channels = min(space.channels, ceildiv(n, self._port // 2))  # of a single short tile the others hold padding
        zero_beats = ceildiv(groups, 2) if format.zero else 0
        scale_beats = ceildiv(groups, 2) if format.scale == "e8m0" else groups
        beats = zero_beats + scale_beats + 2 * self._bits * ceildiv(k, BLOCK)
        raw = np.stack([memory.bytes(address + t * tile_stride, beats * space.beat_row) for t in range(tiles)])
        self._beats = raw.reshape(tiles, beats, space.channels, self._port)[:, :, :channels]
        self.rows = tiles * channels * self._port // 2

    def _take(self, beats: int) -> Bytes:
        """The next beats as bytes [tile and channel, beats * port]."""
        taken = self._beats[:, self._at:self._at + beats].transpose(0, 2, 1, 3)
        self._at += beats
        return taken.reshape(-1, beats * self._port)

    def metadata(self) -> Bytes:
        """One beat: two bytes of each row, [rows, 2]."""
        return np.ascontiguousarray(self._take(1)).reshape(-1, 2)

    def unit(self) -> Bytes:
        """Codes of 32 k, [rows, 32]."""
        slices = self._take(2 * self._bits).reshape(-1, self._bits, self._port // 2, 4)  # 4 k of each row are adjacent
        rows = slices.transpose(0, 2, 1, 3).reshape(self.rows, self._bits, 4)
        return {4: _four_bits, 6: _six_bits, 8: lambda x: x.reshape(-1, BLOCK)}[self._bits](rows)


def _four_bits(rows: Bytes) -> Bytes:
    """A slice has 8 k: the first four in the low nibbles, the others in the high ones."""
    out = np.empty((len(rows), 4, 2, 4), dtype=np.uint8)
    out[:, :, 0], out[:, :, 1] = rows & 15, rows >> 4
    return out.reshape(-1, BLOCK)


def _six_bits(rows: Bytes) -> Bytes:
    """Three slices have 16 k: the high two bits of all, then low bits as in `_four_bits`."""
    out = np.empty((len(rows), 2, 4, 4), dtype=np.uint8)  # row, half, quad, kk
    for half in range(2):
        high, first, second = (rows[:, 3 * half + i] for i in range(3))
        for quad, low in enumerate((first & 15, first >> 4, second & 15, second >> 4)):
            out[:, half, quad] = low | (high >> 2 * quad & 3) << 4
    return out.reshape(-1, BLOCK)
