"""cocotb: whole commands on the vector engine; memory is compared with the numpy reference byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.vector import VectorEngine
from dlavm.target import load_target
from dlavm.target.isa import Instr, encode_program
from dlavm.target.tables import activation_table
from tests.ops import programs
from tests.rtl.vector_clients import Memory
from tests.rtl.drive import reset, start

SPEC = load_target("v3", "nano")
HEADER = 2
VECTOR = [m for m in programs.MAKERS if SPEC.commands[m.__name__.upper()].engine == "vector"]
TABLES = ["silu", "gelu", "tanh", "relu"]
LIMIT = 400_000  # cycles of a command
Fields = dict[str, int]


class Bench:
    """The engine, its memory and the reference's, which hold the same bytes before every command."""

    def __init__(self, dut: Any, seed: int, stall: float) -> None:
        self.dut, self.rng = dut, np.random.default_rng(seed)
        data = np.zeros(programs.USED, dtype=np.uint8)
        data[: programs.TABLE] = programs.random_halves(self.rng, programs.TABLE // 2).view(np.uint8)
        data[programs.INDEX : programs.INDEX + programs.INDICES.nbytes] = programs.INDICES.view(np.uint8)
        self.reference = FlatMemory(SPEC)
        self.expected = self.reference.bytes(0, programs.USED)
        self.expected[:] = data
        self.meaning = VectorEngine(SPEC, self.reference)
        self.memory = Memory(dut, data, seed, stall)
        self.tables = [activation_table(name) for name in TABLES]
        self.errors = {value: name for name, value in SPEC.enums["error"].items()}

    async def begin(self) -> None:
        await start(self.dut)
        cocotb.start_soon(self.memory.run())
        await self.load_tables()

    async def load_tables(self) -> None:
        dut = self.dut
        dut.table_write_i.value = 1
        for slot, table in enumerate(self.tables):
            pairs = np.ascontiguousarray(table[:, ::-1]).view(np.uint64).ravel()
            for index, pair in enumerate(pairs.tolist()):
                dut.table_slot_i.value, dut.table_index_i.value, dut.table_pair_i.value = slot, index, pair
                await RisingEdge(dut.clk_i)
        dut.table_write_i.value = 0

    def words(self, op: str, fields: Fields) -> list[int]:
        return encode_program(SPEC, [Instr(op, dict(fields))])[HEADER:]

    async def launch(self, op: str, words: list[int]) -> None:
        dut = self.dut
        dut.cmd_opcode_i.value = SPEC.commands[op].opcode
        dut.cmd_words_i.value = sum(word << (32 * i) for i, word in enumerate(words))
        dut.cmd_valid_i.value = 1
        await RisingEdge(dut.clk_i)
        while dut.cmd_ready_o.value == 0:
            await RisingEdge(dut.clk_i)
        dut.cmd_valid_i.value = 0

    async def finish(self) -> str:
        """The error that the command ended with, "" if none; what it has written is acknowledged by then."""
        dut = self.dut
        for _ in range(LIMIT):
            await RisingEdge(dut.clk_i)
            if dut.done_o.value == 1 or dut.error_o.value == 1:
                assert dut.wr_idle_i.value == 1
                assert dut.done_o.value != dut.error_o.value
                return self.errors[dut.error_code_o.value.to_unsigned()] if dut.error_o.value == 1 else ""
        raise AssertionError(f"no end after {LIMIT} cycles")

    def expect(self, op: str, fields: Fields) -> str:
        arguments = (fields, self.tables) if op == "ACT" else (fields,)
        every = {f.name: 0 for f in SPEC.commands[op].fields}
        fields = {**every, **fields}
        arguments = (fields, self.tables) if op == "ACT" else (fields,)
        return str(getattr(self.meaning, op.lower())(*arguments))

    def compare(self, what: str) -> None:
        different = np.flatnonzero(self.expected != self.memory.data)
        if different.size:
            at = int(different[0]) & ~1
            pair = [int(x[at : at + 2].view(np.uint16)[0]) for x in (self.expected, self.memory.data)]
            raise AssertionError(
                f"{what}: {different.size} bytes differ, first at 0x{at:x}: want {pair[0]:04x}, got {pair[1]:04x}")

    async def check(self, op: str, fields: Fields) -> str:
        """Runs a command on both and compares; returns its error."""
        await self.launch(op, self.words(op, fields))
        got, want = await self.finish(), self.expect(op, fields)
        assert got == want, f"{op} {fields}: want {want!r}, got {got!r}"
        self.compare(f"{op} {fields}")
        return got


def in_place(fields: Fields, rng: np.random.Generator) -> Fields:
    """The same command with its destination over a source that may be written over."""
    names = ["src"] + (["b"] if fields.get("fn", 2) < 2 and "b" in fields else [])
    source = str(rng.choice(names))
    return {**fields, **{source + part: fields["dst" + part] for part in ("", "_b", "_so", "_si") if "dst" + part in fields}}


async def random_commands(dut: Any, seed: int, stall: float, rounds: int) -> None:
    bench = Bench(dut, seed, stall)
    await bench.begin()
    for _ in range(rounds):
        for make in VECTOR:
            op, fields = make.__name__.upper(), make(SPEC, bench.rng)
            if SPEC.commands[op].in_place and bench.rng.random() < 0.4:
                fields = in_place(fields, bench.rng)
            bench.memory.stall = stall if bench.rng.random() < 0.7 else 0.0
            await bench.check(op, fields)


@cocotb.test()
async def without_stalls(dut: Any) -> None:
    await random_commands(dut, 1, 0.0, 6)


@cocotb.test()
async def with_stalls(dut: Any) -> None:
    await random_commands(dut, 2, 0.4, 6)


Maker = Callable[..., Fields]
