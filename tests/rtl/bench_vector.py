"""cocotb: whole commands on the vector engine; memory is compared with the numpy reference byte for byte.

RTL_VIRTUAL: virtual lanes of a reduction, where the bench was built with fewer than 128.
"""

from __future__ import annotations

import os
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from dlavm.sim.reference import numerics
from dlavm.sim.reference.memory import FlatMemory
from dlavm.sim.reference.vector import VectorEngine
from dlavm.target import load_target
from dlavm.target.isa import Instr, encode_program
from dlavm.target.tables import SEGMENTS, activation_table
from tests.ops import programs
from tests.rtl.drive import reset, start
from tests.rtl.vector_clients import Memory

SPEC = load_target("v3", "nano")
HEADER = 2
NO_FN = 3
VECTOR = [m for m in programs.MAKERS if SPEC.commands[m.__name__.upper()].engine == "vector"]
TABLES = ["silu", "gelu", "tanh", "relu"]
ROUNDS = 12
LIMIT = 400_000  # cycles of a command
numerics.LANES = int(os.environ.get("RTL_VIRTUAL", "128"))
Fields = dict[str, int]


class Bench:
    """The engine, its memory and the reference's, which hold the same bytes before every command."""

    def __init__(self, dut: Any, seed: int, stall: float = 0.0) -> None:
        self.dut, self.rng = dut, np.random.default_rng(seed)
        data = np.zeros(programs.USED, dtype=np.uint8)
        data[: programs.TABLE] = programs.random_halves(self.rng, programs.TABLE // 2).view(np.uint8)
        data[programs.INDEX : programs.INDEX + programs.INDICES.nbytes] = programs.INDICES.view(np.uint8)
        self.reference = FlatMemory(SPEC)
        self.expected = self.reference.bytes(0, programs.USED)
        self.expected[:] = data
        self.meaning = VectorEngine(SPEC, self.reference)
        self.memory = Memory(dut, data, seed, stall)
        self.forget_tables()
        self.errors = {value: name for name, value in SPEC.enums["error"].items()}

    async def begin(self, slots: int = 0) -> None:
        """Starts the clock and the memory, fills the first slots of the activation tables."""
        await start(self.dut)
        cocotb.start_soon(self.memory.run())
        for slot in range(slots):
            await self.load_table(slot)

    async def load_table(self, slot: int) -> None:
        dut, table = self.dut, activation_table(TABLES[slot])
        dut.table_write_i.value, dut.table_slot_i.value = 1, slot
        pairs = np.ascontiguousarray(table[:, ::-1]).view(np.uint64).ravel()  # the base in the high half
        for index, pair in enumerate(pairs.tolist()):
            dut.table_index_i.value, dut.table_pair_i.value = index, pair
            await RisingEdge(dut.clk_i)
        dut.table_write_i.value = 0
        self.tables[slot] = table

    def forget_tables(self) -> None:
        self.tables = [np.zeros((SEGMENTS, 2), dtype=np.float32) for _ in TABLES]

    def words(self, op: str, fields: Fields) -> list[int]:
        """The payload; an `fn` that is none goes in too, which the encoder would refuse."""
        fn = fields.get("fn", 0)
        legal = {**fields, "fn": 0} if fn == NO_FN else fields
        words = encode_program(SPEC, [Instr(op, dict(legal))])[HEADER:]
        if fn == NO_FN:
            field = next(f for f in SPEC.commands[op].fields if f.name == "fn")
            words[field.word] |= fn << field.lsb
        return words

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
    parts = [part for part in ("", "_b", "_so", "_si") if "dst" + part in fields]
    return {**fields, **{source + part: fields["dst" + part] for part in parts}}


def apart(fields: Fields) -> Fields:
    """The command with its reciprocals in a region of their own: results that overlap are undefined."""
    moved = {"recip": fields["recip"] + (programs.CACHE - programs.WRITE) // 16} if "recip" in fields else {}
    return {**fields, **moved}


def seen(op: str, fields: Fields, moved: bool) -> set[tuple[str, Any]]:
    """What of a command the random ones must reach: flags, forms, odd places, in place or not."""
    found: set[tuple[str, Any]] = {(op, "in place" if moved else "apart")}
    for name in ("norm", "use_beta", "use_slopes", "form", "fn", "renormalize", "act_slot"):
        if name in fields:
            found.add((op, f"{name} {fields[name]}"))
    if op == "ROPE":
        found.add((op, "halves at a unit" if fields["rot"] % 16 == 0 else "halves across units"))
        found |= {(op, "tail")} if fields["rot"] < fields["dim"] else set()
    if op == "SOFTMAX":
        last = min(fields["visible"] + fields["rows_o"] - 1, fields["width"])
        found |= {(op, "front")} if 0 < fields["window"] <= last - 32 else set()
        found |= {(op, "back")} if fields["visible"] < fields["width"] else set()
    return found


GOALS = {
    *(("NORM", f"{name} {v}") for name in ("norm", "use_beta") for v in (0, 1)),
    *(("SOFTMAX", what) for what in ("use_slopes 0", "use_slopes 1", "front", "back")),
    *(("ROPE", what) for what in ("form 0", "form 1", "halves at a unit", "halves across units", "tail")),
    *(("ACT", f"act_slot {v}") for v in range(4)),
    *(("ELTWISE", f"fn {v}") for v in range(3)),
    *(("TOPK", f"renormalize {v}") for v in (0, 1)),
    *((m.__name__.upper(), "apart") for m in VECTOR),
    *((name, "in place") for name, command in SPEC.commands.items() if command.engine == "vector" and command.in_place),
}


@cocotb.test()
async def random_commands(dut: Any) -> None:
    """Random shapes, strides and flags, the clients stalled or not; every goal is reached."""
    bench, reached = Bench(dut, 1), set[tuple[str, Any]]()
    await bench.begin(len(TABLES))
    for _ in range(ROUNDS):
        for make in VECTOR:
            op, fields = make.__name__.upper(), apart(make(SPEC, bench.rng))
            moved = bool(SPEC.commands[op].in_place) and bench.rng.random() < 0.4
            fields = in_place(fields, bench.rng) if moved else fields
            bench.memory.stall = float(bench.rng.choice([0.0, 0.2, 0.6]))
            assert await bench.check(op, fields) == ""
            reached |= seen(op, fields, moved)
    assert reached >= GOALS, f"not reached: {sorted(GOALS - reached)}"


def of(op: str, rng: np.random.Generator, **changed: int) -> Fields:
    """A random command with some fields set."""
    make = next(m for m in VECTOR if m.__name__.upper() == op)
    return {**apart(make(SPEC, rng)), **changed}


WRONG: dict[str, Fields] = {
    "ROPE": {"rot": 3}, "ELTWISE": {"fn": NO_FN}, "PERMUTE": {"limit": 0}, "SOFTMAX": {"visible": 0}}


@cocotb.test()
async def empty_commands(dut: Any) -> None:
    """Zero rows or elements: nothing is written, whatever else is wrong."""
    bench = Bench(dut, 3)
    await bench.begin()
    for make in VECTOR:
        op = make.__name__.upper()
        names = {f.name for f in SPEC.commands[op].fields}
        for name in ("rows_o", "rows_i", "batch", "dim", "n", "k"):
            if name in names:
                assert await bench.check(op, of(op, bench.rng, **{**WRONG.get(op, {}), name: 0})) == ""
    assert bench.memory.bytes_read == bench.memory.bytes_written == 0


@cocotb.test()
async def refused_commands(dut: Any) -> None:
    """Fields out of range, indices past the limit: the error of the reference, and nothing is written."""
    bench = Bench(dut, 4)
    await bench.begin()
    cases: list[tuple[str, Fields]] = [
        ("SOFTMAX", {"visible": 0}), ("SOFTMAX", {"width": 0}), ("ELTWISE", {"fn": NO_FN}), ("TOPK", {"n": 5, "k": 6}),
        ("ROPE", {"dim": 64, "rot": 3}), ("ROPE", {"dim": 64, "rot": 66}), ("ROPE", {"dim": 1, "rot": 2})]
    for op, changed in cases:
        assert await bench.check(op, of(op, bench.rng, **changed)) == "field_range"
    for stall in (0.0, 0.5):
        bench.memory.stall = stall
        for place in (0, 7, 130, 299):  # the only index that is too large
            index = bench.rng.integers(0, 255, 300).astype(np.uint32)
            index[place] = bench.rng.choice([255, 256, 1 << 20, 0xFFFFFFFF])
            for memory in (bench.expected, bench.memory.data):
                memory[programs.INDEX : programs.INDEX + 1200] = index.view(np.uint8)
            fields = of("PERMUTE", bench.rng, dim=300, limit=255, index=programs.INDEX // 16, rows_o=1, rows_i=1)
            assert await bench.check("PERMUTE", fields) == "gather_index"
            assert await bench.check("PERMUTE", {**fields, "dim": place}) == ""
    written = bench.memory.bytes_written
    for op, name in (("NORM", "rows_o"), ("NORM", "rows_i"), ("ACT", "dim"), ("ROPE", "rot"), ("SOFTMAX", "window"),
                     ("SOFTMAX", "batch"), ("TOPK", "n"), ("TOPK", "k"), ("ARGMAX", "n"), ("PERMUTE", "limit"),
                     ("PERMUTE", "rows_i"), ("ELTWISE", "dim")):
        field = next(f for f in SPEC.commands[op].fields if f.name == name)
        words = bench.words(op, of(op, bench.rng))
        words[field.word] = field.limit + 1  # as a scalar register may bring it
        await bench.launch(op, words)
        assert await bench.finish() == "field_range", (op, name)
    assert bench.memory.bytes_written == written


@cocotb.test()
async def long_rows(dut: Any) -> None:
    """Rows of many strips."""
    bench = Bench(dut, 5)
    await bench.begin()
    rows = {"rows_o": 1, "rows_i": 1, "src": 0, "dst": programs.WRITE // 16}
    for op, changed in (
        ("NORM", {"dim": 4097, "norm": 0}), ("NORM", {"dim": 2500, "norm": 1, "use_beta": 1}),
        ("SOFTMAX", {"width": 3000, "visible": 2900, "window": 0, "use_slopes": 0, "batch": 1}),
        ("SOFTMAX", {"width": 3000, "visible": 2700, "window": 1111, "use_slopes": 1, "batch": 1}),
        ("ROPE", {"dim": 1500, "rot": 1404, "form": 0}), ("ROPE", {"dim": 1500, "rot": 1404, "form": 1}),
        ("ACT", {"dim": 3333}), ("ELTWISE", {"dim": 3333, "fn": 0, "b": 4096}),
        ("ARGMAX", {"n": 9000}), ("TOPK", {"n": 2000, "k": 3, "renormalize": 0}),
    ):
        shape = {name: v for name, v in rows.items() if name in {f.name for f in SPEC.commands[op].fields}}
        if op in ("ARGMAX", "TOPK"):
            del shape["rows_i" if "rows_i" in shape else "src"]
        fixed = {name: 64 for name in ("gamma", "beta", "table") if name in {f.name for f in SPEC.commands[op].fields}}
        assert await bench.check(op, of(op, bench.rng, **{**shape, **fixed, **changed, "src": 1024})) == ""


@cocotb.test()
async def ties(dut: Any) -> None:
    """ARGMAX and TOPK among equal values, zeros of both signs and what stands for infinity; k up to n."""
    bench = Bench(dut, 6)
    await bench.begin()
    for kind in range(4):
        few = np.array([[0x8000, 0], [0x3C00, 0xBC00], [0x7C00, 0x7BFF], [0xFC00, 0xFBFF]], np.uint16)[kind]
        for memory in (bench.expected, bench.memory.data):
            memory[:4096] = np.random.default_rng(kind).choice(few, 2048).view(np.uint8)
        for n, k in ((1, 1), (9, 9), (140, 7)):
            assert await bench.check("ARGMAX", of("ARGMAX", bench.rng, src=0, src_so=20, rows_o=3, n=n)) == ""
            fields = of("TOPK", bench.rng, src=0, src_so=20, rows_o=2, n=n, k=k, ids=programs.WRITE // 16,
                        weights=programs.CACHE // 16, renormalize=kind & 1)
            assert await bench.check("TOPK", fields) == ""


@cocotb.test()
async def errors_of_memory(dut: Any) -> None:
    """A failed read or write ends the command with `bus`; the next one is well."""
    bench = Bench(dut, 7)
    await bench.begin()
    for make in VECTOR:
        op = make.__name__.upper()
        for write in (False, True):
            fields, count = apart(make(SPEC, bench.rng)), [0]

            def third(_address: int, _count: int, write_: bool, wrong: bool = write, count: list[int] = count) -> bool:
                count[0] += write_ == wrong
                return write_ == wrong and count[0] in (1, 3)

            bench.memory.bad, bench.memory.stall = third, 0.2
            await bench.launch(op, bench.words(op, fields))
            assert await bench.finish() == "bus", (op, write)
            bench.memory.bad = lambda *_: False
            bench.expected[:] = bench.memory.data
            assert await bench.check(op, apart(make(SPEC, bench.rng))) == ""


@cocotb.test()
async def reset_in_the_middle(dut: Any) -> None:
    """A reset at any time leaves an engine that works; its tables are forgotten."""
    bench = Bench(dut, 8)
    await bench.begin(2)
    for make in [*VECTOR, *VECTOR]:
        op = make.__name__.upper()
        bench.memory.stall = 0.3
        await bench.launch(op, bench.words(op, apart(make(SPEC, bench.rng))))
        for _ in range(int(bench.rng.integers(5, 400))):
            await RisingEdge(dut.clk_i)
            if dut.done_o.value == 1:
                break
        await reset(dut)
        bench.expected[:] = bench.memory.data
        bench.forget_tables()
        assert await bench.check("ACT", of("ACT", bench.rng, act_slot=1)) == ""
        assert await bench.check(op, apart(make(SPEC, bench.rng))) == ""


def softmax(rng: np.random.Generator, batch: int, outer: int, inner: int, width: int, **changed: int) -> Fields:
    """A softmax over rows that lie one behind the other, whose last rows see all of the width."""
    row = -(-width // 8)
    steps = {"_si": row, "_so": inner * row, "_b": outer * inner * row}
    shape = {f"{name}{part}": step for name in ("src", "dst") for part, step in steps.items()}
    counts = {"batch": batch, "rows_o": outer, "rows_i": inner, "width": width, "visible": max(1, width + 1 - outer)}
    fixed = {"src": 64, "dst": programs.WRITE // 16, "recip": programs.CACHE // 16, "use_slopes": 0, "window": 0}
    return of("SOFTMAX", rng, **{**shape, **counts, **fixed, **changed})


@cocotb.test()
async def rows_in_turns(dut: Any) -> None:
    """Groups of all sizes: more rows than a group has, and what is left of them; rows of less than a chunk, of a share
    of a strip, of many strips. Rows of a softmax that see one position more each, the same ones, a window, none."""
    bench = Bench(dut, 10)
    await bench.begin(1)
    for width, stall in ((5, 0.0), (300, 0.4)):
        bench.memory.stall = stall
        for batch, outer, inner, changed in (
            (2, 15, 1, {}), (1, 11, 1, {"visible": 3}), (2, 3, 1, {"window": 33}), (11, 1, 1, {"window": 40}),
            (1, 2, 7, {"window": 2}), (2, 2, 3, {"use_slopes": 1, "slopes": 16}),
        ):
            assert await bench.check("SOFTMAX", softmax(bench.rng, batch, outer, inner, width, **changed)) == ""
    for dim, stall in ((8, 0.0), (136, 0.0), (264, 0.4)):
        bench.memory.stall = stall
        for outer, inner in ((15, 1), (1, 11)):
            for op, changed in (
                ("NORM", {"norm": 0, "use_beta": 0}), ("NORM", {"norm": 1, "use_beta": 1}), ("ACT", {"act_slot": 0}),
                ("ROPE", {"form": 0, "rot": dim // 4 * 2}), ("ROPE", {"form": 1, "rot": dim}), ("ELTWISE", {"fn": 0}),
            ):
                assert await bench.check(op, dense(op, bench.rng, outer, inner, dim, **changed)) == ""


SPEEDS: dict[str, tuple[str, Fields]] = {
    "NORM rms": ("NORM", {"norm": 0, "use_beta": 0}),
    "NORM layer, beta": ("NORM", {"norm": 1, "use_beta": 1}),
    "SOFTMAX": ("SOFTMAX", {"use_slopes": 0, "window": 0}),
    "SOFTMAX, slopes": ("SOFTMAX", {"use_slopes": 1, "window": 0}),
    "ROPE half": ("ROPE", {"form": 0}),
    "ROPE interleaved": ("ROPE", {"form": 1}),
    "ACT": ("ACT", {}),
    "ELTWISE add, mul": ("ELTWISE", {"fn": 0}),
    "ELTWISE scale": ("ELTWISE", {"fn": 2}),
    "ARGMAX": ("ARGMAX", {}),
    "PERMUTE": ("PERMUTE", {}),
    "TOPK, k = 2": ("TOPK", {"k": 2, "renormalize": 1}),
}


def dense(op: str, rng: np.random.Generator, outer: int, inner: int, dim: int, **changed: int) -> Fields:
    """A command over outer * inner rows that lie one behind the other."""
    names = {f.name for f in SPEC.commands[op].fields}
    rows = outer if "rows_i" in names else outer * inner
    step = dim // 8 * (inner if "rows_i" in names else 1)
    shape = {"rows_o": rows, "rows_i": inner, "batch": 1, "limit": 300, "table_so": dim // 8, "src": 0}
    shape |= {name: dim for name in ("dim", "n", "width", "visible", "rot")}
    shape |= {name + part: size for name in ("src", "dst", "b") for part, size in (("_si", dim // 8), ("_so", step))}
    shape |= {name: 64 for name in ("table", "gamma", "beta")} | {"b": 4096, "index": programs.INDEX // 16}
    shape |= {"dst": programs.WRITE // 16, "ids": programs.WRITE // 16, "weights": programs.CACHE // 16}
    return of(op, rng, **{**{name: value for name, value in shape.items() if name in names}, **changed})


@cocotb.test()
async def speed(dut: Any) -> None:
    """Elements a cycle of two rows of 2048 and of sixteen rows of 128 elements, memory without stalls."""
    bench = Bench(dut, 9)
    await bench.begin()
    index = (np.arange(2048, dtype=np.uint32) % 300).view(np.uint8)
    for memory in (bench.expected, bench.memory.data):
        memory[programs.INDEX : programs.INDEX + index.nbytes] = index
    for title, (op, changed) in SPEEDS.items():
        rates = []
        for outer, inner, dim in ((2, 1, 2048), (4, 4, 128)):
            before = bench.memory.cycles
            assert await bench.check(op, dense(op, bench.rng, outer, inner, dim, **changed)) == ""
            rates.append(outer * inner * dim / (bench.memory.cycles - before))
        dut._log.info(f"{title}: " + " ".join(f"{rate:.2f}" for rate in rates))
