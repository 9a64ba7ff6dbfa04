"""cocotb: the memory fabric and its C++ timing (dlavm/fabric_timing.h) side by side, every port in every cycle."""

from __future__ import annotations

import sysconfig
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
import pytest

import dlavm
from dlavm.sim.memory_channel import MemoryChannel
from dlavm.target import load_board
from tests.rtl.axi import Cycle
from tests.rtl.bench_memory import BASES, BEAT, CAPACITIES, COUNTS, READERS, UNIT, WRITERS, Reader, Rng, Writer, until
from tests.rtl.drive import start
from tests.rtl.fabric import Fabric

# The simulator's interpreter finds the sources by path, without the hook of an editable install that knows the library.
dlavm.__path__.append(str(Path(sysconfig.get_path("platlib")) / "dlavm"))

SPACE_CHANNELS = (2, 1)
BOARD = load_board("nano")
OF_BOARD = [m.timing.channel(BOARD.clock_mhz, m.port_bytes) for m in BOARD.memories.values()]
CHANGES: list[dict[str, int]] = [
    {}, {"reads": 1, "writes": 1, "window": 1}, {"clocks": 7, "cycles": 3, "burst_clocks": 2, "ccd_s": 2, "ccd_l": 5},
    {"clocks": 2, "cycles": 5, "request": 0, "response": 0}, {"refresh_interval": 150, "refresh_clocks": 60},
    {"refresh_interval": 55, "refresh_clocks": 36, "refresh_banks": 1, "refresh_postponed": 8, "rcd_read": 20},
]  # fmt: skip


@dataclass
class TimedChannel:
    """A channel of the bench that answers when the model of memory says so; it has no bytes."""

    index: int
    model: MemoryChannel
    owed: deque[int] = field(default_factory=deque)  # beats of writes whose address is here

    def step(self, cycle: Cycle) -> None:
        c, edge = self.index, cycle.number - 1
        if cycle.fired("ar", c):
            self.model.read(edge, cycle.get("ar_addr_o", c), cycle.get("ar_len_o", c) + 1)
        if cycle.fired("r", c):
            self.model.take_beat()
        if cycle.fired("w", c):
            self.model.write_beat(edge)
            self.owed[0] -= 1
            if not self.owed[0]:
                self.owed.popleft()
        if cycle.fired("aw", c):
            self.model.write(edge, cycle.get("aw_addr_o", c), cycle.get("aw_len_o", c) + 1)
            self.owed.append(cycle.get("aw_len_o", c) + 1)
        if cycle.fired("b", c):
            self.model.take_response()
        shown = {"ar_ready": self.model.read_room(edge + 1), "aw_ready": self.model.write_room(edge + 1),
                 "w_ready": int(bool(self.owed)), "r_valid": self.model.beat_ready(edge + 1),
                 "b_valid": self.model.response_ready(edge + 1)}  # fmt: skip
        for name, value in shown.items():
            cycle.set(f"{name}_i", c, value)


class Twin:
    """The C++ fabric: each cycle it must show what the RTL shows, and sees what the clients do there."""

    def __init__(self, timings: list[dict[str, int]]) -> None:
        spaces = [(base, capacity, channels, timing)
                  for base, capacity, channels, timing in zip(BASES, CAPACITIES, SPACE_CHANNELS, timings, strict=True)]
        self._call = Fabric(READERS, WRITERS, BEAT // UNIT, spaces)
        self.moved = 0

    def step(self, cycle: Cycle) -> None:
        for i in range(READERS):
            self._same(cycle, i, {"rd_req_ready_o": "read_room", "rd_valid_o": "beat"})
            if cycle.get("rd_valid_o", i):
                self._same(cycle, i, {"rd_last_o": "last"})
        for i in range(WRITERS):
            self._same(cycle, i, {"wr_req_ready_o": "write_room", "wr_ready_o": "beat_room", "wr_idle_o": "idle"})
        for prefix, count, asks, passes in (("rd", READERS, "read", "take"), ("wr", WRITERS, "write", "put")):
            for i in range(count):
                if cycle.get(f"{prefix}_req_valid_i", i):
                    self._call(asks, i, cycle.get(f"{prefix}_req_addr_i", i), cycle.get(f"{prefix}_req_units_i", i))
                if cycle.get("rd_ready_i" if prefix == "rd" else "wr_valid_i", i):
                    self._call(passes, i)
                self.moved += cycle.fired(prefix, i)
        self._call("step")

    def _same(self, cycle: Cycle, client: int, ports: dict[str, str]) -> None:
        for port, name in ports.items():
            want, got = cycle.get(port, client), self._call(name, client)
            assert got == want, f"edge {cycle.number}: {port}[{client}] is {want}, the model says {got}"


def requests(rng: Rng, count: int, most: int) -> list[tuple[int, int]]:
    """Addresses and units: streams and jumps in both spaces, some outside of both."""
    made = []
    for _ in range(count):
        space, units = int(rng.integers(0, 2)), int(rng.integers(1, (5, most)[int(rng.random() < 0.4)]))
        address = BASES[space] + UNIT * int(rng.integers(0, CAPACITIES[space] // UNIT - most))
        made.append((address if rng.random() < 0.95 else BASES[1] - 64, units))
    return made


async def side_by_side(dut: Any, seed: int, calm: float, change: dict[str, int]) -> int:
    """Runs random clients to their end. Returns the beats that passed."""
    await start(dut)
    cycle = Cycle(dut, COUNTS)
    rng = np.random.default_rng(seed)
    timings = [timing | change for timing in OF_BOARD]
    channels = [TimedChannel(i, MemoryChannel(timings[space])) for i, space in enumerate((0, 0, 1))]
    readers = [Reader(i, deque(requests(rng, 12, 200)), rng, calm) for i in range(READERS)]
    writes = [[(address, bytes(units * UNIT), b"\x01" * (units * UNIT)) for address, units in requests(rng, 12, 90)]
              for _ in range(WRITERS)]  # fmt: skip
    writers = [Writer(i, deque(writes[i]), rng, calm) for i in range(WRITERS)]
    twin = Twin(timings)
    await until(cycle, [twin, *channels, *readers, *writers],
                lambda: all(len(r.results) == 12 for r in readers) and all(w.idle for w in writers))
    return twin.moved


@cocotb.test()
async def the_same_in_every_cycle(dut: Any) -> None:
    for seed, change in enumerate(CHANGES):
        for calm in (1.0, 0.4):
            assert await side_by_side(dut, seed, calm, change) > 500


@cocotb.test()
async def a_model_of_other_memory_differs(dut: Any) -> None:
    """What the comparison sees: one clock more on the way."""
    await start(dut)
    cycle = Cycle(dut, COUNTS)
    rng = np.random.default_rng(1)
    channels = [TimedChannel(i, MemoryChannel(OF_BOARD[space])) for i, space in enumerate((0, 0, 1))]
    reader = Reader(0, deque([(0, 40)]), rng, 1.0)
    twin = Twin([timing | {"response": timing["response"] + 1} for timing in OF_BOARD])
    with pytest.raises(AssertionError, match=r"rd_valid_o\[0\] is 1, the model says 0"):
        await until(cycle, [twin, *channels, reader], lambda: reader.results)
