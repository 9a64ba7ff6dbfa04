"""Cycle by cycle: memory behind the AXI4 masters of a bench, with random latencies, stalls and error responses.

A bench's ports are vectors over channels or clients. `Cycle` reads the outputs of a cycle and collects the inputs of
the next; agents see one channel or client each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cocotb.triggers import RisingEdge

PAGE = 4096
OKAY, SLVERR = 0, 2


class Cycle:
    """Ports of a bench by name, each a vector of equal elements; inputs keep their values until set again."""

    def __init__(self, dut: Any, counts: Mapping[str, int]) -> None:
        """`counts`: how many elements the ports of each prefix have, as in {"rd": 3, "ar": 2}."""
        self._dut = dut
        self._widths: dict[str, int] = {}
        self._handles: dict[str, Any] = {}
        for handle in dut:
            name = handle._name
            count = counts.get(name.split("_")[0])
            if count and name.endswith(("_i", "_o")):
                self._handles[name] = handle
                self._widths[name] = len(handle) // count
        self._counts = {name: counts[name.split("_")[0]] for name in self._handles}
        self._inputs = {n: [0] * self._counts[n] for n in self._handles if n.endswith("_i")}
        self._next = {name: list(values) for name, values in self._inputs.items()}
        self._outputs: dict[str, int] = {}
        self.number = 0

    def get(self, name: str, index: int) -> int:
        """An output before the last edge, or an input as it was then."""
        if name.endswith("_i"):
            return self._inputs[name][index]
        if name not in self._outputs:
            value = self._handles[name].value
            self._outputs[name] = int(value) if value.is_resolvable else 0
        width = self._widths[name]
        return self._outputs[name] >> (width * index) & ((1 << width) - 1)

    def set(self, name: str, index: int, value: int) -> None:
        self._next[name][index] = value

    def fired(self, prefix: str, index: int) -> bool:
        """Whether a handshake took place at the last edge; `prefix` has a valid and a ready, in either direction."""
        ports = ("valid_o", "ready_i") if f"{prefix}_valid_o" in self._handles else ("valid_i", "ready_o")
        return all(self.get(f"{prefix}_{port}", index) for port in ports)

    async def step(self, agents: Sequence[Any]) -> None:
        """One clock edge: the agents see what was before it; what they set counts from then on."""
        await RisingEdge(self._dut.clk_i)
        self._outputs.clear()
        self.number += 1
        for agent in agents:
            agent.step(self)
        for name, values in self._next.items():
            if values != self._inputs[name] or self.number == 1:
                width = self._widths[name]
                self._handles[name].value = sum(v << (width * i) for i, v in enumerate(values))
                self._inputs[name] = list(values)


@dataclass
class Channel:
    """One memory channel: bytes, and bursts on their way. `calm`: the chance that it does something in a cycle."""

    index: int
    data: bytearray
    port_bytes: int
    rng: np.random.Generator
    latency: int = 10
    calm: float = 1.0
    bad: range = range(0)  # addresses that answer with an error
    reads: deque[tuple[int, int]] = field(default_factory=deque)  # when, address
    addresses: deque[tuple[int, int]] = field(default_factory=deque)  # address, beats
    beats: deque[tuple[int, int, int]] = field(default_factory=deque)  # data, strobes, last
    answers: deque[tuple[int, int]] = field(default_factory=deque)  # when, response
    read_beats: int = 0
    written_beats: int = 0

    def step(self, cycle: Cycle) -> None:
        c = self.index
        if cycle.fired("ar", c):
            address, beats = self._burst(cycle, "ar")
            due = cycle.number + self.latency
            self.reads.extend((due, address + i * self.port_bytes) for i in range(beats))
        if cycle.fired("r", c):
            self.reads.popleft()
            self.read_beats += 1
        if cycle.fired("aw", c):
            self.addresses.append(self._burst(cycle, "aw"))
        if cycle.fired("w", c):
            self.beats.append((cycle.get("w_data_o", c), cycle.get("w_strb_o", c), cycle.get("w_last_o", c)))
            self.written_beats += 1
        if cycle.fired("b", c):
            self.answers.popleft()
        self._write(cycle.number)
        self._drive(cycle)

    def _burst(self, cycle: Cycle, prefix: str) -> tuple[int, int]:
        address, beats = cycle.get(f"{prefix}_addr_o", self.index), cycle.get(f"{prefix}_len_o", self.index) + 1
        assert address % self.port_bytes == 0
        assert address // PAGE == (address + beats * self.port_bytes - 1) // PAGE, "a burst crosses 4 KiB"
        assert address + beats * self.port_bytes <= len(self.data)
        return address, beats

    def _write(self, now: int) -> None:
        while self.addresses and len(self.beats) >= self.addresses[0][1]:
            address, beats = self.addresses.popleft()
            for i in range(beats):
                data, strobes, last = self.beats.popleft()
                assert last == (i == beats - 1)
                at = address + i * self.port_bytes
                for b in range(self.port_bytes):
                    if strobes >> b & 1:
                        self.data[at + b] = data >> (8 * b) & 0xFF
            self.answers.append((now + self.latency, SLVERR if address in self.bad else OKAY))

    def _drive(self, cycle: Cycle) -> None:
        c = self.index
        for prefix in ("ar", "aw", "w"):
            cycle.set(f"{prefix}_ready_i", c, int(self._acts()))
        # What is offered stays until it is taken.
        if self.reads and (self._stays(cycle, "r") or (self.reads[0][0] <= cycle.number and self._acts())):
            address = self.reads[0][1]
            word = int.from_bytes(self.data[address:address + self.port_bytes], "little")
            cycle.set("r_valid_i", c, 1)
            cycle.set("r_data_i", c, word)
            cycle.set("r_resp_i", c, SLVERR if address in self.bad else OKAY)
        else:
            cycle.set("r_valid_i", c, 0)
        if self.answers and (self._stays(cycle, "b") or (self.answers[0][0] <= cycle.number and self._acts())):
            cycle.set("b_valid_i", c, 1)
            cycle.set("b_resp_i", c, self.answers[0][1])
        else:
            cycle.set("b_valid_i", c, 0)

    def _acts(self) -> bool:
        return self.calm >= 1.0 or self.rng.random() < self.calm

    def _stays(self, cycle: Cycle, prefix: str) -> bool:
        return bool(cycle.get(f"{prefix}_valid_i", self.index)) and not cycle.get(f"{prefix}_ready_o", self.index)


@dataclass(frozen=True)
class Space:
    """A memory space: its linear bytes over some of the channels."""

    base: int
    channels: Sequence[Channel]
    stripe: int = 0  # bytes that follow each other in a channel, if not a beat

    @property
    def _stripe(self) -> int:
        return self.stripe or self.channels[0].port_bytes

    @property
    def capacity(self) -> int:
        return sum(len(c.data) for c in self.channels)

    def read(self) -> bytearray:
        """All linear bytes."""
        parts = [np.frombuffer(c.data, np.uint8).reshape(-1, self._stripe) for c in self.channels]
        return bytearray(np.stack(parts, axis=1).tobytes())

    def write(self, data: bytes) -> None:
        """Sets the first bytes, as many as there are."""
        whole = self.read()
        whole[:len(data)] = data
        rows = np.frombuffer(whole, np.uint8).reshape(-1, len(self.channels), self._stripe)
        for number, channel in enumerate(self.channels):
            channel.data[:] = rows[:, number].tobytes()
