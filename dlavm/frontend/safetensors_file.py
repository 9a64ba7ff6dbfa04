"""The bytes of a safetensors file in numpy arrays, also of the types that the library has none for (fp8)."""

from __future__ import annotations

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from dlavm.support.errors import DlavmError

MAPPED = 256 << 20  # bytes of a file that may be resident
# By the name that files give a type; those of eight bits that numpy does not know are taken as their codes.
TYPES: dict[str, Any] = {
    "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "I32": np.int32, "I64": np.int64,
    "I8": np.int8, "U8": np.uint8, "F8_E4M3": np.uint8, "F8_E8M0": np.uint8,
}  # fmt: skip


class SafetensorsFile:
    """A file that the library has opened before, and so found sound."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self._map[:8], "little")
        self._header = json.loads(self._map[8 : 8 + length])
        self._start = 8 + length
        self._read = 0

    def part(self, name: str, rows: slice, columns: slice) -> NDArray[Any]:
        """A copy of some rows, of a matrix of some of their columns. Raises DlavmError for a type not in `TYPES`."""
        entry = self._header[name]
        if entry["dtype"] not in TYPES:
            raise DlavmError(f"{self.path}: {name} expected one of {list(TYPES)!r}, got {entry['dtype']!r}")
        dtype, shape = np.dtype(TYPES[entry["dtype"]]), tuple(entry["shape"])
        start, stop = (self._start + offset for offset in entry["data_offsets"])
        count = prod(shape)
        if not self._start <= start <= stop <= len(self._map) or stop - start != count * dtype.itemsize:
            size = f"{count * dtype.itemsize} bytes in the file"
            raise DlavmError(f"{self.path}: {name} expected {size}, got offsets {entry['data_offsets']!r}")
        whole = np.frombuffer(self._map, dtype, count, start).reshape(shape)
        part = np.array(whole[rows] if len(shape) == 1 else whole[rows, columns] if shape else whole)
        self._release(part.nbytes)
        return part

    def _release(self, read: int) -> None:
        """Pages that were read count as resident memory, and are given back in time."""
        self._read += read
        if self._read > MAPPED:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0
