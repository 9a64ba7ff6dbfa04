"""Device memory of the reference: every space as one flat array; striping only matters to channel images."""
from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError
from dlavm.target.spec import Memory, TargetSpec

_MAP_NORESERVE = 0x4000  # Linux; pages cost memory only once touched


class AddressError(DlavmError):
    """Bytes outside every memory space."""


class FlatMemory:
    def __init__(self, spec: TargetSpec) -> None:
        self._board = spec.board
        self._spaces: list[tuple[Memory, NDArray[np.uint8]]] = []
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        for memory in {m.base: m for m in spec.board.memories.values()}.values():
            pages = mmap.mmap(-1, memory.capacity, flags=flags)
            self._spaces.append((memory, np.frombuffer(pages, dtype=np.uint8)))

    def bytes(self, address: int, count: int) -> NDArray[np.uint8]:
        """A writable view of `count` bytes. Raises AddressError."""
        for memory, data in self._spaces:
            offset = address - memory.base
            if offset >= 0 and offset + count <= memory.capacity:
                return data[offset:offset + count]
        raise AddressError(f"bytes 0x{address:x}..0x{address + count:x} lie outside every memory space")

    def rows(self, address: int, counts: tuple[int, ...], strides: tuple[int, ...], length: int,
             dtype: type = np.uint16) -> NDArray[np.generic]:
        """A writable view [*counts, length]: row (i, j, ..) starts `strides` bytes apart from `address`."""
        last = sum((c - 1) * s for c, s in zip(counts, strides, strict=True))
        size = np.dtype(dtype).itemsize
        flat = self.bytes(address, last + length * size)
        return np.lib.stride_tricks.as_strided(
            flat[:flat.size // size * size].view(dtype), (*counts, length), (*strides, size))

    def map_channel(self, address: int, channel: int, path: Path, count: int) -> None:
        """Places a channel's image file: beat i of the file is beat i of that channel from `address` on."""
        for memory, data in self._spaces:
            offset = address - memory.base
            if 0 <= offset < memory.capacity:
                image = np.fromfile(path, dtype=np.uint8, count=count).reshape(-1, memory.port_bytes)
                beats = data.reshape(-1, memory.channels, memory.port_bytes)
                start = offset // memory.beat_row
                beats[start:start + len(image), channel] = image
                return
        raise AddressError(f"image {path.name}: address 0x{address:x} lies outside every memory space")

    def space(self, address: int) -> Memory:
        memory = self._board.holding(address)
        if memory is None:
            raise AddressError(f"address 0x{address:x} lies outside every memory space")
        return memory
