"""The bytes of an .onnx file without those of its large initialisers, which stay in the file.

The protobuf library would copy them into memory; here a walk over the three levels of messages that matter (model,
graph, initialiser) leaves them out and says where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dlavm.support.errors import DlavmError

MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9  # field numbers of onnx.proto
KEPT = 1024  # bytes of raw data up to which a tensor stays in the message
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED64: 8, FIXED32: 4}


@dataclass
class Stripped:
    """The message, and offset and length in the file of the raw data left out, by number of the initialiser."""

    message: bytes
    data: dict[int, tuple[int, int]] = field(default_factory=dict)


def strip(buffer: memoryview, place: str) -> Stripped:
    """Raises DlavmError for bytes that are no protobuf message."""
    found = Stripped(b"")
    parts: list[bytes] = []
    for number, start, body, end in _fields(buffer, 0, len(buffer), place):
        if number == MODEL_GRAPH and body is not None:
            graph = _graph(buffer, body, end, place, found)
            parts.append(_header(MODEL_GRAPH, len(graph)) + graph)
        else:
            parts.append(bytes(buffer[start:end]))
    found.message = b"".join(parts)
    return found


def _graph(buffer: memoryview, begin: int, stop: int, place: str, found: Stripped) -> bytes:
    parts: list[bytes] = []
    count = 0
    for number, start, body, end in _fields(buffer, begin, stop, place):
        if number == GRAPH_INITIALIZER and body is not None:
            tensor = _tensor(buffer, body, end, place, found, count)
            parts.append(_header(GRAPH_INITIALIZER, len(tensor)) + tensor)
            count += 1
        else:
            parts.append(bytes(buffer[start:end]))
    return b"".join(parts)


def _tensor(buffer: memoryview, begin: int, stop: int, place: str, found: Stripped, index: int) -> bytes:
    parts: list[bytes] = []
    for number, start, body, end in _fields(buffer, begin, stop, place):
        if number == TENSOR_RAW_DATA and body is not None and end - body > KEPT:
            found.data[index] = (body, end - body)
        else:
            parts.append(bytes(buffer[start:end]))
    return b"".join(parts)


def _fields(buffer: memoryview, at: int, stop: int, place: str) -> Iterator[tuple[int, int, int | None, int]]:
    """Number, first byte, first byte of the content (None unless it is of kind BYTES), and end of each field."""
    while at < stop:
        start = at
        key, at = _varint(buffer, at, stop, place)
        kind, body = key & 7, None
        if kind == VARINT:
            _, at = _varint(buffer, at, stop, place)
        elif kind in WIDTHS:
            at += WIDTHS[kind]
        elif kind == BYTES:
            length, body = _varint(buffer, at, stop, place)
            at = body + length
        else:
            raise _broken(place, f"a field of kind {kind} at byte {start}")
        if at > stop or key >> 3 == 0:
            raise _broken(place, f"a field at byte {start} that ends at {at}, behind byte {stop}")
        yield key >> 3, start, body, at


def _varint(buffer: memoryview, at: int, stop: int, place: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise _broken(place, f"its end at byte {stop} within a number")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _broken(place, f"a number of more than ten bytes before byte {at}")


def _header(number: int, length: int) -> bytes:
    """Key and length of a field of kind BYTES."""
    header = bytearray([number << 3 | BYTES])
    while length >= 0x80:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*header, length])


def _broken(place: str, what: str) -> DlavmError:
    return DlavmError(f"{place}: expected an ONNX model, got {what!r}")
