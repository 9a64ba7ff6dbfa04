"""cocotb: LINEAR on matrix_engine. Set LINEAR_COMMANDS for more random commands a test."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from dlavm.formats import FORMATS
from dlavm.target.layout import KvLayout, PackedWeights, ceildiv, row_bytes
from dlavm.target.spec import ADDRESS_UNIT
from tests.ops.programs import CACHE, READ, WEIGHTS, WRITE
from tests.rtl.clients import Waits
from tests.rtl.linear import BEAT_ROWS, BOARD, MEMORY, ROW_UNITS, SPEC, UNITS, Bench, Fields, number, random_fields

COUNT = int(os.environ.get("LINEAR_COMMANDS", "8"))
SMOOTH = Waits()
ROUGH = Waits(request=0.5, read=0.4, write=0.5, latency=20)


async def bench_of(dut: Any, seed: int, waits: Waits = SMOOTH) -> Bench:
    bench = Bench(dut, seed)
    bench.clients.waits = waits
    await bench.start()
    return bench


async def random_commands(dut: Any, seed: int, count: int, waits: Waits, *forms: str) -> None:
    bench = await bench_of(dut, seed, waits)
    for _ in range(count):
        await bench.run(random_fields(bench.rng, *forms))


def packed(form: str, rows: int, k: int, n: int, **more: int) -> Fields:
    """Rows one behind the other, weights at the region's start."""
    layout = PackedWeights(MEMORY, n, k, FORMATS[form])
    src, dst = row_bytes(k) // ADDRESS_UNIT, row_bytes(n) // ADDRESS_UNIT
    fields = {"format": number(form), "rows_o": rows, "rows_i": 1, "batch": 1, "k": k, "n": n}
    fields |= {name: region // ADDRESS_UNIT for name, region in (("src", READ), ("dst", WRITE), ("wgt", WEIGHTS))}
    fields |= {"src_so": src, "dst_so": dst}
    return fields | {"wgt_tile": layout.tile_bytes // ADDRESS_UNIT} | more


def cached(form: str, rows: int, tokens: int, dim: int, **more: int) -> Fields:
    """One head."""
    k, n = (dim, tokens) if form.endswith("_k") else (tokens, dim)
    layout = KvLayout(1, ceildiv(tokens, 32) * 32, dim, "mxint8" if form.startswith("kvq") else "fp16")
    fields = packed("int4g128", rows, k, n) | {"format": number(form), "wgt": CACHE // ADDRESS_UNIT}
    return fields | {"wgt_tile": layout.block_bytes // ADDRESS_UNIT} | more


@cocotb.test()
async def int4g128(dut: Any) -> None:
    await random_commands(dut, 1, COUNT, SMOOTH, "int4g128")


@cocotb.test()
async def int4g128_rough(dut: Any) -> None:
    await random_commands(dut, 2, COUNT, ROUGH, "int4g128")


@cocotb.test()
async def keys(dut: Any) -> None:
    await random_commands(dut, 3, COUNT, SMOOTH, "kv_k")


@cocotb.test()
async def keys_rough(dut: Any) -> None:
    await random_commands(dut, 13, COUNT, ROUGH, "kv_k")


@cocotb.test()
async def values(dut: Any) -> None:
    await random_commands(dut, 4, COUNT, SMOOTH, "kv_v")


@cocotb.test()
async def values_rough(dut: Any) -> None:
    await random_commands(dut, 14, COUNT, ROUGH, "kv_v")


@cocotb.test()
async def keys_of_bytes(dut: Any) -> None:
    await random_commands(dut, 15, COUNT, SMOOTH, "kvq_k")


@cocotb.test()
async def keys_of_bytes_rough(dut: Any) -> None:
    await random_commands(dut, 16, COUNT, ROUGH, "kvq_k")


@cocotb.test()
async def values_of_bytes(dut: Any) -> None:
    await random_commands(dut, 17, COUNT, SMOOTH, "kvq_v")


@cocotb.test()
async def values_of_bytes_rough(dut: Any) -> None:
    await random_commands(dut, 18, COUNT, ROUGH, "kvq_v")


@cocotb.test()
async def caches_one_after_the_other(dut: Any) -> None:
    bench = await bench_of(dut, 19, ROUGH)
    for form in bench.rng.permutation(4 * ["kv_k", "kv_v", "kvq_k", "kvq_v"]):
        await bench.run(random_fields(bench.rng, str(form)))


@cocotb.test()
async def every_format(dut: Any) -> None:
    bench = await bench_of(dut, 5)
    for waits in (SMOOTH, ROUGH):
        bench.clients.waits = waits
        for form in FORMATS:
            await bench.run(random_fields(bench.rng, form))


@cocotb.test()
async def tiles_along_k(dut: Any) -> None:
    """Accumulators pass from command to command, of any format, and other commands between them change nothing."""
    bench = await bench_of(dut, 6)
    for form in bench.rng.choice(sorted(FORMATS), 5, replace=False):
        rows, n = int(bench.rng.integers(1, 6)), int(bench.rng.choice([7, 16, 33, 100]))
        step = PackedWeights(MEMORY, n, 1, FORMATS[str(form)]).section_k
        lengths = [step, 2 * step, int(bench.rng.integers(1, 2 * step))]
        for index, k in enumerate(lengths):
            more = {"acc_in": int(index > 0), "acc_out": int(index < 2), "use_bias": 1, "bias": READ // ADDRESS_UNIT}
            await bench.run(packed(str(form), rows, k, n, **more))
            if index == 1:
                await bench.run(random_fields(bench.rng, "int4g128", "kv_v"))
        # they are still there, and may be read again
        await bench.run(packed(str(form), rows, step, n, acc_in=1))


@cocotb.test()
async def as_much_as_the_buffers_hold(dut: Any) -> None:
    """Shapes that need the most of a buffer: many rows, many columns, pairs and tiles that are padded most."""
    bench = await bench_of(dut, 7)
    elements, accumulators = BOARD.activation_elements, BOARD.accumulators
    await bench.run(packed("int4g32", elements // 32, 7, 9))
    await bench.run(packed("int4g128", 1, elements, 3))
    for rows, n in ((1, accumulators), (accumulators // 17, 17), (accumulators // 16, 16)):
        await bench.run(packed("mxfp4", rows, 32, n, acc_out=1))
        await bench.run(packed("mxfp4", rows, 20, n, acc_in=1))
    for keys, values in (("kv_k", "kv_v"), ("kvq_k", "kvq_v")):
        await bench.run(cached(keys, elements // 64, 40, 64))
        await bench.run(cached(values, accumulators // 32, 70, 32))
        await bench.run(cached(values, 1, 40, accumulators // 2))


@cocotb.test()
async def reset_in_the_middle(dut: Any) -> None:
    """After a reset at any time the next commands are right."""
    bench = await bench_of(dut, 8, Waits(read=0.1, latency=5))
    for form in ("int4g128", "mxfp6", "int8g64z", "kv_k", "kv_v", "kvq_k", "kvq_v"):
        for _ in range(3):
            await bench.launch(random_fields(bench.rng, form))
            for _ in range(int(bench.rng.integers(1, 700))):
                await RisingEdge(dut.clk_i)
            await bench.reset()
            bench.forget()
            await bench.run(random_fields(bench.rng, str(bench.rng.choice(["int4g128", "kv_k", "kv_v", "mxfp6"]))))


@cocotb.test()
async def nothing_to_do(dut: Any) -> None:
    bench = await bench_of(dut, 9)
    for zero in ("rows_o", "rows_i", "n", "batch"):
        await bench.run(random_fields(bench.rng, "int4g128", "kv_v") | {zero: 0, "k": 0})
        assert bench.clients.read_requests == [0, 0, 0]
    await bench.run(random_fields(bench.rng, "int4g128"))


def refused() -> list[Fields]:
    """Commands that the reference refuses, each for one reason; some next to ones that it takes."""
    elements, accumulators = BOARD.activation_elements, BOARD.accumulators
    fine = packed("int4g128", 2, 64, 20)
    return [
        fine | {"k": 0},
        fine | {"acc_in": 1},  # of no shape
        fine | {"acc_out": 1, "batch": 2},
        fine | {"aux_mode": 1, "batch": 2},
        # not at a beat row; of one unit every address is
        *(fine | {name: ROW_UNITS * 7 + 1, "batch": 2} for name in ("wgt", "wgt_tile", "wgt_b") if ROW_UNITS > 1),
        packed("int4g128", elements // 32 + 1, 32, 8),
        packed("int4g128", 1, elements + 1, 8),
        packed("int4g128", 1, 1, accumulators + 1, acc_out=1),
        packed("int4g128", 4095, 1 << 23, 1 << 23) | {"rows_o": (1 << 20) - 1},
        *(cached(form, 3, 40, 64, acc_out=1) for form in ("kv_k", "kvq_k")),
        *(cached(form, 3, 40, 64, acc_in=1) for form in ("kv_v", "kvq_v")),
        *(cached(form, elements // 64 + 1, 40, 64) for form in ("kv_k", "kvq_k")),
        *(cached(form, accumulators // 32 + 1, 70, 32) for form in ("kv_v", "kvq_v")),
        *(cached(form, 1, 40, accumulators + 1) for form in ("kv_v", "kvq_v")),
    ]


@cocotb.test()
async def refusals(dut: Any) -> None:
    """The reference's error, nothing read or written, and a command after it that goes well."""
    bench = await bench_of(dut, 10)
    for fields in refused():
        assert await bench.run(fields, may_fail=True) < 10
        assert bench.errors == 1, fields
        bench.errors = 0
        assert bench.clients.read_requests == [0, 0, 0]
    await bench.run(random_fields(bench.rng, "int4g128"))
    # of accumulators of another shape
    await bench.run(packed("int4g128", 2, 64, 20, acc_out=1))
    for rows, n in ((2, 21), (1, 20), (4, 10)):
        await bench.run(packed("int4g128", rows, 64, n, acc_in=1), may_fail=True)
    assert bench.errors == 3
    await bench.run(packed("int4g128", 2, 64, 20, acc_in=1))


@cocotb.test()
async def fields_that_mean_nothing(dut: Any) -> None:
    """Numbers of no format and no mode, counts past their width: refused before anything else is looked at."""
    bench = await bench_of(dut, 11)
    fine = packed("int4g128", 2, 64, 20)
    formats = set(range(32)) - set(SPEC.enums["weight_format"].values())
    bad = [fine | {"format": form} for form in sorted(formats)] + [fine | {"aux_mode": 3}]
    widths = {"rows_o": 20, "rows_i": 12, "k": 24, "n": 24, "batch": 12}
    bad += [fine | {name: 1 << bits} for name, bits in widths.items()]
    bad += [fine | {"format": 31, "n": 0}]
    for fields in bad:
        await bench.launch(fields)
        error, _ = await bench.finish()
        assert error == "field_range", fields


@cocotb.test()
async def errors_of_the_bus(dut: Any) -> None:
    """A beat with an error, of any client, or of a write: the error once, nothing hangs, a reset and all is well."""
    bench = await bench_of(dut, 12, Waits(read=0.1, latency=5))
    more = {"use_bias": 1, "bias": READ // ADDRESS_UNIT}
    for client, beat in ((0, 0), (0, 37), (1, 1), (2, 1), (None, 0)):
        bench.clients.forget()
        bench.clients.fail = None if client is None else (client, beat)
        await bench.launch(packed("int4g128", 3, 320, 200, **more))  # of any size it has these beats
        if client is None:
            while dut.wr_valid_o.value != 1:
                await RisingEdge(dut.clk_i)
            dut.wr_error_i.value = 1
            await RisingEdge(dut.clk_i)
            dut.wr_error_i.value = 0
        error, _ = await bench.finish()
        assert error == "bus"
        bench.clients.fail = None
        for _ in range(4000):  # what was asked for is swallowed
            await RisingEdge(dut.clk_i)
            assert dut.done_o.value == 0
            assert dut.error_o.value == 0
        assert not any(reader.beats for reader in bench.clients.readers)
        await bench.reset()
        bench.forget()
        await bench.run(packed("int4g128", 3, 200, 40, **more))


@cocotb.test(skip=MEMORY.row_tile < 64)
async def cycles_of_a_beat_for_one_token(dut: Any) -> None:
    """Steady state where a unit has several blocks of the cache: as the test below, for one token."""
    bench = await bench_of(dut, 20)
    tile = MEMORY.row_tile
    # Two heads of 32 columns share a unit where a beat of dst has no more of them than half a unit (MOST_HEADS of
    # matrix_engine). Where they do not, lanes without a head set the pace, not the bytes of an MXINT8 cache.
    shared = tile // 32 >= 2 * max(1, UNITS // 4)
    for form, most in (("int4g128", 1.02), ("int8g128", 1.02)):
        one, two = (packed(form, 1, 2048, n) for n in (tile, 4 * tile))
        beats = 3 * PackedWeights(MEMORY, tile, 2048, FORMATS[form]).tile_beats / BEAT_ROWS
        await steady(bench, form, one, two, beats, most)
    for form, dim, heads, most in (("kv_k", 64, 1, 1.02), ("kv_v", 64, 1, 1.05), ("kv_v", 32, 4, 1.05),
                                   ("kvq_k", 64, 1, 1.3), ("kvq_v", 64, 1, 1.3),
                                   ("kvq_v", 32, 4, 1.3 if shared else 2)):  # fmt: skip
        cache = "mxint8" if form.startswith("kvq") else "fp16"
        sizes = [KvLayout(heads, tokens, dim, cache) for tokens in (2 * tile, 8 * tile)]
        beats = (sizes[1].bytes - sizes[0].bytes) / (16 * BEAT_ROWS * ROW_UNITS)
        one, two = (heads_of(form, layout) for layout in sizes)
        await steady(bench, f"{form}, {heads} heads of {dim}", one, two, beats, most)


def heads_of(form: str, layout: KvLayout) -> Fields:
    """A row of src for each head of a cache."""
    fields = cached(form, 1, layout.ctx, layout.dim)
    src, dst = (row_bytes(fields[name]) // ADDRESS_UNIT for name in ("k", "n"))
    return fields | {"batch": layout.heads, "wgt_b": layout.head_bytes // ADDRESS_UNIT, "src_b": src, "dst_b": dst}


async def steady(bench: Bench, what: str, one: Fields, two: Fields, beats: float, most: float) -> None:
    cycles = await bench.run(two) - await bench.run(one)
    bench.dut._log.info(f"{what}: {cycles} cycles for {beats:g} beats: {cycles / beats:.3f}")
    assert cycles <= most * beats


@cocotb.test(skip=ROW_UNITS != 2)
async def cycles_of_a_weight_beat(dut: Any) -> None:
    """Steady state: a command's cycles over its beats of weights, for one and two tokens."""
    bench = await bench_of(dut, 16)
    for form, rows, most in (("int4g128", 1, 1.02), ("int4g128", 2, 1.02), ("int4g128", 4, 2.02), ("int8g128", 2, 1.02),
                             ("mxfp4", 2, 1.02), ("mxfp6", 2, 1.35)):  # fmt: skip
        one, two = (packed(form, rows, 2048, n) for n in (16, 64))
        beats = 3 * PackedWeights(MEMORY, 16, 2048, FORMATS[form]).tile_beats
        cycles = await bench.run(two) - await bench.run(one)
        dut._log.info(f"{form}, {rows} tokens: {cycles} cycles for {beats} beats of weights: {cycles / beats:.3f}")
        assert cycles <= most * beats
    for form, cache, most in (("kv_k", "fp16", 1.3), ("kv_v", "fp16", 1.3), ("kvq_k", "mxint8", 2.2),
                              ("kvq_v", "mxint8", 2.2)):  # fmt: skip
        one, two = (cached(form, 2, tokens, 64) for tokens in (32, 128))
        beats = 3 * KvLayout(1, 32, 64, cache).bytes // 32
        cycles = await bench.run(two) - await bench.run(one)
        dut._log.info(f"{form}, 2 rows: {cycles} cycles for {beats} beats of cache: {cycles / beats:.3f}")
        assert cycles <= most * beats
