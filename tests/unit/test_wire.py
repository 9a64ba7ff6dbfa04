"""The wire protocols: what their files may say, frames byte by byte, and everything that is refused."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.support import generate
from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT, DEVICE, FrameReader, Message, WireError
from dlavm.wire.gen import main as generate_wire
from dlavm.wire.gen import render
from dlavm.wire.load import parse_protocol
from dlavm.wire.protocol import HEADER, MessageType, Protocol
from tests.unit.wire_helpers import EVERY_MESSAGE, MESSAGE_IDS, some_fields

every_message = pytest.mark.parametrize(("protocol", "message"), EVERY_MESSAGE, ids=MESSAGE_IDS)

SMALL = """
name: small
namespace: small
title: A small protocol
magic: 0x4C4D5344
version: 1
max_message: 100
doc: |
  Nothing.
enums:
  colour:
    red: {number: 1, doc: as blood}
    blue: {number: 300, doc: ""}
messages:
  paint:
    number: 1
    from: client
    doc: Paints.
    fields:
      - {name: colour, type: u16, enum: colour, doc: ""}
      - {name: rest, type: bytes, doc: ""}
  painted:
    number: 2
    from: server
    doc: Painted.
    fields: []
"""


def payload_of(frame: bytes) -> bytes:
    return frame[HEADER.size:]


def header(length: int, number: int, reserved: int = 0) -> bytes:
    return HEADER.pack(length, number, reserved)


def fields_of(message: Message) -> dict[str, Any]:
    return {name: bytes(v) if isinstance(v, memoryview) else v for name, v in message.fields.items()}


def test_a_small_protocol_is_read() -> None:
    small = parse_protocol(SMALL, "small.yaml")
    assert (small.max_message, small.doc, small.enums) == (100, "Nothing.", {"colour": {"red": 1, "blue": 300}})
    assert [(m.name, m.number, m.senders, m.least, m.most) for m in small.messages.values()] == [
        ("paint", 1, ("client",), 2, 100), ("painted", 2, ("server",), 0, 0)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: 0", "small.yaml: version: expected 1..65535, got 0"),
        ("version: 1", "version: '1'", "small.yaml: version: expected int, got '1'"),
        ("version: 1", "version: true", "small.yaml: version: expected int, got True"),
        ("version: 1\n", "", "small.yaml: expected the keys name, .*, got name, namespace, title, magic, max_message"),
        ("version: 1\n", "version: 1\nextra: 1\n", "small.yaml: expected the keys .* extra"),
        ("magic: 0x4C4D5344", "magic: 0x14C4D5344", "small.yaml: magic: expected 1..4294967295"),
        ("namespace: small", "namespace: Small-er", "namespace: expected a name of small letters, .*, got 'Small-er'"),
        ("name: small", "name: [", "small.yaml: expected YAML, got"),
        ("number: 2", "number: 1", "small.yaml: messages.painted: expected a number of its own, got 1 as paint has"),
        ("number: 2", "number: 65536", "small.yaml: painted: number: expected 1..65535, got 65536"),
        ("number: 2", "number: 0", "small.yaml: painted: number: expected 1..65535, got 0"),
        ("painted:", "paint:", "small.yaml: expected YAML, got the key 'paint' comes twice"),
        ("painted:", "Painted:", "small.yaml: Painted: expected a name of small letters"),
        ("from: server", "from: nobody", "painted: from: expected one of client, server, both, got 'nobody'"),
        ("fields: []", "fields: {}", r"painted: fields: expected list, got \{\}"),
        ("fields: []", "fields: [1]", "painted: field 0: expected the keys name, type, doc, got 1"),
        ("type: u16", "type: u24", "paint: field 0: type: expected one of u8, u16, .*, got 'u24'"),
        ("type: u16", "type: u8", "paint: field 0: type: expected one that holds every colour, got 'u8'"),
        ("type: u16", "type: text", "paint: field 0: type: expected one that holds every colour, got 'text'"),
        ("enum: colour", "enum: shape", "paint: field 0: enum: expected one of colour, got 'shape'"),
        ("name: rest, type: bytes", "name: colour, type: bytes", "paint: field 1: expected a name of its own, "
         "got 'colour' again"),
        ("type: u16, enum: colour", "type: bytes", "paint.colour: expected bytes as the last field only, "
         "got 'rest' behind"),
        ("number: 300", "number: 1", "small.yaml: enums.colour.blue: expected a number of its own, got 1 as red has"),
        ("number: 300", "number: 65536", "small.yaml: enums.colour.blue: number: expected 0..65535, got 65536"),
        ("blue:", "red:", "small.yaml: expected YAML, got the key 'red' comes twice"),
        ("{number: 300, doc: \"\"}", "300", "enums.colour.blue: expected the keys number, doc, got 300"),
    ],
)
def test_a_wrong_file_is_refused(old: str, new: str, expected: str) -> None:
    assert SMALL.count(old) >= 1
    with pytest.raises(DlavmError, match=expected):
        parse_protocol(SMALL.replace(old, new, 1), "small.yaml")


@pytest.mark.parametrize("text", ["", "3", "[]"])
def test_a_file_that_is_no_mapping(text: str) -> None:
    with pytest.raises(DlavmError, match="small.yaml: expected the keys name"):
        parse_protocol(text, "small.yaml")


@pytest.mark.parametrize(
    ("protocol", "name", "fields", "expected"),
    [
        (CHAT, "cancel", {}, "00000000 0300 0000"),
        (CHAT, "hello", {"magic": CHAT.magic, "version": 1, "secret": "", "client": "ö"},
         "0c000000 0100 0000 444c564d 0100 0000 0200 c3b6"),
        (CHAT, "error", {"code": 7, "fatal": 1, "retry_ms": 258, "text": "a"},
         "0a000000 4700 0000 0700 01 02010000 0100 61"),
        (CHAT, "generate", {"keep": 1, "max_tokens": 2, "ignore_end": 0, "temperature": 1.0, "top_k": 3, "top_p": 0.5,
                            "seed": 1 << 63, "counter": 4, "ids": [5, 1 << 31]},
         "39000000 0200 0000 01000000 02000000 00 000000000000f03f 03000000 000000000000e03f 0000000000000080"
         "0400000000000000 02000000 05000000 00000080"),
        (DEVICE, "write", {"address": 16, "bytes": b"\1\2"}, "0a000000 0400 0000 1000000000000000 0102"),
        (DEVICE, "open", {"magic": DEVICE.magic, "version": 1, "secret": "s", "numbers": [], "opcode_mask": [1],
                          "memories": []},
         "1d000000 0100 0000 444c5644 0100 0100 73 00000000 01000000 0100000000000000 00000000"),
    ],
)
def test_bytes_of_a_frame(protocol: Protocol, name: str, fields: dict[str, Any], expected: str) -> None:
    frame = protocol.encode(name, **fields)
    assert frame.hex() == expected.replace(" ", "")
    assert fields_of(protocol.decode(protocol.messages[name].number, payload_of(frame))) == fields


def test_magic_and_labels() -> None:
    assert struct.pack("<II", CHAT.magic, DEVICE.magic) == b"DLVMDLVD"
    assert CHAT.enums["error"]["busy"] == 7 and CHAT.label("error", 7) == "busy"
    for enum, number in (("error", 0), ("nothing", 1)):
        with pytest.raises(DlavmError, match=f"chat: expected a number of the enum {enum}, got {number}"):
            CHAT.label(enum, number)


def test_arrays_and_views_are_taken() -> None:
    ids = np.array([[3, 4], [5, 6]], np.uint32)
    assert CHAT.encode("data", bytes=ids) == CHAT.encode("data", bytes=memoryview(ids.tobytes()))
    assert CHAT.encode("data", bytes=np.empty((0, 4))) == CHAT.encode("data", bytes=b"")
    assert DEVICE.encode("open", magic=0, version=0, secret="", numbers=ids[0], opcode_mask=(1, 2), memories=ids[1]) \
        == DEVICE.encode("open", magic=0, version=0, secret="", numbers=[3, 4], opcode_mask=[1, 2], memories=[5, 6])


ERROR = {"code": 7, "fatal": 0, "retry_ms": 0, "text": ""}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"fatal": 256}, "chat.error.fatal: expected 0..255, got 256"),
        ({"fatal": -1}, "chat.error.fatal: expected 0..255, got -1"),
        ({"fatal": 1.0}, "chat.error.fatal: expected 0..255, got 1.0"),
        ({"fatal": None}, "chat.error.fatal: expected 0..255, got None"),
        ({"code": 12}, "chat.error.code: expected one of 1 .malformed., .*, got 12"),
        ({"text": b"x"}, "chat.error.text: expected a text, got b'x'"),
        ({"text": "\udc80"}, "chat.error.text: expected a text that UTF-8 can hold"),
        ({"text": "ä" * 32768}, "chat.error.text: expected at most 65535 bytes of UTF-8, got 65536"),
        ({"texts": ""}, "chat.error: expected the fields code, fatal, retry_ms, text, got code, .*, texts"),
    ],
)
def test_a_value_out_of_range(fields: dict[str, Any], expected: str) -> None:
    CHAT.encode("error", **ERROR)
    with pytest.raises(DlavmError, match=expected):
        CHAT.encode("error", **{**ERROR, **fields})


@pytest.mark.parametrize(
    ("encode", "expected"),
    [
        (lambda: CHAT.encode("greet"), "chat: expected the name of a message, got 'greet'"),
        (lambda: CHAT.encode("ok"), r"chat.ok: expected the fields kv_len, got \(none\)"),
        (lambda: CHAT.encode("cancel", now=1), r"chat.cancel: expected the fields \(none\), got now"),
        (lambda: CHAT.encode("data", bytes="text"), "chat.data.bytes: expected contiguous bytes, got 'text'"),
        (lambda: CHAT.encode("data", bytes=np.zeros((4, 4))[:, 1]), "chat.data.bytes: expected contiguous bytes"),
        (lambda: CHAT.encode("data", bytes=bytes(CHAT.max_message + 1)), "chat.data: expected at most 1048576 bytes, "
         "got 1048577"),
        (lambda: DEVICE.encode("open", magic=0, version=0, secret="", numbers=[1, -1], opcode_mask=[], memories=[]),
         "device.open.numbers: item 1: expected 0..4294967295, got -1"),
        (lambda: DEVICE.encode("open", magic=0, version=0, secret="", numbers=1, opcode_mask=[], memories=[]),
         "device.open.numbers: expected a list of numbers, got 1"),
    ],
)
def test_what_cannot_be_encoded(encode: Callable[[], bytes], expected: str) -> None:
    with pytest.raises(DlavmError, match=expected):
        encode()


def test_the_longest_payload() -> None:
    frame = CHAT.encode("data", bytes=bytes(CHAT.max_message))
    [message] = FrameReader(CHAT, sender="server").feed(frame)
    assert len(message["bytes"]) == CHAT.max_message


@every_message
def test_a_payload_cut_or_longer(protocol: Protocol, message: MessageType) -> None:
    open_end = bool(message.fields) and message.fields[-1].type == "bytes"
    for seed in range(4):
        payload = payload_of(protocol.encode(message.name, **some_fields(random.Random(seed), message)))
        for size in range(message.least if open_end else len(payload)):
            with pytest.raises(WireError, match=f"^{protocol.name}.{message.name}.*: expected .* bytes, got"):
                protocol.decode(message.number, payload[:size])
        if not open_end:
            with pytest.raises(WireError, match=f"{protocol.name}.{message.name}: expected {len(payload)} bytes, "):
                protocol.decode(message.number, payload + b"\0")


@pytest.mark.parametrize(
    ("number", "payload", "expected"),
    [
        (71, struct.pack("<HBIH", 0, 0, 0, 0), "chat.error.code: expected one of 1 .malformed., .*, got 0"),
        (73, b"\2\0\xc0\x80", "chat.farewell.text: expected UTF-8"),
        (73, b"\3\0\xed\xa0\x80", "chat.farewell.text: expected UTF-8"),
        (73, b"\1\0\x80", "chat.farewell.text: expected UTF-8"),
        (2, bytes(45) + b"\xff\xff\xff\xff", "chat.generate.ids: expected 17179869180 bytes, got 0"),
        (2, bytes(45) + b"\1\0\0\x40" + bytes(4), "chat.generate.ids: expected 4294967300 bytes, got 4"),
        (11, b"", "chat: expected the number of a message, got 11"),
    ],
)
def test_a_payload_that_says_nonsense(number: int, payload: bytes, expected: str) -> None:
    with pytest.raises(WireError, match=expected) as caught:
        CHAT.decode(number, payload)
    assert caught.value.code == "malformed"


PONG = CHAT.encode("pong", nonce=5)


@every_message
def test_a_frame_byte_by_byte(protocol: Protocol, message: MessageType) -> None:
    fields = some_fields(random.Random(message.number), message)
    frame = protocol.encode(message.name, **fields)
    reader = FrameReader(protocol, sender=message.senders[0])
    for i in range(len(frame) - 1):
        assert reader.feed(frame[i:i + 1]) == []
        assert not reader.idle
    [again] = reader.feed(frame[-1:])
    assert reader.idle
    assert (again.name, again.number) == (message.name, message.number)
    assert protocol.encode(again.name, **again.fields) == frame


@pytest.mark.parametrize(
    ("raw", "code", "expected"),
    [
        (header(1 << 31, 72), "too_large", "chat: expected at most 1048576 bytes, got 2147483648"),
        (header(CHAT.max_message + 1, 10), "too_large", "chat: expected at most 1048576 bytes, got 1048577"),
        (header(8, 72, 1), "malformed", "chat: header: expected zero in the last two bytes, got 1"),
        (header(8, 72, 0x8000), "malformed", "chat: header: expected zero"),
        (header(0, 0), "malformed", "chat: expected the number of a message from the server, got 0"),
        (header(0, 500), "malformed", "chat: expected the number of a message from the server, got 500"),
        (header(8, 8), "malformed", "chat: expected the number of a message from the server, got 8"),
        (header(7, 72), "malformed", "chat.pong: expected 8 bytes, got 7"),
        (header(1 << 20, 72), "malformed", "chat.pong: expected 8 bytes, got 1048576"),
        (header(65538, 73), "malformed", "chat.farewell: expected 2..65537 bytes, got 65538"),
    ],
)
def test_a_bad_header_is_refused_at_once(raw: bytes, code: str, expected: str) -> None:
    reader = FrameReader(CHAT, sender="server")
    assert reader.feed(PONG + raw[:7])[0]["nonce"] == 5
    with pytest.raises(WireError, match=expected) as caught:
        reader.feed(raw[7:])
    assert (caught.value.code, caught.value.messages) == (code, [])
    for later in (b"", PONG):
        with pytest.raises(WireError, match=expected) as caught:
            reader.feed(later)
        assert caught.value.code == code


def test_messages_before_an_error_are_not_lost() -> None:
    with pytest.raises(WireError, match="got 8") as caught:
        FrameReader(CHAT, sender="server").feed(PONG + PONG + header(0, 8) + PONG)
    assert [m["nonce"] for m in caught.value.messages] == [5, 5]


def test_either_side_may_send_data() -> None:
    for sender in ("client", "server"):
        assert FrameReader(CHAT, sender).feed(CHAT.encode("data", bytes=b"x"))[0]["bytes"] == b"x"
    with pytest.raises(ValueError, match="sender: expected client or server, got 'both'"):
        FrameReader(CHAT, "both")


def test_a_message_does_not_share_the_bytes_that_were_fed() -> None:
    received = bytearray(CHAT.encode("data", bytes=b"abc"))
    [message] = FrameReader(CHAT, sender="client").feed(received)
    received[:] = bytes(len(received))
    assert message["bytes"] == b"abc"


def test_generated_files_are_current() -> None:
    assert generate_wire(["--check"]) == 0


def test_the_generator_writes_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(generate, "data_root", lambda: tmp_path)
    assert generate_wire(["--check"]) == 1
    assert not any(tmp_path.iterdir())
    assert generate_wire([]) == 0 and generate_wire(["--check"]) == 0
    page = tmp_path / "doc" / "protocol.md"
    page.write_text(page.read_text() + "more\n")
    capsys.readouterr()
    assert generate_wire(["--check"]) == 1
    assert capsys.readouterr().err == "doc/protocol.md: not up to date, regenerate with `make gen`\n"
    assert page.read_text().endswith("more\n")
    assert generate_wire([]) == 0 and not page.read_text().endswith("more\n")


def test_the_page_names_everything() -> None:
    page = render()["doc/protocol.md"]
    for protocol, message in EVERY_MESSAGE:
        assert f"#### {message.name} ({message.number}" in page
        assert message.doc in page
        assert all(f"| `{f.name}` | {f.type}" in page for f in message.fields)
        assert hex(protocol.magic) in page
    for labels in CHAT.enums.values():
        assert all(f"| {label} | {number} |" in page for label, number in labels.items())
