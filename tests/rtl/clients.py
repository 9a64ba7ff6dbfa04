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
        # Looked up once: the engine need not have every port, and a name costs more than a value.
        self.ports: dict[str, Any] = {handle._name: handle for handle in dut}
        self.groups = {p: [c for c, reader in enumerate(self.readers) if reader.prefix == p] for p in readers}
        self.shown: dict[str, list[tuple[int, ...]]] = {}
        self.last: dict[str, int] = {}

    def forget(self) -> None:
        """After a reset: nothing is outstanding."""
        self.readers = [Reader(r.prefix, r.index, r.beat) for r in self.readers]
        self.writer = Writer()
        self.read_beats = [0] * len(self.readers)

    async def serve(self) -> None:
        """Runs until it is cancelled."""
        self._drive()
        edge, reset = RisingEdge(self.dut.clk_i), self.dut.rst_i
        while True:
            await edge
            self.cycle += 1
            if reset.value:
                self.forget()
            else:
                self._sample()
            self._drive()

    def _set(self, name: str, value: int) -> None:
        """Writes a port where that changes it: a write costs far more than a comparison."""
        if self.last.get(name) != value:
            self.last[name] = value
            self.ports[name].value = value

    def _chance(self, wait: float) -> bool:
        return wait == 0 or self.rng.random() >= wait

    def _sample(self) -> None:
        """What the edge has just transferred."""
        ports = self.ports
        for c, reader in enumerate(self.readers):
            if reader.valid and self._get(reader, "ready_o") & 1:
                reader.beats.popleft()
                reader.valid = False
                self.read_beats[c] += 1
        for c, reader in enumerate(self.readers):
            if self.request_ready[c] and self._get(reader, "req_valid_o") & 1:
                self._request(c)
        if self.write_ready and ports["wr_valid_o"].value:
            self._write()
        if self.write_request_ready and ports["wr_req_valid_o"].value:
            address, units = (ports[f"wr_req_{x}_o"].value.to_unsigned() for x in ("addr", "units"))
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
        return int(self.ports[f"{reader.prefix}_{name}"].value) >> bits * reader.index

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
        data = self.ports["wr_data_o"].value.to_unsigned().to_bytes(self.beat, "little")
        strobe = self.ports["wr_strb_o"].value.to_unsigned()
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

    def _show(self, prefix: str, bits: int, values: list[tuple[int, ...]]) -> None:
        """The ports of a prefix, of `bits` bits of data, from what each of its clients has on them."""
        for at, name in enumerate(("valid_i", "data_i", "last_i", "error_i", "req_ready_i")):
            if f"{prefix}_{name}" in self.ports:  # an engine need not look at everything
                width = bits if name == "data_i" else 1
                self._set(f"{prefix}_{name}", sum(value[at] << width * i for i, value in enumerate(values)))

    def _drive(self) -> None:
        waits = self.waits
        shown = []  # of each client, as `_show` takes it
        for c, reader in enumerate(self.readers):
            if reader.beats and not reader.valid:
                reader.valid = reader.beats[0][0] <= self.cycle and self._chance(waits.read)
            _, data, last = reader.beats[0] if reader.valid else (0, 0, 0)
            ready = self.request_ready[c] = len(reader.beats) < 4096 and self._chance(waits.request)
            fails = reader.valid and self.fail == (c, self.read_beats[c])
            shown.append((int(reader.valid), data, last, int(fails), int(ready)))
        for prefix, clients in self.groups.items():
            values = [shown[c] for c in clients]
            if self.shown.get(prefix) != values:
                self.shown[prefix] = values
                self._show(prefix, 8 * self.readers[clients[0]].beat, values)
        self.write_ready = bool(self.writer.requests) and self._chance(waits.write)
        self.write_request_ready = len(self.writer.requests) < 4 and self._chance(waits.request)
        acknowledged = self.writer.unacknowledged
        while acknowledged and acknowledged[0] <= self.cycle:
            acknowledged.popleft()
        self._set("wr_ready_i", int(self.write_ready))
        self._set("wr_req_ready_i", int(self.write_request_ready))
        self._set("wr_idle_i", int(not acknowledged and not self.writer.requests))
