"""A protocol: its messages and enums, and how a message becomes a frame and comes back. Read from YAML by `load`.

A frame: u32 bytes of the payload, u16 number of the message, u16 zero, the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dlavm.support.errors import DlavmError
from dlavm.wire.types import WIRE_TYPES, Buffer, WireType

HEADER = struct.Struct("<IHH")
SIDES = ("client", "server")


class WireError(DlavmError):
    """Bytes that are no message that may come. `code` is the chat protocol's name of it: malformed or too_large.

    `messages` are those that were complete before it, where a FrameReader found it.
    """

    def __init__(self, message: str, code: str = "malformed") -> None:
        super().__init__(message)
        self.code = code
        self.messages: list[Message] = []


@dataclass(frozen=True)
class Message:
    """A message that came. u32s and u64s are lists, bytes a view of the payload, enums their numbers."""

    name: str
    number: int
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


@dataclass(frozen=True)
class Field:
    """One field of a message; `labels` by number where it is an enum."""

    name: str
    type: str
    doc: str
    enum: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)

    @property
    def wire(self) -> WireType:
        return WIRE_TYPES[self.type]

    def encode(self, value: Any) -> Buffer:
        """Raises ValueError("expected X, got Y")."""
        raw = self.wire.encode(value)
        self._check_label(value)
        return raw

    def decode(self, view: memoryview, at: int) -> tuple[Any, int]:
        """The value and the place behind it. Raises ValueError("expected X, got Y")."""
        value, end = self.wire.decode(view, at)
        self._check_label(value)
        return value, end

    def _check_label(self, value: Any) -> None:
        if self.enum and value not in self.labels:
            known = ", ".join(f"{number} ({label})" for number, label in self.labels.items())
            raise ValueError(f"expected one of {known}, got {value}")


@dataclass(frozen=True)
class MessageType:
    """`senders` are the sides that may send it; `least` and `most` bytes of a payload, whatever the values."""

    name: str
    number: int
    senders: tuple[str, ...]
    doc: str
    fields: tuple[Field, ...]
    most: int

    @property
    def least(self) -> int:
        return sum(f.wire.least for f in self.fields)


@dataclass(frozen=True)
class EnumType:
    """Label -> number, label -> what it means."""

    name: str
    values: Mapping[str, int]
    docs: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Protocol:
    """Everything that one of the YAML files says. `namespace` is that of the generated C++."""

    name: str
    namespace: str
    title: str
    magic: int
    version: int
    max_message: int
    doc: str
    enum_types: Mapping[str, EnumType]
    messages: Mapping[str, MessageType]

    @cached_property
    def enums(self) -> dict[str, Mapping[str, int]]:
        """Enum -> label -> number."""
        return {e.name: e.values for e in self.enum_types.values()}

    @cached_property
    def by_number(self) -> dict[int, MessageType]:
        return {m.number: m for m in self.messages.values()}

    def label(self, enum: str, number: int) -> str:
        """The label of an enum's number. Raises DlavmError where there is none."""
        for label, value in self.enums.get(enum, {}).items():
            if value == number:
                return label
        raise DlavmError(f"{self.name}: expected a number of the enum {enum}, got {number!r}")

    def encode(self, name: str, /, **values: Any) -> bytes:
        """A whole frame. Raises DlavmError for a message or field that is not there, missing, or out of range."""
        message = self.messages.get(name)
        if message is None:
            raise DlavmError(f"{self.name}: expected the name of a message, got {name!r}")
        names = [f.name for f in message.fields]
        if values.keys() != set(names):
            raise DlavmError(f"{self.name}.{name}: expected the fields {', '.join(names) or '(none)'}, "
                             f"got {', '.join(values) or '(none)'}")
        parts: list[Buffer] = []
        for f in message.fields:
            try:
                parts.append(f.encode(values[f.name]))
            except ValueError as problem:
                raise DlavmError(f"{self.name}.{name}.{f.name}: {problem}") from None
        size = sum(map(len, parts))
        if size > self.max_message:
            raise DlavmError(f"{self.name}.{name}: expected at most {self.max_message} bytes, got {size}")
        return b"".join([HEADER.pack(size, message.number, 0), *parts])

    def decode(self, number: int, payload: Buffer) -> Message:
        """The message of a payload; its bytes stay views of `payload`. Raises WireError."""
        message = self.by_number.get(number)
        if message is None:
            raise WireError(f"{self.name}: expected the number of a message, got {number}")
        view, at = memoryview(payload), 0
        fields = {}
        for f in message.fields:
            try:
                fields[f.name], at = f.decode(view, at)
            except ValueError as problem:
                raise WireError(f"{self.name}.{message.name}.{f.name}: {problem}") from None
        if at != len(view):
            raise WireError(f"{self.name}.{message.name}: expected {at} bytes, got {len(view)}")
        return Message(message.name, number, fields)

    def check_header(self, raw: Buffer, sender: str) -> tuple[int, int]:
        """Length of the payload and number of the message, from the first 8 bytes of a frame that `sender` sent.

        Raises WireError where no message of that side has such a header.
        """
        length, number, reserved = HEADER.unpack(raw)
        if reserved:
            raise WireError(f"{self.name}: header: expected zero in the last two bytes, got {reserved}")
        if length > self.max_message:
            raise WireError(f"{self.name}: expected at most {self.max_message} bytes, got {length}", "too_large")
        message = self.by_number.get(number)
        if message is None or sender not in message.senders:
            raise WireError(f"{self.name}: expected the number of a message from the {sender}, got {number}")
        if not message.least <= length <= message.most:
            expected = f"{message.least}" if message.least == message.most else f"{message.least}..{message.most}"
            raise WireError(f"{self.name}.{message.name}: expected {expected} bytes, got {length}")
        return length, number
