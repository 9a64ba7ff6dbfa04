"""How values stand on the wire: one `WireType` for each type that the protocol files may name. Little-endian."""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UNLIMITED = 1 << 32  # more than any payload
MAX_TEXT = (1 << 16) - 1  # bytes; the length is a u16

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class WireType:
    """`least` and `most` are bytes on the wire; `largest` is the largest value of an unsigned number.

    `encode` takes a value. `decode` takes the payload and where the value starts, and gives it with the place behind
    it. Both raise ValueError("expected X, got Y").
    """

    least: int
    most: int
    encode: Callable[[Any], Buffer]
    decode: Callable[[memoryview, int], tuple[Any, int]]
    largest: int | None = None


def need(view: memoryview, at: int, size: int) -> int:
    """The place `size` bytes further on. Raises ValueError where the payload ends before."""
    if size > len(view) - at:
        raise ValueError(f"expected {size} bytes, got {len(view) - at}")
    return at + size


def _number(letter: str) -> WireType:
    layout = struct.Struct("<" + letter)
    largest = None if letter == "d" else (1 << 8 * layout.size) - 1
    expected = "a number" if largest is None else f"0..{largest}"

    def encode(value: Any) -> bytes:
        try:
            return layout.pack(value)
        except (struct.error, OverflowError):
            raise ValueError(f"expected {expected}, got {reprlib.repr(value)}") from None

    def decode(view: memoryview, at: int) -> tuple[Any, int]:
        end = need(view, at, layout.size)
        return layout.unpack_from(view, at)[0], end

    return WireType(layout.size, layout.size, encode, decode, largest)


def _items(letter: str) -> WireType:
    """A u32 count and as many numbers; a list in Python."""
    count, item = _number("I"), _number(letter)

    def encode(value: Any) -> bytes:
        try:
            items = list(value)
        except TypeError:
            raise ValueError(f"expected a list of numbers, got {reprlib.repr(value)}") from None
        try:
            return struct.pack(f"<I{len(items)}{letter}", len(items), *items)
        except (struct.error, OverflowError):
            for number, each in enumerate(items):
                try:
                    item.encode(each)
                except ValueError as problem:
                    raise ValueError(f"item {number}: {problem}") from None
            raise

    def decode(view: memoryview, at: int) -> tuple[list[int], int]:
        length, at = count.decode(view, at)
        end = need(view, at, length * item.least)
        return list(struct.unpack_from(f"<{length}{letter}", view, at)), end

    return WireType(count.least, UNLIMITED, encode, decode)


def _encode_text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {reprlib.repr(value)}")
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"expected a text that UTF-8 can hold, got {reprlib.repr(value)}") from None
    if len(raw) > MAX_TEXT:
        raise ValueError(f"expected at most {MAX_TEXT} bytes of UTF-8, got {len(raw)}")
    return struct.pack("<H", len(raw)) + raw


def _decode_text(view: memoryview, at: int) -> tuple[str, int]:
    length, at = WIRE_TYPES["u16"].decode(view, at)
    end = need(view, at, length)
    try:
        return str(view[at:end], "utf-8"), end
    except UnicodeDecodeError:
        raise ValueError(f"expected UTF-8, got {reprlib.repr(bytes(view[at:end]))}") from None


def _encode_bytes(value: Any) -> Buffer:
    try:
        view = memoryview(value)
        return view.cast("B") if view.nbytes else b""
    except TypeError:
        raise ValueError(f"expected contiguous bytes, got {reprlib.repr(value)}") from None


def _decode_bytes(view: memoryview, at: int) -> tuple[memoryview, int]:
    return view[at:], len(view)


WIRE_TYPES = {
    "u8": _number("B"),
    "u16": _number("H"),
    "u32": _number("I"),
    "u64": _number("Q"),
    "f64": _number("d"),
    "text": WireType(2, 2 + MAX_TEXT, _encode_text, _decode_text),
    "u32s": _items("I"),
    "u64s": _items("Q"),
    "bytes": WireType(0, UNLIMITED, _encode_bytes, _decode_bytes),
}
