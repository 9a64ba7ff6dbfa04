"""Wire protocols: any message survives, however the stream is cut; any bytes give messages or a WireError."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dlavm.wire import FrameReader, Message, WireError
from dlavm.wire.protocol import HEADER, SIDES, Field, MessageType, Protocol
from tests.unit.wire_helpers import EVERY_MESSAGE


def numbers(bits: int) -> st.SearchStrategy[int]:
    largest = (1 << bits) - 1
    return st.integers(0, largest) | st.sampled_from((0, 1, largest - 1, largest))


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u8": numbers(8),
    "u16": numbers(16),
    "u32": numbers(32),
    "u64": numbers(64),
    "f64": st.floats(),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    "u32s": st.lists(numbers(32), max_size=20),
    "u64s": st.lists(numbers(64), max_size=20),
    "bytes": st.binary(max_size=60),
}


def values(field: Field) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(field.labels)) if field.enum else VALUES[field.type]


@st.composite
def frames(draw: st.DrawFn) -> tuple[Protocol, MessageType, bytes]:
    protocol, message = draw(st.sampled_from(EVERY_MESSAGE))
    return protocol, message, protocol.encode(message.name, **{f.name: draw(values(f)) for f in message.fields})


def read(protocol: Protocol, sender: str, pieces: list[bytes]) -> tuple[list[Message], str, bool]:
    """All messages, the code of the error at the end or "", whether nothing is pending."""
    reader, messages = FrameReader(protocol, sender), []
    try:
        for piece in pieces:
            messages += reader.feed(piece)
    except WireError as error:
        return messages + error.messages, error.code, reader.idle
    return messages, "", reader.idle


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(p, len(data)) for p in places), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


@given(st.lists(frames(), min_size=1, max_size=4), st.lists(st.integers(0, 300), max_size=6))
def test_messages_survive_any_cut(sent: list[tuple[Protocol, MessageType, bytes]], places: list[int]) -> None:
    protocol, first, _ = sent[0]
    same = [(m, frame) for p, m, frame in sent if p is protocol and first.senders[0] in m.senders]
    messages, code, idle = read(protocol, first.senders[0], cut(b"".join(f for _, f in same), places))
    assert (code, idle) == ("", True)
    assert [m.name for m in messages] == [m.name for m, _ in same]
    assert [protocol.encode(m.name, **m.fields) for m in messages] == [frame for _, frame in same]


@given(frames(), st.sampled_from(SIDES))
def test_each_side_has_its_messages(sent: tuple[Protocol, MessageType, bytes], sender: str) -> None:
    protocol, message, frame = sent
    messages, code, _ = read(protocol, sender, [frame])
    assert (len(messages), code) == ((1, "") if sender in message.senders else (0, "malformed"))


@given(frames(), st.data())
def test_a_changed_frame_gives_a_message_or_a_wire_error(
    sent: tuple[Protocol, MessageType, bytes], data: st.DataObject
) -> None:
    protocol, message, frame = sent
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    pieces = cut(bytes(changed), data.draw(st.lists(st.integers(0, 100), max_size=3)))
    whole = read(protocol, message.senders[0], [bytes(changed)])
    in_pieces = read(protocol, message.senders[0], pieces)
    assert [m.name for m in whole[0]] == [m.name for m in in_pieces[0]] and whole[1:] == in_pieces[1:]


@given(st.sampled_from(EVERY_MESSAGE), st.binary(max_size=100), st.booleans())
def test_any_bytes(kind: tuple[Protocol, MessageType], data: bytes, framed: bool) -> None:
    protocol, message = kind
    stream = HEADER.pack(len(data), message.number, 0) + data if framed else data
    messages, code, idle = read(protocol, message.senders[0], [stream])
    again = b"".join(protocol.encode(m.name, **m.fields) for m in messages)
    assert stream.startswith(again)
    assert code or idle == (again == stream)
