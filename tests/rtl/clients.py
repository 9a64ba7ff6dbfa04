"""Memory behind an engine's read and write clients: a numpy array, with random waits on every handshake."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from cocotb.triggers import RisingEdge

Bytes = npt.NDArray[np.uint8]
UNIT = 16  # bytes; addresses and sizes of requests count these


@dataclass
class Waits:
    """Chances that a side of a handshake is not there in a cycle."""

    request: float = 0.0  # the memory takes no request
    read: float = 0.0  # a beat is not there
    write: float = 0.0  # the memory takes no beat
    latency: int = 1  # cycles from a request to its first beat at the earliest


@dataclass
class Reader:
    """A read client's requests and the beats that are still to be delivered: client `index` of the ports `prefix`,
    whose beats have `beat` bytes."""

    prefix: str
    index: int
    beat: int
    beats: deque[tuple[int, int, int]] = field(default_factory=deque)  # cycle from which on, data, last
    valid: bool = False


@dataclass
class Writer:
    requests: deque[list[int]] = field(default_factory=deque)  # address, units left
    unacknowledged: deque[int] = field(default_factory=deque)  # cycles at which writes are acknowledged


class Clients:
    """Serves the read clients and `wr_*` of an engine, cycle by cycle.

    `readers`: prefix of ports -> (clients that are packed in them, units of a beat). `units`: of a beat of `wr_*`.
    Clients are numbered over all of them. `data` is the memory from address 0. `fail` (client, beat number) makes one
    beat an error.
    """

    def __init__(
        self, dut: Any, data: Bytes, units: int, readers: dict[str, tuple[int, int]], rng: np.random.Generator
    ) -> None:
        self.dut, self.data, self.beat, self.rng = dut, data, UNIT * units, rng
        self.waits = Waits()
        self.readers = [Reader(p, i, UNIT * width) for p, (n, width) in readers.items() for i in range(n)]
        self.cycle = 0
        self.read_beats, self.read_requests = [0] * len(self.readers), [0] * len(self.readers)
        self.fail: tuple[int, int] | None = None
        self.written = np.zeros(len(data), bool)
        self.writer = Writer()
        self.request_ready = [False] * len(self.readers)
        self.write_ready, self.write_request_ready = False, False
        self.last: dict[str, int] = {}

    def forget(self) -> None:
        """After a reset: nothing is outstanding."""
        self.readers = [Reader(r.prefix, r.index, r.beat) for r in self.readers]
        self.writer = Writer()
        self.read_beats = [0] * len(self.readers)

    async def serve(self) -> None:
        """Runs until it is cancelled."""
        self._drive()
        while True:
            await RisingEdge(self.dut.clk_i)
            self.cycle += 1
            if self.dut.rst_i.value == 1:
                self.forget()
            else:
                self._sample()
            self._drive()

    def _set(self, name: str, value: int) -> None:
        """Writes a port where that changes it: a write costs far more than a comparison."""
        if self.last.get(name) != value:
            self.last[name] = value
            getattr(self.dut, name).value = value

    def _chance(self, wait: float) -> bool:
        return wait == 0 or self.rng.random() >= wait

    def _sample(self) -> None:
        """What the edge has just transferred."""
        dut = self.dut
        for c, reader in enumerate(self.readers):
            if reader.valid and self._get(reader, "ready_o") & 1:
                reader.beats.popleft()
                reader.valid = False
                self.read_beats[c] += 1
        for c, reader in enumerate(self.readers):
            if self.request_ready[c] and self._get(reader, "req_valid_o") & 1:
                self._request(c)
        if self.write_ready and dut.wr_valid_o.value == 1:
            self._write()
        if self.write_request_ready and dut.wr_req_valid_o.value == 1:
            address, units = dut.wr_req_addr_o.value.to_unsigned(), dut.wr_req_units_o.value.to_unsigned()
            assert address % UNIT == 0
            assert units >= 1
            self.writer.requests.append([address, units])

    def _request(self, client: int) -> None:
        reader = self.readers[client]
        address = self._get(reader, "req_addr_o", 40) & (1 << 40) - 1
        units = self._get(reader, "req_units_o", 24) & (1 << 24) - 1
        assert address % UNIT == 0
        assert units >= 1
        self.read_requests[client] += 1
        reader.beats.extend(self._beats(address, units, reader.beat))

    def _get(self, reader: Reader, name: str, bits: int = 1) -> int:
        """A port of the client; what others of its prefix have is above it."""
        return int(getattr(self.dut, f"{reader.prefix}_{name}").value) >> bits * reader.index

    def _beats(self, address: int, units: int, beat: int) -> Iterator[tuple[int, int, int]]:
        start = self.cycle + self.waits.latency
        assert address + units * UNIT <= len(self.data), f"read of 0x{address:x}, {units} units"
        for at in range(0, units * UNIT, beat):
            want = min(beat, units * UNIT - at)
            junk = self.rng.bytes(beat - want)
            word = self.data[address + at : address + at + want].tobytes() + junk
            yield start, int.from_bytes(word, "little"), int(at + beat >= units * UNIT)

    def _write(self) -> None:
        assert self.writer.requests, "data before its request"
        request = self.writer.requests[0]
        data = self.dut.wr_data_o.value.to_unsigned().to_bytes(self.beat, "little")
        strobe = self.dut.wr_strb_o.value.to_unsigned()
        for i in range(self.beat):
            if strobe >> i & 1:
                assert i < request[1] * UNIT, "a byte past the request"
                self.data[request[0] + i] = data[i]
                self.written[request[0] + i] = True
        request[0] += self.beat
        request[1] -= self.beat // UNIT
        if request[1] <= 0:
            self.writer.requests.popleft()
            self.writer.unacknowledged.append(self.cycle + int(self.rng.integers(1, 12)))

    def _drive(self) -> None:
        waits = self.waits
        ports: dict[str, int] = {}
        for c, reader in enumerate(self.readers):
            if reader.beats and not reader.valid:
                reader.valid = reader.beats[0][0] <= self.cycle and self._chance(waits.read)
            _, data, last = reader.beats[0] if reader.valid else (0, 0, 0)
            self.request_ready[c] = len(reader.beats) < 4096 and self._chance(waits.request)
            fails = reader.valid and self.fail == (c, self.read_beats[c])
            for name, bits, value in (("valid_i", 1, reader.valid), ("data_i", 8 * reader.beat, data),
                                      ("last_i", 1, last), ("error_i", 1, fails),
                                      ("req_ready_i", 1, self.request_ready[c])):  # fmt: skip
                port = f"{reader.prefix}_{name}"
                ports[port] = ports.get(port, 0) | int(value) << bits * reader.index
        for port, word in ports.items():
            if hasattr(self.dut, port):  # an engine need not look at everything
                self._set(port, word)
        self.write_ready = bool(self.writer.requests) and self._chance(waits.write)
        self.write_request_ready = len(self.writer.requests) < 4 and self._chance(waits.request)
        acknowledged = self.writer.unacknowledged
        while acknowledged and acknowledged[0] <= self.cycle:
            acknowledged.popleft()
        self._set("wr_ready_i", int(self.write_ready))
        self._set("wr_req_ready_i", int(self.write_request_ready))
        self._set("wr_idle_i", int(not acknowledged and not self.writer.requests))
