"""cocotb: commands of the store engine on the memory fabric, against the reference: random shapes, stalls, errors."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.numerics import load32
from dlavm.sim.reference.store import StoreEngine
from dlavm.target import load_target
from dlavm.target.isa import Instr, payload
from dlavm.target.tables import SEGMENTS
from tests.ops import programs
from tests.rtl.axi import Channel, Cycle, Space
from tests.rtl.drive import start

SPEC = load_target("v3", "nano")
SIZE = programs.USED
CACHES = SPEC.enums["kv_format"]
ERRORS = {number: name for name, number in SPEC.enums["error"].items()}
COUNTS = {**dict.fromkeys(("ar", "r", "aw", "w", "b"), 3), **dict.fromkeys(("cmd", "done", "error", "table"), 1)}
Rng = np.random.Generator
Fields = dict[str, int]


class Bench:
    """The engine with memory behind it; `table` holds what LOAD_TABLE wrote last."""

    def __init__(self, dut: Any, rng: Rng, calm: float) -> None:
        self.cycle = Cycle(dut, COUNTS)
        halves = programs.random_halves(rng, SIZE // 2).view(np.uint8)
        sizes = (SIZE // 2, SIZE // 2, 0x8000)
        self.channels = [Channel(i, bytearray(size), 16, rng, 10, calm) for i, size in enumerate(sizes)]
        self.space = Space(0, self.channels[:2])
        self.space.write(halves.tobytes())
        self.table = np.zeros((SEGMENTS, 2), np.uint32)
        self.result = ""

    def step(self, cycle: Cycle) -> None:
        if cycle.fired("cmd", 0):
            cycle.set("cmd_valid_i", 0, 0)
        if cycle.get("table_write_o", 0):
            pair = cycle.get("table_pair_o", 0)
            self.table[cycle.get("table_index_o", 0)] = pair >> 32, pair & 0xFFFFFFFF
        if cycle.get("done_o", 0):
            self.result = "done"
        if cycle.get("error_o", 0):
            self.result = ERRORS[cycle.get("error_code_o", 0)]

    async def run(self, op: str, fields: Fields, limit: int = 20_000) -> str:
        """Executes a command; "done", or the error's name."""
        words, _ = payload(SPEC, Instr(op, fields))
        self.result = ""
        self.cycle.set("cmd_valid_i", 0, 1)
        self.cycle.set("cmd_opcode_i", 0, SPEC.commands[op].opcode)
        self.cycle.set("cmd_words_i", 0, sum(w << (32 * i) for i, w in enumerate(words)))
        for _ in range(limit):
            await self.cycle.step([*self.channels, self])
            if self.result:
                return self.result
        raise AssertionError(f"{op} {fields} does not finish")


def reference(memory: bytearray, op: str, fields: Fields) -> tuple[str, bytes]:
    """What the reference makes of a command on these bytes."""
    flat = FlatMemory(SPEC)
    flat.bytes(0, SIZE)[...] = np.frombuffer(memory, np.uint8)
    complete = {f.name: fields.get(f.name, 0) for f in SPEC.commands[op].fields}
    return getattr(StoreEngine(SPEC, flat), op.lower())(complete) or "done", flat.bytes(0, SIZE).tobytes()


def random_gather(bench: Bench, rng: Rng) -> Fields:
    """Ids of a table that is there; one of them sometimes past it."""
    fields = programs.gather(SPEC, rng)
    limit = int(rng.integers(1, 40))
    fields |= {"limit": limit, "rows_o": int(rng.integers(1, 20))}
    fields["table_so"] += int(rng.integers(0, 3))
    fields["dst_so"] = (2 * fields["dim"] + 15) // 16
    fields["dst"] = programs.WRITE // 16 + int(rng.integers(0, 100))
    span = fields["table_so"] * limit + 64
    fields["table"] = programs.READ // 16 + int(rng.integers(0, max(1, programs.REGION // 16 - span)))
    ids = rng.integers(0, limit, fields["rows_o"]).astype(np.uint32)
    if rng.random() < 0.3:
        ids[rng.integers(len(ids))] = limit
    image = bench.space.read()
    at = programs.TABLE + 16 * int(rng.integers(0, 100))
    image[at:at + ids.nbytes] = ids.tobytes()
    bench.space.write(bytes(image))
    return {**fields, "ids": at // 16}


def random_append(rng: Rng, format: int) -> Fields:
    """Into a cache of this format, past a block's end as often as not."""
    while (fields := programs.kv_append(SPEC, rng))["format"] != format:
        pass
    if rng.random() < 0.5:
        fields["pos"] = 32 * int(rng.integers(1, 5)) - int(rng.integers(1, fields["rows_o"] + 1))
    return fields


async def compare(bench: Bench, op: str, fields: Fields) -> str:
    before = bench.space.read()
    want, memory = reference(before, op, fields)
    got = await bench.run(op, fields)
    assert got == want, f"{op} {fields}: want {want}, got {got}"
    after = np.frombuffer(bytes(bench.space.read()), np.uint8)
    different = np.flatnonzero(after != np.frombuffer(memory, np.uint8))
    assert different.size == 0, f"{op} {fields}: {different.size} bytes differ, first at {different[:1]}"
    return got


@cocotb.test()
async def random_commands(dut: Any) -> None:
    seen = set()
    for seed, calm in enumerate((1.0, 0.6, 0.3)):
        rng = np.random.default_rng(seed)
        await start(dut)
        bench = Bench(dut, rng, calm)
        for _ in range(5):
            seen.add(await compare(bench, "COPY", programs.copy(SPEC, rng)))
            for number in CACHES.values():
                seen.add(await compare(bench, "KV_APPEND", random_append(rng, number)))
            seen.add(await compare(bench, "GATHER", random_gather(bench, rng)))
    assert seen == {"done", "gather_index"}


@cocotb.test()
async def tables(dut: Any) -> None:
    """All pairs in their places; exponents of all ones read as the largest finite value."""
    rng = np.random.default_rng(10)
    await start(dut)
    bench = Bench(dut, rng, 0.7)
    image = bench.space.read()
    bits = rng.integers(0, 1 << 32, SEGMENTS * 2).astype(np.uint32)
    bits[::7] |= 0x7F800000
    image[0x230:0x230 + bits.nbytes] = bits.tobytes()
    bench.space.write(bytes(image))
    assert await bench.run("LOAD_TABLE", {"act_slot": 2, "table": 0x23}) == "done"
    assert np.array_equal(bench.table, load32(bits).view(np.uint32).reshape(SEGMENTS, 2))


@cocotb.test()
async def nothing_to_do(dut: Any) -> None:
    rng = np.random.default_rng(11)
    await start(dut)
    bench = Bench(dut, rng, 1.0)
    for op, fields in (("COPY", programs.copy(SPEC, rng)), ("KV_APPEND", programs.kv_append(SPEC, rng)),
                       ("GATHER", programs.gather(SPEC, rng))):
        for name in ("rows_o", "rows_i", "dim"):
            if name in SPEC.commands[op].by_name:
                assert await compare(bench, op, {**fields, name: 0}) == "done"


@cocotb.test()
async def errors(dut: Any) -> None:
    """A table row outside of memory writes nothing; an error response stops the command, and the next one runs."""
    rng = np.random.default_rng(12)
    await start(dut)
    bench = Bench(dut, rng, 0.8)
    image = bench.space.read()
    image[programs.TABLE:programs.TABLE + 16] = np.array([0, 1, 9, 2], np.uint32).tobytes()
    bench.space.write(bytes(image))
    before = bench.space.read()
    gather = {"ids": programs.TABLE // 16, "table": 0, "table_so": SIZE // 16 // 8, "dst": programs.WRITE // 16,
              "dst_so": 8, "rows_o": 4, "dim": 64, "limit": 10}
    assert await bench.run("GATHER", gather) == "bad_address"
    assert await bench.run("GATHER", {**gather, "limit": 9}) == "gather_index"
    assert bench.space.read() == before
    copy = {"src": 0, "src_so": 4, "src_si": 0, "dst": programs.WRITE // 16, "dst_so": 4, "dst_si": 0, "rows_o": 8,
            "rows_i": 1, "dim": 32}
    bench.channels[0].bad = range(0x40, 0x50)
    assert await bench.run("COPY", copy) == "bus"
    bench.channels[0].bad = range(0)
    bench.channels[1].bad = range(programs.WRITE // 2, programs.WRITE // 2 + 0x100)
    assert await bench.run("COPY", copy) == "bus"
    bench.channels[1].bad = range(0)
    assert await compare(bench, "COPY", copy) == "done"


@cocotb.test()
async def reset_in_the_middle(dut: Any) -> None:
    for seed in range(20, 24):
        rng = np.random.default_rng(seed)
        await start(dut)
        bench = Bench(dut, rng, 0.5)
        fields = programs.copy(SPEC, rng) | {"rows_o": 5, "dim": 300}
        words, _ = payload(SPEC, Instr("COPY", fields))
        bench.cycle.set("cmd_valid_i", 0, 1)
        bench.cycle.set("cmd_opcode_i", 0, SPEC.commands["COPY"].opcode)
        bench.cycle.set("cmd_words_i", 0, sum(w << (32 * i) for i, w in enumerate(words)))
        for _ in range(int(rng.integers(10, 150))):
            await bench.cycle.step([*bench.channels, bench])
        await start(dut)
        bench = Bench(dut, rng, 0.5)
        await compare(bench, "KV_APPEND", programs.kv_append(SPEC, rng))
