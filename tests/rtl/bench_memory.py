"""cocotb: the memory fabric between random clients and channels that stall, in both spaces, with errors, and reset."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np

from tests.rtl.axi import Channel, Cycle, Space
from tests.rtl.drive import start

READERS, WRITERS, BEAT, UNIT = 3, 2, 32, 16
ROW_UNITS, PORT_BYTES = (int(x) for x in os.environ.get("MEMORY_ROW", "2x16").split("x"))
COUNTS = {"rd": READERS, "wt": 1, "wr": WRITERS, **dict.fromkeys(("ar", "r", "aw", "w", "b"), 3)}
BASES, CAPACITIES = (0, 0x8_0000_0000), (0x8000, 0x4000)
Rng = np.random.Generator


@dataclass
class Reader:
    """Asks for what `requests` lists and keeps the bytes that come, with the mark of an error."""

    index: int
    requests: deque[tuple[int, int]]
    rng: Rng
    calm: float
    prefix: str = "rd"
    beat: int = BEAT
    asked: deque[int] = field(default_factory=deque)  # units
    beats: list[bytes] = field(default_factory=list)
    results: list[tuple[bytes, bool]] = field(default_factory=list)
    error: bool = False

    def step(self, cycle: Cycle) -> None:
        i, p = self.index, self.prefix
        if cycle.fired(f"{p}_req", i):
            self.asked.append(self.requests.popleft()[1])
        if cycle.fired(p, i):
            self._take(cycle)
        offered = cycle.get(f"{p}_req_valid_i", i) and not cycle.fired(f"{p}_req", i)
        valid = bool(self.requests) and (offered or self.rng.random() < self.calm)
        cycle.set(f"{p}_req_valid_i", i, int(valid))
        if valid:
            cycle.set(f"{p}_req_addr_i", i, self.requests[0][0])
            cycle.set(f"{p}_req_units_i", i, self.requests[0][1])
        cycle.set(f"{p}_ready_i", i, int(self.rng.random() < self.calm))

    def _take(self, cycle: Cycle) -> None:
        self.beats.append(cycle.get(f"{self.prefix}_data_o", self.index).to_bytes(self.beat, "little"))
        self.error |= bool(cycle.get(f"{self.prefix}_error_o", self.index))
        done = len(self.beats) * self.beat >= self.asked[0] * UNIT
        assert cycle.get(f"{self.prefix}_last_o", self.index) == done
        if done:
            self.results.append((b"".join(self.beats)[:self.asked.popleft() * UNIT], self.error))
            self.beats, self.error = [], False


@dataclass
class Writer:
    """Writes (address, bytes, strobes); counts errors."""

    index: int
    requests: deque[tuple[int, bytes, bytes]]
    rng: Rng
    calm: float
    beats: deque[tuple[int, int]] = field(default_factory=deque)
    errors: int = 0
    idle: bool = False

    def step(self, cycle: Cycle) -> None:
        i = self.index
        if cycle.fired("wr_req", i):
            self._beats(*self.requests.popleft()[1:])
        if cycle.fired("wr", i):
            self.beats.popleft()
        self.errors += cycle.get("wr_error_o", i)
        self.idle = bool(cycle.get("wr_idle_o", i)) and not self.requests and not self.beats
        offered = cycle.get("wr_req_valid_i", i) and not cycle.fired("wr_req", i)
        valid = bool(self.requests) and (offered or self.rng.random() < self.calm)
        cycle.set("wr_req_valid_i", i, int(valid))
        if valid:
            cycle.set("wr_req_addr_i", i, self.requests[0][0])
            cycle.set("wr_req_units_i", i, len(self.requests[0][1]) // UNIT)
        valid = bool(self.beats) and (bool(cycle.get("wr_valid_i", i)) or self.rng.random() < self.calm)
        cycle.set("wr_valid_i", i, int(valid))
        if valid:
            cycle.set("wr_data_i", i, self.beats[0][0])
            cycle.set("wr_strb_i", i, self.beats[0][1])

    def _beats(self, data: bytes, strobes: bytes) -> None:
        for at in range(0, len(data), BEAT):
            # Behind the end stands junk, marked to be written: the port must not.
            piece, marks = data[at:at + BEAT].ljust(BEAT, b"\xee"), strobes[at:at + BEAT].ljust(BEAT, b"\x01")
            mask = sum(1 << b for b, mark in enumerate(marks) if mark)
            self.beats.append((int.from_bytes(piece, "little"), mask))


def channels(rng: Rng, calm: float, latency: int = 10) -> tuple[list[Channel], list[Space]]:
    sizes = (CAPACITIES[0] // 2, CAPACITIES[0] // 2, CAPACITIES[1])
    made = [Channel(i, bytearray(rng.bytes(size)), PORT_BYTES, rng, latency, calm) for i, size in enumerate(sizes)]
    return made, [Space(BASES[0], made[:2], stripe=UNIT), Space(BASES[1], made[2:])]


def random_range(rng: Rng, low: int, high: int) -> tuple[int, int]:
    """Address and units within [low, high) of a space."""
    units = int(rng.integers(1, 6)) if rng.random() < 0.7 else int(rng.integers(1, 200))
    units = min(units, (high - low) // UNIT)
    return low + UNIT * int(rng.integers(0, (high - low) // UNIT - units + 1)), units


async def until(cycle: Cycle, agents: list[Any], over: Any, limit: int = 200_000) -> None:
    """Steps until `over()`; a bound keeps a bench that hangs from running for ever."""
    for _ in range(limit):
        if over():
            return
        await cycle.step(agents)
    raise AssertionError("the fabric does not finish")


def reads(rng: Rng, count: int) -> deque[tuple[int, int]]:
    made: deque[tuple[int, int]] = deque()
    for _ in range(count):
        space = int(rng.integers(0, 2))
        address, units = random_range(rng, 0, CAPACITIES[space])
        made.append((BASES[space] + address, units))
    return made


def expected(spaces: list[Space], address: int, units: int) -> bytes:
    space = next(s for s in spaces if 0 <= address - s.base < s.capacity)
    at = address - space.base
    return bytes(space.read()[at:at + units * UNIT])


async def read_all(dut: Any, cycle: Cycle, seed: int, calm: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    made, spaces = channels(rng, calm)
    readers = [Reader(i, reads(rng, count), rng, calm) for i in range(READERS)]
    readers.append(Reader(0, reads(rng, count), rng, calm, "wt", ROW_UNITS * UNIT))
    wanted = [[expected(spaces, *request) for request in reader.requests] for reader in readers]
    await until(cycle, [*made, *readers], lambda: all(len(r.results) == count for r in readers))
    for reader, values in zip(readers, wanted, strict=True):
        assert reader.results == [(value, False) for value in values]


@cocotb.test()
async def reads_of_all_clients(dut: Any) -> None:
    await start(dut)
    cycle = Cycle(dut, COUNTS)
    for seed, calm in enumerate((1.0, 0.5, 0.2)):
        await read_all(dut, cycle, seed, calm, 15)


@cocotb.test()
async def writes_then_reads(dut: Any) -> None:
    """Writers with regions of their own, rows with holes; what they leave is exactly what their strobes say."""
    await start(dut)
    cycle = Cycle(dut, COUNTS)
    for seed, calm in enumerate((1.0, 0.5, 0.2), start=10):
        rng = np.random.default_rng(seed)
        made, spaces = channels(rng, calm)
        image = [space.read() for space in spaces]
        writers = [Writer(i, deque(), rng, calm) for i in range(WRITERS)]
        for _ in range(10):
            for i, writer in enumerate(writers):
                s = int(rng.integers(0, 2))
                half = CAPACITIES[s] // 2
                address, units = random_range(rng, i * half, (i + 1) * half)
                data = rng.bytes(units * UNIT)
                strobes = bytes((rng.random(units * UNIT) < 0.8).astype(np.uint8).tolist())
                writer.requests.append((BASES[s] + address, data, strobes))
                for b, mark in enumerate(strobes):
                    if mark:
                        image[s][address + b] = data[b]
        await until(cycle, [*made, *writers], lambda: all(w.idle for w in writers))  # noqa: B023
        assert [space.read() for space in spaces] == image
        assert all(w.errors == 0 for w in writers)


@cocotb.test()
async def a_read_behind_an_acknowledged_write(dut: Any) -> None:
    await start(dut)
    cycle = Cycle(dut, COUNTS)
    rng = np.random.default_rng(20)
    made, _ = channels(rng, 0.6)
    for _ in range(12):
        address, units = random_range(rng, 0, CAPACITIES[0])
        data = rng.bytes(units * UNIT)
        writer = Writer(0, deque([(address, data, b"\x01" * len(data))]), rng, 0.7)
        await until(cycle, [*made, writer], lambda: writer.idle)  # noqa: B023
        reader = Reader(2, deque([(address, units)]), rng, 0.7)
        await until(cycle, [*made, reader], lambda: reader.results)  # noqa: B023
        assert reader.results == [(data, False)]


@cocotb.test()
async def errors(dut: Any) -> None:
    """Outside of every space, across the end of one, and a channel that answers with an error."""
    await start(dut)
    cycle = Cycle(dut, COUNTS)
    rng = np.random.default_rng(30)
    made, spaces = channels(rng, 0.8)
    made[1].bad = range(0x400, 0x410)  # unit 129 of the first space
    cases = [(0, 4, False), (CAPACITIES[0], 1, True), (CAPACITIES[0] - 16, 2, True), (0x100, 40, False),
             (BASES[1] + CAPACITIES[1] - 16, 1, False), (0xFF_FFFF_FFF0, 3, True), (128 * 16, 1, False),
             (129 * 16, 1, True), (0x200, 300, True), (0x40, 2, False)]
    reader = Reader(1, deque((a, u) for a, u, _ in cases), rng, 0.8)
    await until(cycle, [*made, reader], lambda: len(reader.results) == len(cases))
    for (address, units, bad), (data, error) in zip(cases, reader.results, strict=True):
        # A row is good or bad as a whole: the neighbour of a bad unit in its row is not told from it.
        assert error == bad or (address == 128 * 16 and error), f"{units} units at {address:#x}"
        assert error or data == expected(spaces, address, units)
    image = [space.read() for space in spaces]
    for address, units in ((CAPACITIES[0] - 16, 2), (0xFF_FFFF_FFF0, 3)):
        writer = Writer(1, deque([(address, bytes(16 * units), b"\x01" * 16 * units)]), rng, 0.8)
        await until(cycle, [*made, writer], lambda: writer.idle)  # noqa: B023
        assert writer.errors == 1
    assert [space.read() for space in spaces] == image
    writer = Writer(1, deque([(129 * 16, bytes(16), b"\x01" * 16)]), rng, 0.8)
    await until(cycle, [*made, writer], lambda: writer.idle)
    assert writer.errors == 1


@cocotb.test()
async def one_beat_a_cycle(dut: Any) -> None:
    """Steady state: a long read and a long write move a client's beat in nearly every cycle, from the first to the last
    and, without what begins and ends them, in the second half."""
    await start(dut)
    cycle = Cycle(dut, COUNTS)
    rng = np.random.default_rng(40)
    made, _ = channels(rng, 1.0, latency=20)

    async def read(beats: int) -> int:
        reader, begin = Reader(0, deque([(0, beats * BEAT // UNIT)]), rng, 1.0), cycle.number
        await until(cycle, [*made, reader], lambda: reader.results)
        return cycle.number - begin

    async def write(beats: int) -> int:
        writer, begin = Writer(0, deque([(0, bytes(beats * BEAT), b"\x01" * beats * BEAT)]), rng, 1.0), cycle.number
        await until(cycle, [*made, writer], lambda: writer.idle)
        return cycle.number - begin

    beats = CAPACITIES[0] // BEAT
    # The last chunk leaves when all of it is there: its 16 rows, each as many beats of AXI as a channel has of a row.
    drain = 16 * (ROW_UNITS * UNIT // (2 * PORT_BYTES) - 1)
    for move, most in ((read, beats + 60), (write, beats + 60 + drain)):
        half, whole = await move(beats // 2), await move(beats)
        dut._log.info(f"{move.__name__}: {half} and {whole} cycles for {beats // 2} and {beats} beats")
        assert whole < most, f"{whole} cycles for {beats} beats"
        assert whole - half < beats // 2 + 4, f"{whole - half} cycles for {beats // 2} beats more"


@cocotb.test()
async def reset_in_the_middle(dut: Any) -> None:
    for seed in range(50, 53):
        await start(dut)
        cycle = Cycle(dut, COUNTS)
        rng = np.random.default_rng(seed)
        made, _ = channels(rng, 0.5)
        data = rng.bytes(0x1000)
        agents = [*made, Reader(0, reads(rng, 30), rng, 0.5), Writer(0, deque([(0, data, b"\x01" * 0x1000)]), rng, 0.5)]
        for _ in range(int(rng.integers(20, 200))):
            await cycle.step(agents)
        await start(dut)
        await read_all(dut, Cycle(dut, COUNTS), seed, 0.5, 20)
