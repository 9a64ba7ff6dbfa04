"""matrix_engine and the numpy reference side by side: whole LINEAR commands, memory compared byte for byte."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from dlavm.sim.reference.matrix import MatrixEngine
from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.numerics import F32
from dlavm.target import TargetSpec, load_target
from dlavm.target.tables import ACTIVATIONS, table_bytes
from tests.ops.programs import TABLE, USED, linear, random_halves
from tests.rtl.clients import Clients

# Channels of the weights' memory, bytes of a channel's beat, beat rows of a beat of weights, units of a beat of the
# other clients, lanes that share what wide formats need.
CHANNELS, PORT_BYTES, BEAT_ROWS, UNITS, _ = (int(x) for x in os.environ.get("LINEAR_MEMORY", "2x16x1x2x1").split("x"))


def spec_of(channels: int, port_bytes: int) -> TargetSpec:
    """v3 on nano, with a weight memory of so many channels and bytes a port."""
    spec = load_target("v3", "nano")
    memory = replace(spec.space("weights"), channels=channels, port_bytes=port_bytes)
    return replace(spec, board=replace(spec.board, memories={**spec.board.memories, memory.name: memory}))


SPEC = spec_of(CHANNELS, PORT_BYTES)
BOARD, MEMORY = SPEC.board, SPEC.space("weights")
ROW_UNITS = MEMORY.beat_row // 16
OPCODE = SPEC.commands["LINEAR"].opcode
ERRORS = {v: k for k, v in SPEC.enums["error"].items()}
FORMAT_NAMES = {v: k for k, v in SPEC.enums["weight_format"].items()}
Fields = dict[str, int]


def payload(fields: Fields) -> list[int]:
    """The payload words of a LINEAR with these fields, the others zero."""
    command = SPEC.commands["LINEAR"]
    words = [0] * command.payload_words
    for field in command.fields:
        words[field.word] |= fields.get(field.name, 0) << field.lsb
    return words


def complete(fields: Fields) -> Fields:
    return {f.name: fields.get(f.name, 0) for f in SPEC.commands["LINEAR"].fields}


def random_memory(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    memory = np.zeros(USED, np.uint8)
    memory[:TABLE] = random_halves(rng, TABLE // 2).view(np.uint8)
    return memory


class Bench:
    """The engine, the reference, and one memory for each."""

    def __init__(self, dut: Any, seed: int, spec: TargetSpec = SPEC) -> None:
        self.dut, self.rng = dut, np.random.default_rng(seed)
        names = [str(name) for name in self.rng.permutation(sorted(ACTIVATIONS))[:4]]
        self.tables: list[F32] = [np.frombuffer(table_bytes(n), np.float32).reshape(-1, 2) for n in names]
        self.pairs = [[int(x) for x in np.frombuffer(table_bytes(n), np.uint64)] for n in names]
        self.memory = FlatMemory(spec)
        self.reference = MatrixEngine(spec, self.memory)
        data = random_memory(self.rng)
        self.memory.bytes(0, USED)[...] = data
        readers = {"wt": (1, BEAT_ROWS * ROW_UNITS), "rd": (2, UNITS)}
        self.clients = Clients(dut, data.copy(), UNITS, readers, self.rng)
        self.commands = self.errors = 0
        self.use_act = False

    async def start(self) -> None:
        dut = self.dut
        Clock(dut.clk_i, 2, unit="step").start()
        dut.cmd_turn_i.value = 1
        for name in ("cmd_valid_i", "cmd_drop_i", "cmd_opcode_i", "wr_error_i", "act_pair_i"):
            getattr(dut, name).value = 0
        self.set_words([0] * SPEC.commands["LINEAR"].payload_words)
        cocotb.start_soon(self.clients.serve())
        cocotb.start_soon(self._answer_tables())
        await self.reset()

    async def reset(self) -> None:
        self.dut.rst_i.value = 1
        for _ in range(3):
            await RisingEdge(self.dut.clk_i)
        self.dut.rst_i.value = 0
        await RisingEdge(self.dut.clk_i)

    def set_words(self, words: list[int]) -> None:
        for i, word in enumerate(words):
            self.dut.cmd_word_i[i].value = word

    async def _answer_tables(self) -> None:
        """Base and slope of each lane's index, a cycle later."""
        edge, slot, index = RisingEdge(self.dut.clk_i), self.dut.act_slot_o, self.dut.act_index_o
        while True:
            await edge
            if self.use_act:
                table, word = self.pairs[int(slot.value)], int(index.value)
                # a pair in memory is base, slope; the port has the base on top
                pairs = [table[word >> 11 * u & 2047] for u in range(UNITS)]
                swapped = [(p & 0xFFFFFFFF) << 32 | p >> 32 for p in pairs]
                self.dut.act_pair_i.value = sum(p << 64 * u for u, p in enumerate(swapped))

    async def launch(self, fields: Fields) -> None:
        """Shows a command whose turn has come, until the engine looks at it no more."""
        self.use_act = bool(fields.get("use_act"))
        self.set_words(payload(fields))
        self.dut.cmd_opcode_i.value = OPCODE
        self.dut.cmd_valid_i.value = 1
        await RisingEdge(self.dut.clk_i)
        cocotb.start_soon(self._show())

    async def _show(self) -> None:
        edge, ends = RisingEdge(self.dut.clk_i), (self.dut.cmd_ready_o, self.dut.rst_i, self.dut.error_o)
        while not any(end.value for end in ends):
            await edge
        self.dut.cmd_valid_i.value = 0
        self.dut.cmd_opcode_i.value = int(self.rng.integers(256))

    async def finish(self, limit: int = 200_000) -> tuple[str, int]:
        """Error name ('' if none) and cycles."""
        edge, done, failed = RisingEdge(self.dut.clk_i), self.dut.done_o, self.dut.error_o
        for cycle in range(limit):
            await edge
            if done.value:
                return "", cycle
            if failed.value:
                return ERRORS[self.dut.error_code_o.value.to_unsigned()], cycle
        raise AssertionError(f"no end after {limit} cycles")

    async def run(self, fields: Fields, may_fail: bool = False) -> int:
        """One command on both; returns the engine's cycles. An error, the same on both, counts in `errors`."""
        want = self.reference.linear(complete(fields), self.tables)
        assert may_fail or not want, f"{fields}: {want}"
        await self.launch(fields)
        got, cycles = await self.finish()
        self.commands += 1
        self.errors += want != ""
        assert got == want, f"command {self.commands} {fields}: want {want!r}, got {got!r}"
        self.compare(fields)
        return cycles

    def forget(self) -> None:
        """After a reset: both memories alike again, and no accumulators."""
        self.memory.bytes(0, USED)[...] = self.clients.data
        self.reference.reset()

    def compare(self, fields: Fields) -> None:
        wrong = np.flatnonzero(self.memory.bytes(0, USED) != self.clients.data)
        assert not wrong.size, (
            f"command {self.commands} ({FORMAT_NAMES[fields['format']]}) {fields}: "
            f"byte 0x{wrong[0]:x} and {wrong.size - 1} more differ"
        )


def number(form: str) -> int:
    return SPEC.enums["weight_format"][form]


def random_fields(rng: np.random.Generator, *forms: str) -> Fields:
    """A random LINEAR of one of these formats."""
    numbers = [number(form) for form in forms]
    while True:
        fields = linear(SPEC, rng)
        if fields["format"] in numbers:
            return fields
