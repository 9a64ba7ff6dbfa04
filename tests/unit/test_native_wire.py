"""The C++ codec against the Python one: the same bytes, the same verdict, under sanitizers (clib/test/wire.cpp)."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dlavm.wire import CHAT, DEVICE, FrameReader, WireError
from dlavm.wire.protocol import HEADER, SIDES, Protocol
from tests.unit.wire_helpers import EVERY_MESSAGE, some_fields, some_frame

STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion",
          "-Wold-style-cast", "-Werror"]
# A count that is believed before it is checked asks for gigabytes.
OPTIONS = "allocator_may_return_null=0:max_allocation_size_mb=64"
MUTATIONS = 4000
EDGES = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)  # of the second to fourth byte of UTF-8

Codec = Callable[[str, str, Iterable[bytes]], list[tuple[str, bytes]]]


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("needs a C++ compiler")
    return found


@pytest.fixture(scope="session")
def program(compiler: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clib/test/wire.cpp, compiled once for all worker processes of this run."""
    root = tmp_path_factory.getbasetemp()
    path = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "dlavm_wire"
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            build(compiler, repository, path)
    return path


def build(compiler: str, repository: Path, path: Path) -> None:
    part = path.with_suffix(".part")
    command = [compiler, *STRICT, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
               f"-I{repository / 'clib/include'}", str(repository / "clib/test/wire.cpp"), "-o", str(part)]
    run = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in run.stderr and "asan" in run.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert run.returncode == 0, run.stderr[-4000:]
    part.rename(path)


@pytest.fixture(scope="session")
def codec(program: Path) -> Codec:
    """`codec(protocol, sender, streams)` gives verdict and bytes of each stream."""

    def judge(kind: str, sender: str, streams: Iterable[bytes]) -> list[tuple[str, bytes]]:
        data = b"".join(struct.pack("<I", len(s)) + s for s in streams)
        run = subprocess.run([str(program), kind, sender], input=data, capture_output=True, timeout=120,
                             env={**os.environ, "ASAN_OPTIONS": OPTIONS})
        assert run.returncode == 0, run.stderr.decode()[-4000:]
        lines = (line.split(" ") for line in run.stdout.decode().splitlines())
        return [(status, bytes.fromhex(digits)) for status, digits in lines]

    return judge


def python_codec(protocol: Protocol, sender: str, stream: bytes) -> tuple[str, bytes]:
    """Verdict, and the messages before that encoded again."""
    reader = FrameReader(protocol, sender)
    try:
        messages = reader.feed(stream)
        status = "complete" if reader.idle else "partial"
    except WireError as error:
        messages, status = error.messages, error.code
    return status, b"".join(protocol.encode(m.name, **m.fields) for m in messages)


def agree(codec: Codec, protocol: Protocol, sender: str, streams: list[bytes]) -> list[str]:
    """Compares both codecs; the verdicts."""
    ours = [python_codec(protocol, sender, stream) for stream in streams]
    theirs = codec(protocol.name, sender, streams)
    assert len(ours) == len(theirs)
    for stream, one, other in zip(streams, ours, theirs, strict=True):
        assert one == other, stream.hex()
    return [status for status, _ in ours]


def mutate(rng: random.Random, stream: bytes) -> bytes:
    """A stream with a few changes of every kind; most stay close to what is valid."""
    data = bytearray(stream)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            data[at:at + 1] = rng.randbytes(1)
        elif kind == 1:
            data[at:at + 1] = bytes([rng.choice(EDGES)])
        elif kind == 2:
            del data[at:at + rng.randrange(1, 5)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif kind == 4:
            data[at:at + 4] = struct.pack("<I", rng.choice((0, 1, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1)))
        else:  # a length that fits, so that the change is not seen in the header alone
            del data[at:]
            data[:4] = struct.pack("<I", max(0, len(data) - HEADER.size))
    return bytes(data)


@pytest.mark.parametrize("protocol", [CHAT, DEVICE], ids=lambda p: p.name)
def test_every_message_gives_the_same_bytes(protocol: Protocol, codec: Codec) -> None:
    for sender in SIDES:
        rng = random.Random(7)
        mine = [m for p, m in EVERY_MESSAGE if p is protocol and sender in m.senders]
        streams = [protocol.encode(m.name, **some_fields(rng, m)) for m in mine for _ in range(12)]
        assert set(agree(codec, protocol, sender, streams)) == {"complete"}
        assert [out for _, out in codec(protocol.name, sender, streams)] == streams
        other = [protocol.encode(m.name, **some_fields(rng, m)) for p, m in EVERY_MESSAGE
                 if p is protocol and sender not in m.senders]
        assert set(agree(codec, protocol, sender, other)) == {"malformed"}


@pytest.mark.parametrize("protocol", [CHAT, DEVICE], ids=lambda p: p.name)
def test_every_message_cut_at_every_byte(protocol: Protocol, codec: Codec) -> None:
    for p, message in EVERY_MESSAGE:
        if p is protocol:
            frame = protocol.encode(message.name, **some_fields(random.Random(1), message))
            cut = [frame[:size] for size in range(len(frame))]
            shorter = [HEADER.pack(len(c) - HEADER.size, message.number, 0) + c[HEADER.size:]
                       for c in cut if len(c) >= HEADER.size]
            longer = [HEADER.pack(len(frame) - HEADER.size + n, message.number, 0) + frame[HEADER.size:] + bytes(n)
                      for n in (1, 2, 3, 4, 8)]
            agree(codec, protocol, message.senders[0], [*cut, *shorter, *longer])


@pytest.mark.parametrize("sender", SIDES)
@pytest.mark.parametrize("protocol", [CHAT, DEVICE], ids=lambda p: p.name)
def test_changed_streams(protocol: Protocol, sender: str, codec: Codec) -> None:
    rng = random.Random(f"{protocol.name} {sender}")
    streams = []
    for _ in range(MUTATIONS):
        frames = b"".join(some_frame(rng, protocol, sender) for _ in range(rng.choice((1, 1, 1, 2, 3))))
        streams.append(mutate(rng, frames))
    seen = agree(codec, protocol, sender, streams)
    assert all(seen.count(status) > 50 for status in ("complete", "partial", "malformed", "too_large"))


@pytest.mark.parametrize("protocol", [CHAT, DEVICE], ids=lambda p: p.name)
def test_headers_alone(protocol: Protocol, codec: Codec) -> None:
    """A length that no message of the number has is refused before the payload comes."""
    for sender in SIDES:
        headers = [HEADER.pack(length, m.number, 0) for m in protocol.messages.values()
                   for length in range(max(0, m.least - 1), m.least + 2)]
        headers += [HEADER.pack(m.most + more, m.number, 0) for m in protocol.messages.values() for more in (0, 1)]
        assert {"partial", "malformed", "too_large"} <= set(agree(codec, protocol, sender, headers))


def test_counts_and_lengths_that_lie(codec: Codec) -> None:
    counts = [struct.pack("<I", count) for count in (1, 1 << 30, 1 << 31, (1 << 32) - 1)]
    streams = [HEADER.pack(size, number, 0) + bytes(16) for size in (1 << 31, (1 << 32) - 1, CHAT.max_message + 1)
               for number in (1, 2, 10, 500)]
    streams += [HEADER.pack(49, 2, 0) + bytes(45) + count for count in counts]  # generate up to its ids
    assert set(agree(codec, CHAT, "client", streams)) == {"too_large", "malformed"}
    lists = DEVICE.encode("open", magic=0, version=0, secret="", numbers=[], opcode_mask=[], memories=[])
    for count in (1, 1 << 29, 1 << 30, (1 << 32) - 1):  # of opcode_mask: 8 times 2^29 is 2^32
        agree(codec, DEVICE, "client", [lists[:-8] + struct.pack("<II", count, 0)])


def test_texts(codec: Codec) -> None:
    """UTF-8 at every edge: the verdict is Python's, and what fit_text leaves can be sent."""
    texts = [bytes([a, b]) for a in range(256) for b in range(256)]
    texts += [bytes([a, b, c]) for a in range(0xDF, 0xF1) for b in EDGES for c in EDGES]
    texts += [bytes([a, b, c, d]) for a in range(0xEF, 0xF7) for b in EDGES for c in EDGES for d in EDGES]
    texts += [b"", b"a" * 65535, b"a" * 65536, "ä".encode() * 32768, b"a" * 65534 + "ä".encode(), b"\xff" * 70000]
    for text, (status, fitted) in zip(texts, codec("text", "client", texts), strict=True):
        try:
            text.decode("utf-8")
            valid = len(text) <= 65535
        except UnicodeDecodeError:
            valid = False
        assert status == ("complete" if valid else "malformed"), text[:9].hex()
        fitted.decode("utf-8")
        if valid:
            assert fitted == text
        else:  # a byte for a byte, and at the limit no half sequence
            assert len(fitted) == len(text) <= 65535 or 65532 <= len(fitted) <= 65535


@pytest.mark.parametrize("name", ["wire", "chat_protocol", "device_protocol"])
def test_a_header_stands_alone(name: str, compiler: str, repository: Path, tmp_path: Path) -> None:
    """Artifacts get copies of these three files."""
    (tmp_path / "dlavm").mkdir()
    for copied in ("wire", "chat_protocol", "device_protocol"):
        shutil.copy(repository / f"clib/include/dlavm/{copied}.hpp", tmp_path / "dlavm")
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "dlavm/{name}.hpp"\n')
    run = subprocess.run([compiler, *STRICT, "-fsyntax-only", f"-I{tmp_path}", str(source)], capture_output=True,
                         text=True)
    assert run.returncode == 0, run.stderr
