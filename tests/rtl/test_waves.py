"""Waves of the Verilated core: the file, its window and its signals; what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dlavm.rtl import build
from dlavm.rtl.model import library
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target import load_target
from tests.ops.programs import random_case
from tests.rtl.test_control_flow import check_same

NANO = load_target("v3", "nano")
HEADER, HIERARCHY = 0, 6  # types of blocks
missing = build.missing_tools(("verilator",))
needs_verilator = pytest.mark.skipif(missing is not None, reason=str(missing))


def lz4(block: bytes) -> bytes:
    """What a block of LZ4 holds."""
    out, at = bytearray(), 0

    def length(value: int) -> int:
        nonlocal at
        if value == 15:
            while True:
                at += 1
                value += block[at - 1]
                if block[at - 1] != 255:
                    break
        return value

    while at < len(block):
        token = block[at]
        at += 1
        count = length(token >> 4)
        out += block[at:at + count]
        at += count
        if at == len(block):
            break
        offset = block[at] | block[at + 1] << 8
        at += 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-offset])
    return bytes(out)


def blocks(path: Path) -> dict[int, bytes]:
    """The blocks of an FST file by type, the last of each: a byte of type, eight of length that count themselves."""
    data, at, found = path.read_bytes(), 0, dict[int, bytes]()
    while at < len(data):
        size = struct.unpack_from(">Q", data, at + 1)[0]
        found[data[at]] = data[at + 9:at + 1 + size]
        at += 1 + size
    assert at == len(data)
    return found


def times(path: Path) -> tuple[int, int]:
    """First and last time in the header."""
    return struct.unpack_from(">QQ", blocks(path)[HEADER])  # type: ignore[return-value]


def hierarchy(path: Path) -> bytes:
    content = blocks(path)[HIERARCHY]
    plain = lz4(content[8:])
    assert len(plain) == struct.unpack_from(">Q", content)[0]
    return plain


@pytest.fixture(scope="module")
def tracing() -> Path:
    return library(NANO, waves=True)


@pytest.mark.slow
@needs_verilator
def test_a_window_of_cycles(tracing: Path, tmp_path: Path) -> None:
    """The run is what it is without waves; ten units of time are a cycle."""
    file = tmp_path / "waves.fst"
    with NativeDevice(NANO, f"rtl:{tracing}?trace={file}&cycles=300:800") as core:
        check_same(core, random_case(NANO, 1, 3), "with waves")
        assert core.counters().cycles > 800
    assert file.read_bytes()[:9] == bytes([HEADER]) + struct.pack(">Q", 329)  # what an FST file begins with
    assert times(file) == (3000, 7995)
    names = hierarchy(file)
    for name in (b"clk_i", b"busy_o", b"m_ar_valid_o", b"m_w_data_o", b"s_aw_addr_i", b"u_front_end", b"u_matrix"):
        assert name in names
    small = file.stat().st_size
    with NativeDevice(NANO, f"rtl:{tracing}?trace={file}&cycles=300:310") as core:
        check_same(core, random_case(NANO, 1, 3), "a shorter window")
    assert times(file) == (3000, 3095) and file.stat().st_size < small


@pytest.mark.slow
@needs_verilator
def test_a_window_that_never_comes(tracing: Path, tmp_path: Path) -> None:
    """The file is whole where the device is closed before the window ends; before it begins, with the state of then."""
    for cycles, last in (("100000000:100000001", 2000), ("10:100000000", 1000)):
        file = tmp_path / f"{last}.fst"
        with NativeDevice(NANO, f"rtl:{tracing}?trace={file}&cycles={cycles}") as core:
            check_same(core, random_case(NANO, 2, 1), cycles)
        assert b"busy_o" in hierarchy(file)
        assert times(file)[1] > last


@pytest.mark.slow
@needs_verilator
@pytest.mark.parametrize(("rest", "code", "message"), [
    ("?trace=/proc/none/w.fst&cycles=0:9", "system", "/proc/none/w.fst: cannot be written"),
    ("?trace=", "bad_argument", "expected .trace=FILE&cycles=A:B"),
    ("?trace=&cycles=1:2", "bad_argument", "expected .trace=FILE&cycles=A:B"),
    ("?trace=w", "bad_argument", "expected .trace=FILE&cycles=A:B"),
    *((f"?trace=w&cycles={text}", "bad_argument", "A below B")
      for text in ("5:5", "5", ":", "1:", ":1:", "-1:5", "1:2:3", "")),
])  # fmt: skip
def test_bad_urls(rest: str, code: str, message: str, tracing: Path, tmp_path: Path,
                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError, match=message) as error:
        NativeDevice(NANO, f"rtl:{tracing}{rest}")
    assert error.value.code == code
    assert not list(tmp_path.iterdir())


@needs_verilator
def test_a_library_without_waves(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="the library was built without waves, got trace=.*w.fst"):
        NativeDevice(NANO, f"rtl:{library(NANO)}?trace={tmp_path / 'w.fst'}&cycles=0:9")
