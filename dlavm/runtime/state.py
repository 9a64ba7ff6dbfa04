"""The KV cache of one sequence as bytes: what a session saves and loads (doc/protocol.md).

A state holds, for each cache in the manifest's order and each of its heads, the blocks of 32 tokens up to the last
cached one. Positions behind that one are zero, so that equal tokens give equal states.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK
from dlavm.pack.manifest import KvRegion, Manifest
from dlavm.sim.device import Device
from dlavm.support.errors import DlavmError
from dlavm.target.layout import KV_FORMATS, KvFormat, ceildiv

EXPONENT = 0x7C00  # of an fp16 number; all ones: infinite or not a number


class StateLayout:
    """Where the parts of a state lie in device memory."""

    def __init__(self, manifest: Manifest) -> None:
        self._regions = manifest.kv
        self._sequences = manifest.sequences

    def size(self, kv_len: int) -> int:
        """Length of the state of `kv_len` tokens."""
        return ceildiv(kv_len, BLOCK) * sum(region.heads * region.block_bytes for region in self._regions)

    def read(self, device: Device, sequence: int, kv_len: int) -> bytes:
        """The state of a sequence that holds `kv_len` tokens."""
        state = np.empty(self.size(kv_len), np.uint8)
        for address, region, part in self._parts(sequence, kv_len, state):
            device.mem_read_into(address, part)
            _clear_behind(part[-region.block_bytes :], KV_FORMATS[region.format], kv_len)
        return state.tobytes()

    def write(self, device: Device, sequence: int, kv_len: int, state: bytes) -> None:
        """Makes a sequence hold a state. Raises DlavmError, before anything is written, for a wrong length or an fp16
        number that is not finite."""
        if len(state) != self.size(kv_len):
            raise DlavmError(f"state: expected {self.size(kv_len)} bytes for {kv_len} tokens, got {len(state)}")
        parts = list(self._parts(sequence, kv_len, np.frombuffer(state, np.uint8)))
        for _, region, part in parts:
            if region.format == "fp16" and (part.view("<u2") & EXPONENT == EXPONENT).any():
                raise DlavmError("state: expected finite numbers, got one that is not")
        for address, _, part in parts:
            device.mem_write(address, part)

    def _parts(
        self, sequence: int, kv_len: int, state: NDArray[np.uint8]
    ) -> Iterator[tuple[int, KvRegion, NDArray[np.uint8]]]:
        """Address, region, and bytes in the state, of every head."""
        place = 0
        for region in self._regions if kv_len else ():
            count = ceildiv(kv_len, BLOCK) * region.block_bytes
            for head in range(region.heads):
                address = region.address + sequence * self._sequences.stride + head * region.head_bytes
                yield address, region, state[place : place + count]
                place += count


def _clear_behind(block: NDArray[np.uint8], format: KvFormat, kv_len: int) -> None:
    """Zeroes the rows and exponents of a head's last block that belong to no cached token."""
    units, used, start = format.units(block.size), (kv_len - 1) % BLOCK + 1, 0
    for size in (format.row_bytes, format.exponent_bytes):
        end = start + units * BLOCK * size
        block[start:end].reshape(units, BLOCK, size)[:, used:] = 0
        start = end
