"""cocotb: a memory behind the read and write client of an engine: random stalls, ports checked, errors on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from cocotb.triggers import RisingEdge

UNIT = 16  # bytes
QUEUE = 4  # requests that a client may have outstanding
Bytes = npt.NDArray[np.uint8]


class Memory:
    """`data` is what the engine reads and writes; `stall` the chance that a ready or a valid stays away in a cycle.

    `bad` says of a request (address, bytes, write) whether it ends with an error; its bytes are not written.
    """

    def __init__(self, dut: Any, data: Bytes, seed: int, stall: float = 0.0) -> None:
        self.data, self.stall = data, stall
        self.bad: Callable[[int, int, bool], bool] = lambda address, count, write: False
        self.bytes_read = self.bytes_written = self.cycles = 0
        self._dut, self._rng = dut, Random(seed)
        self._driven: dict[str, int] = {}
        self._beat = len(dut.rd_data_i) // 8
        self.forget()

    def forget(self) -> None:
        """Drops everything on its way, as a reset of the whole core does."""
        self._reads: deque[tuple[int, bool, bool]] = deque()  # beats: address, last, error
        self._writes: deque[tuple[int, int, bool]] = deque()  # address, units, error
        self._offset = 0
        self._pending: list[int] = []  # cycles until a write is acknowledged
        self._held: dict[str, tuple[int, ...]] = {}

    def _lucky(self) -> bool:
        return self.stall == 0 or self._rng.random() >= self.stall

    def _steady(self, name: str, taken: bool, *handles: Any) -> tuple[int, ...]:
        """The values of a port with valid set: they stay the same until they are taken."""
        values = tuple(handle.value.to_unsigned() for handle in handles)
        assert self._held.get(name, values) == values, f"{name} changed while it waited"
        if taken:
            self._held.pop(name, None)
        else:
            self._held[name] = values
        return values

    def _drive(self, name: str, value: int) -> None:
        if self._driven.get(name) != value:
            getattr(self._dut, name).value = self._driven[name] = value

    def _request(self, address: int, units: int) -> None:
        assert address % UNIT == 0 and units > 0, f"request 0x{address:x}, {units} units"

    async def run(self) -> None:
        """Serves the clients for ever."""
        dut = self._dut
        read_ready = read_valid = write_req_ready = write_ready = False
        while True:
            await RisingEdge(dut.clk_i)
            self.cycles += 1
            if dut.rst_i.value == 1:
                self.forget()
                read_ready = read_valid = write_req_ready = write_ready = False
            else:
                self._sample_reads(read_ready, read_valid)
                self._sample_writes(write_req_ready, write_ready)
            error = bool(self._pending) and self._acknowledge()
            if not (read_valid and dut.rd_ready_o.value == 0):
                read_valid = bool(self._reads) and self._lucky()
            self._drive_read(read_valid)
            read_ready = len(self._reads) < 64 and self._lucky()
            write_req_ready = len(self._writes) < QUEUE and self._lucky()
            write_ready = bool(self._writes) and self._lucky()
            self._drive("rd_req_ready_i", int(read_ready))
            self._drive("wr_req_ready_i", int(write_req_ready))
            self._drive("wr_ready_i", int(write_ready))
            self._drive("wr_error_i", int(error))
            self._drive("wr_idle_i", int(not self._writes and not self._pending))

    def _acknowledge(self) -> bool:
        """One cycle of the writes that wait for their acknowledgement; whether one of them failed."""
        self._pending = [left - 1 if left > 0 else left + 1 for left in self._pending]
        failed = any(left == -1 for left in self._pending)
        self._pending = [left for left in self._pending if left not in (0, -1)]
        return failed

    def _sample_reads(self, ready: bool, valid: bool) -> None:
        dut = self._dut
        if dut.rd_req_valid_o.value == 1:
            address, units = self._steady("rd_req", ready, dut.rd_req_addr_o, dut.rd_req_units_o)
            if ready:
                self._request(address, units)
                error = self.bad(address, units * UNIT, False)
                assert error or address + units * UNIT <= len(self.data), f"read of 0x{address:x}, {units} units"
                starts = range(address, address + units * UNIT, self._beat)
                self._reads.extend((start, start == starts[-1], error) for start in starts)
                self.bytes_read += units * UNIT
        if valid and dut.rd_ready_o.value == 1:
            self._reads.popleft()

    def _drive_read(self, valid: bool) -> None:
        self._drive("rd_valid_i", int(valid))
        if not valid:
            for name in ("rd_data_i", "rd_error_i", "rd_last_i"):
                self._drive(name, 1)
            return
        address, last, error = self._reads[0]
        block = b"" if error else self.data[address : address + self._beat].tobytes()
        self._drive("rd_data_i", int.from_bytes(block, "little"))
        self._drive("rd_last_i", int(last))
        self._drive("rd_error_i", int(error))

    def _sample_writes(self, req_ready: bool, ready: bool) -> None:
        dut = self._dut
        if dut.wr_req_valid_o.value == 1:
            address, units = self._steady("wr_req", req_ready, dut.wr_req_addr_o, dut.wr_req_units_o)
            if req_ready:
                self._request(address, units)
                self._writes.append((address, units, self.bad(address, units * UNIT, True)))
        if dut.wr_valid_o.value == 1 and self._writes:
            data, strobe = self._steady("wr", ready, dut.wr_data_o, dut.wr_strb_o)
            if ready:
                self._write(data, strobe)

    def _write(self, data: int, strobe: int) -> None:
        address, units, error = self._writes[0]
        room = min(self._beat, units * UNIT - self._offset)
        assert strobe >> room == 0, f"strobes {strobe:x} behind the {room} bytes of the request"
        start = address + self._offset
        if strobe and not error:
            mask = np.array([strobe >> i & 1 for i in range(room)], dtype=bool)
            block = np.frombuffer(data.to_bytes(self._beat, "little"), np.uint8)[:room]
            self.data[start : start + room][mask] = block[mask]
            self.bytes_written += int(mask.sum())
        self._offset += self._beat
        if self._offset >= units * UNIT:
            self._offset = 0
            self._writes.popleft()
            wait = 1 + self._rng.randrange(1, 12) if self.stall else 2
            self._pending.append(-wait if error else wait)
