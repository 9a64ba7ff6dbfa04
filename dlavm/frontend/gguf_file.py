"""GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata and the places of tensors.

Nothing that a file says is believed before it is held against the file's size, and nothing is allocated by a number in
it. Tensors are read from a map of the file, row by row (doc/decisions.md says why the package gguf is not used).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.frontend.gguf_blocks import BLOCK_TYPES, OTHER_TYPES, BlockType
from dlavm.support.errors import DlavmError

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
MAPPED = 256 << 20  # bytes of a file that may be resident
MAX_HEADER = 1 << 26  # bytes before the tensors; those of the largest vocabularies are a quarter of it
MAX_ENTRIES, MAX_TEXTS = 1 << 16, 1 << 21  # of metadata and of tensors; of an array of texts
MAX_KEY, MAX_NAME, MAX_AXES = 65535, 64, 4  # what the format allows, in bytes and axes
SHOWN = 80  # characters of a text in an error message
# Value types by number: how struct and numpy call those of a fixed size.
SCALARS = {0: "u1", 1: "i1", 2: "u2", 3: "i2", 4: "u4", 5: "i4", 6: "f4", 7: "?", 10: "u8", 11: "i8", 12: "f8"}
STRING, ARRAY, BOOL = 8, 9, 7

MetaValue = Any  # bool, int, float, str, list[str] or an array of numbers


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a file. `shape` is as numpy has it, outermost axis first; `offset` is the file's byte of its first
    block; a row, the last axis, is `row_bytes` long."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    offset: int

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.elements * self.type.bytes

    @property
    def bytes(self) -> int:
        return prod(self.shape[:-1]) * self.row_bytes


class GgufFile:
    """`metadata` by key and `tensors` by name, both in the order of the file."""

    def __init__(self, path: Path) -> None:
        """Raises DlavmError naming file and field for whatever is not a GGUF file of version 2 or 3, little-endian,
        with tensor types of `BLOCK_TYPES`."""
        self.path = path
        self._map, self._read = _mapped(path), 0
        cursor = _Cursor(path, self._map)
        tensors, entries = _counts(cursor)
        self.metadata: dict[str, MetaValue] = dict(_metadata(cursor, entries))
        infos = list(_infos(cursor, tensors))
        start = -cursor.at % self._alignment() + cursor.at
        self.tensors = {info.name: _placed(path, info, start, self._alignment(), len(self._map)) for info in infos}
        _check_apart(path, list(self.tensors.values()))

    def _alignment(self) -> int:
        value = self.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(value, int) or value < 8 or value & (value - 1) or value > MAX_HEADER:
            raise DlavmError(f"{self.path}: general.alignment expected a power of two of at least 8, got {value!r}")
        return value

    def rows(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor of this file, a view [rows, bytes of a row]; those that are used are read, and stay in
        memory until `release`."""
        tensor = self.tensors[name]
        raw = np.frombuffer(self._map, np.uint8, tensor.bytes, tensor.offset)
        return raw.reshape(-1, tensor.row_bytes)

    def release(self, read: int) -> None:
        """To be told of the bytes that were read: their pages count as resident memory, and are given back in time."""
        self._read += read
        if self._read > MAPPED:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0


def _mapped(path: Path) -> mmap.mmap:
    if not path.is_file():
        raise DlavmError(f"{path}: expected a GGUF file, got none")
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise DlavmError(f"{path}: expected a readable GGUF file, got {str(error)!r}") from None


class _Cursor:
    """Reads the header front to back. Raises DlavmError naming what it was about to read where the file ends."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.at = path, 0
        self._data, self._end = data, min(len(data), MAX_HEADER)

    def error(self, field: str, expectation: str, got: object) -> DlavmError:
        shown = repr(got)
        return DlavmError(f"{self.path}: {field} expected {expectation}, got {shown[:SHOWN]}")

    def skip(self, count: int, field: str) -> int:
        """The place of the next `count` bytes, and behind them."""
        start = self.at
        if count > self._end - start:
            left = f"{self._end - start} before the end of the {'file' if self._end < MAX_HEADER else 'header'}"
            raise self.error(field, f"{count} bytes at byte {start}", left)
        self.at = start + count
        return start

    def bytes(self, count: int, field: str) -> bytes:
        start = self.skip(count, field)
        return self._data[start : start + count]

    def number(self, code: str, field: str) -> Any:
        """`code` is of the module struct."""
        layout = struct.Struct("<" + code)
        return layout.unpack_from(self._data, self.skip(layout.size, field))[0]

    def count(self, field: str, limit: int) -> int:
        value: int = self.number("Q", field)
        if value > limit:
            raise self.error(field, f"at most {limit}", value)
        return value

    def text(self, field: str, limit: int = MAX_HEADER, least: int = 0) -> str:
        length = self.number("Q", field)
        if not least <= length <= limit:
            raise self.error(field, f"a text of {least}..{limit} bytes", length)
        raw = self.bytes(length, field)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.error(field, "UTF-8", raw) from None

    def array(self, dtype: str, count: int, field: str) -> NDArray[Any]:
        kind = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self._data, kind, count, self.skip(count * kind.itemsize, field))


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """Numbers of tensors and of metadata entries."""
    if (magic := cursor.bytes(4, "magic")) != MAGIC:
        raise cursor.error("magic", repr(MAGIC), magic)
    version = cursor.number("I", "version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        found = f"{swapped}, big-endian" if swapped in VERSIONS else version
        raise cursor.error("version", f"one of {VERSIONS!r}, little-endian", found)
    counts = [cursor.count(name, MAX_ENTRIES) for name in ("tensor_count", "metadata_kv_count")]
    return counts[0], counts[1]


def _metadata(cursor: _Cursor, count: int) -> Iterator[tuple[str, MetaValue]]:
    seen = set()
    for index in range(count):
        key = cursor.text(f"key of metadata {index}", MAX_KEY, 1)
        if key in seen:
            raise cursor.error("metadata", "keys once", f"{key[:SHOWN]} twice")
        seen.add(key)
        yield key, _value(cursor, key[:SHOWN])


def _value(cursor: _Cursor, key: str) -> MetaValue:
    kind = cursor.number("I", key)
    if kind == ARRAY:
        return _array(cursor, key)
    if kind == STRING:
        return cursor.text(key)
    if kind not in SCALARS:
        raise cursor.error(key, "a value type of 0..12", kind)
    number = _numbers(cursor, kind, 1, key)[0]
    return float(str(number)) if number.dtype == np.float32 else number.item()  # 1e-05, not what float64 makes of it


def _array(cursor: _Cursor, key: str) -> MetaValue:
    kind = cursor.number("I", key)
    if kind == STRING:
        return [cursor.text(key) for _ in range(cursor.count(key, MAX_TEXTS))]
    if kind not in SCALARS:
        raise cursor.error(key, "an array of numbers or texts", f"type {kind}")
    return _numbers(cursor, kind, cursor.number("Q", key), key)


def _numbers(cursor: _Cursor, kind: int, count: int, key: str) -> NDArray[Any]:
    values = cursor.array("u1" if kind == BOOL else SCALARS[kind], count, key)
    if kind != BOOL:
        return values
    if values.size and values.max() > 1:
        raise cursor.error(key, "bools of 0 or 1", int(values.max()))
    return values.astype(bool)


def _infos(cursor: _Cursor, count: int) -> Iterator[GgufTensor]:
    """The tensors; their offsets still count from the first byte of data."""
    seen = set()
    for index in range(count):
        name = cursor.text(f"name of tensor {index}", MAX_NAME, 1)
        if name in seen:
            raise cursor.error("tensors", "names once", f"{name} twice")
        seen.add(name)
        axes = cursor.number("I", f"{name}: axes")
        if not 1 <= axes <= MAX_AXES:
            raise cursor.error(f"{name}: axes", f"1..{MAX_AXES}", axes)
        shape = tuple(cursor.number("Q", f"{name}: shape") for _ in range(axes))[::-1]
        number, offset = cursor.number("I", f"{name}: type"), cursor.number("Q", f"{name}: offset")
        if number not in BLOCK_TYPES:
            names = ", ".join(kind.name for kind in BLOCK_TYPES.values())
            raise cursor.error(f"{name}: type", f"one of {names}", OTHER_TYPES.get(number, number))
        kind = BLOCK_TYPES[number]
        if not all(shape) or shape[-1] % kind.elements:
            expectation = f"positive extents, the last a multiple of {kind.elements} ({kind.name})"
            raise cursor.error(f"{name}: shape", expectation, list(shape))
        yield GgufTensor(name, shape, kind, offset)


def _placed(path: Path, info: GgufTensor, start: int, alignment: int, size: int) -> GgufTensor:
    """The tensor with its offset in the file, inside of which it lies."""
    if info.offset % alignment:
        raise DlavmError(f"{path}: {info.name}: offset expected a multiple of {alignment}, got {info.offset}")
    if start + info.offset + info.bytes > size:
        raise DlavmError(
            f"{path}: {info.name}: offset expected {info.bytes} bytes within the {size} of the file, got them at "
            f"{start} + {info.offset}"
        )
    return GgufTensor(info.name, info.shape, info.type, start + info.offset)


def _check_apart(path: Path, tensors: list[GgufTensor]) -> None:
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    for left, right in zip(ordered, ordered[1:], strict=False):
        if left.offset + left.bytes > right.offset:
            raise DlavmError(
                f"{path}: {right.name}: offset expected behind {left.name}, which ends at byte "
                f"{left.offset + left.bytes}, got {right.offset}"
            )
