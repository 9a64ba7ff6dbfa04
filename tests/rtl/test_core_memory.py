"""The core behind memory of the board's timing and of others: bytes never change, cycles do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.rtl import build
from dlavm.rtl.model import library
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.target import load_target
from dlavm.target.isa import Instr, encode_program
from tests.ops.programs import PROGRAM, READ, USED, WRITE, Case, random_case
from tests.ops.test_engines import start

NANO = load_target("v3", "nano")
ROW = 32  # bytes of a beat row
missing = build.missing_tools(("verilator",))
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

TIMINGS = {
    "the board's": "",
    "slow rows": "rcd_read=30 rcd_write=20 rp=30 ras=60 rrd_s=10 rrd_l=20 faw=80",
    "much refresh": "refresh_interval=150 refresh_clocks=60",
    "refresh by bank": "refresh_interval=55 refresh_clocks=36 refresh_banks=1 refresh_postponed=8",
    "one burst at a time": "reads=1 writes=1 window=1 batch=1",
    "a faster clock": "clocks=7 cycles=3 burst_bytes=16 burst_clocks=2 ccd_s=2 ccd_l=5",
    "a slower clock": "clocks=2 cycles=5 request=0 response=0 cl=0 cwl=0",
    "long bursts": "burst_bytes=64 burst_clocks=4 ccd_s=4 ccd_l=6",
}


@pytest.fixture(scope="module")
def path() -> Path:
    return library(NANO)


@pytest.fixture
def core(path: Path) -> Iterator[NativeDevice]:
    with NativeDevice(NANO, f"rtl:{path}") as device:
        device.set_option("max_cycles", 5_000_000)
        yield device


def after(device: Any, case: Case) -> np.ndarray[Any, Any]:
    """The bytes that a program leaves."""
    start(device, NANO, case)
    device.run()
    return np.frombuffer(device.mem_read(0, USED), np.uint8)


@pytest.mark.parametrize("name", TIMINGS)
def test_random_programs(core: NativeDevice, name: str) -> None:
    """With and without stalls; the timing is changed between programs of one core."""
    core.set_option("timing", TIMINGS[name])
    for seed in range(300, 304):
        case = random_case(NANO, seed, commands=10)
        core.set_option("stalls", (0, 300)[seed % 2])
        core.set_option("seed", seed)
        different = np.flatnonzero(after(ReferenceDevice(NANO), case) != after(core, case))
        assert different.size == 0, f"{name}, seed {seed}: the first of {different.size} bytes at 0x{different[0]:x}"


def copies(rows: int, count: int, source: int = READ, target: int = WRITE) -> Case:
    """`count` times the same copy of beat rows."""
    copy = Instr("COPY", {"src": source // 16, "src_so": 0, "src_si": 0, "dst": target // 16, "dst_so": 0, "dst_si": 0,
                          "rows_o": 1, "rows_i": 1, "dim": rows * ROW // 2})  # fmt: skip
    words = encode_program(NANO, [*[copy] * count, Instr("END")])
    memory = np.zeros(USED, np.uint8)
    memory[READ:READ + 8192] = np.arange(8192, dtype=np.uint32).astype(np.uint8)
    memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
    return Case(memory, words)


def cycles(core: NativeDevice, case: Case, **options: str) -> int:
    for option, value in options.items():
        core.set_option(option, value)
    assert np.array_equal(after(ReferenceDevice(NANO), case), after(core, case))
    return core.counters().cycles


def test_the_cycles_are_those_of_the_memory(core: NativeDevice) -> None:
    """The program is fetched, then 32 rows are read, then written: three ways there and back that nothing hides."""
    still, rows = "request={0} response={0} refresh_interval=100000", "burst_clocks={0} ccd_s={0} ccd_l={0}"
    short = copies(rows=32, count=1)
    near, far = (cycles(core, short, timing=still.format(clocks)) for clocks in (0, 100))
    assert 3 * 200 <= far - near <= 3 * 200 + 10
    long = copies(rows=250, count=4)
    fast, slow = (cycles(core, long, timing=f"{still.format(0)} {rows.format(clocks)}") for clocks in (1, 4))
    assert slow >= 4 * 250 * 4 > fast >= 4 * 250
    refreshed = cycles(core, long, timing="request=0 response=0 refresh_interval=200 refresh_clocks=100")
    assert refreshed - fast >= refreshed // 200 * 90


def test_the_same_run_takes_the_same_cycles(path: Path) -> None:
    seen = []
    for _ in range(2):
        with NativeDevice(NANO, f"rtl:{path}") as core:
            seen.append([cycles(core, copies(64, 3)), cycles(core, copies(16, 2), latency="9"),
                         cycles(core, copies(64, 3), latency="board")])  # fmt: skip
    assert seen[0] == seen[1]


def test_a_change_in_the_middle_of_a_run(core: NativeDevice) -> None:
    """What memory owes comes; the next run is as any other."""
    case = copies(rows=256, count=60)
    for cut in range(6):
        start(core, NANO, case)
        core.set_option("max_cycles", 1)  # and what a piece of a run is longer
        with pytest.raises(DeviceError, match="did not finish"):
            core.run()
        core.set_option("latency", ("board", "3")[cut % 2])
        core.set_option("timing", ("", "cl=20", "window=1")[cut % 3])
        core.set_option("max_cycles", 5_000_000)
        core.run()
        got = np.frombuffer(core.mem_read(0, USED), np.uint8)
        assert np.array_equal(got, after(ReferenceDevice(NANO), case)), f"change {cut}"


@pytest.mark.parametrize(("text", "message"), [
    ("cl", "expected name=value with a field of a memory timing, got cl"), ("speed=1", "got speed=1"),
    ("cl=x", "cl: expected 0..100000, got cl=x"), ("cl=-1", "cl: expected"), ("window=0", "window: expected 1..1000"),
    ("interleave=3", "interleave: expected a divisor of groups"), ("cl=1 cl=", "cl: expected 0..100000, got cl="),
])  # fmt: skip
def test_a_timing_that_is_none(core: NativeDevice, text: str, message: str) -> None:
    with pytest.raises(DeviceError, match=f"option timing: .*{message}"):
        core.set_option("timing", text)
    with pytest.raises(DeviceError, match="option latency: expected 0..100000, got 'boards'"):
        core.set_option("latency", "boards")
