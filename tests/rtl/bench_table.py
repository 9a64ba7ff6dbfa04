"""cocotb: rounding to fp16, exp, reciprocal, rsqrt and activations against the numpy reference."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from dlavm.sim.reference import numerics
from dlavm.target.tables import ACTIVATIONS, activation_table
from tests.rtl import model
from tests.rtl.bench_fp32 import CORNERS, expect, rows
from tests.rtl.drive import pipeline, reset, start, words

HALF_LATENCY, TABLE_LATENCY, ACT_LATENCY = 2, 5, 10
READERS = 8
SIGN = np.uint32(0x80000000)


def signed(bits: model.U32) -> model.U32:
    return np.concatenate([bits, bits | SIGN]).astype(np.uint32)


def boundaries() -> model.U32:
    """Of every fp16 value and of the middle above it: the fp32 value, its two neighbours on either side."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    edge = np.append(halves, 65536.0)
    points = np.concatenate([edge, (edge[1:] + edge[:-1]) / 2]).astype(np.float32).view(np.uint32).astype(np.int64)
    return np.unique((points[:, None] + np.arange(-2, 3)).clip(0)).astype(np.uint32)


@cocotb.test()
async def rounding_to_fp16(dut: Any) -> None:
    rng = np.random.default_rng(1)
    near = (rng.integers(100, 146, 600_000, dtype=np.uint32) << np.uint32(23)) | rng.integers(
        0, 2**23, 600_000, dtype=np.uint32
    )
    values = rows(signed(boundaries()), signed(CORNERS), signed(near), rng.integers(0, 2**32, 500_000, dtype=np.uint32))
    await start(dut)
    got = await pipeline(dut, {"value_i": words(values)}, "rounded_o", HALF_LATENCY, np.uint16)
    expect("rn16", got, numerics.rn16(model.finite(values)).view(np.uint16), values)


@cocotb.test()
async def exp_of_every_code(dut: Any) -> None:
    """2^t for every q of section 7 and beyond the clamp, then ties and random arguments."""
    rng = np.random.default_rng(2)
    codes = -np.arange(0, (40 << 16) + 4096, dtype=np.float64) / 65536
    ties = codes[: 1 << 17] - 2.0**-17
    wild = -np.exp2(rng.uniform(-40, 127, 100_000))
    t = rows(*(part.astype(np.float32).view(np.uint32) for part in (codes, ties, wild)), CORNERS | SIGN)
    await start(dut)
    got = await pipeline(dut, {"value_i": words(t)}, "exp_o", TABLE_LATENCY, np.uint32)
    expect("exp", got, power(model.finite(t)).view(np.uint32), t)


def power(t: model.F32) -> model.F32:
    """The reference's exp with the multiplication by log2e taken out of it."""
    q = np.maximum(np.rint(t.astype(np.float64) * 65536), numerics.EXP_MIN).astype(np.int64)
    table = numerics.unit_tables()["exp"].astype(np.int64)
    index, fraction = q >> 8 & 255, q & 255
    mantissa = table[index] + ((table[index + 1] - table[index]) * fraction >> 8)
    return np.ldexp(mantissa.astype(np.float32), ((q >> 16) - 22).astype(np.int32)).astype(np.float32)


def root_points(rng: np.random.Generator) -> model.U32:
    """Every exponent with the edges of every table interval and random mantissas; subnormals; zero and below."""
    edges = (np.arange(256)[:, None] << 15 | np.array([0, 1, 0x7FFF])).ravel()
    exponents = np.arange(256)[:, None] << 23
    parts = [
        exponents | edges[None, :],
        exponents | rng.integers(0, 2**23, (256, 1500)),
        rng.integers(0, 2**23, 20_000) >> rng.integers(0, 23, 20_000),
        np.array([0x80000000, 0xBF800000, 0xFF7FFFFF, 0x80000001]),
    ]
    return np.concatenate([part.ravel() for part in parts]).astype(np.uint32)


async def check_root(dut: Any, root: int) -> None:
    x = rows(root_points(np.random.default_rng(3 + root)), CORNERS)
    await start(dut)
    dut.root_i.value = root
    got = await pipeline(dut, {"value_i": words(x)}, "root_o", TABLE_LATENCY, np.uint32)
    function = numerics.rsqrt if root else numerics.reciprocal
    expect("rsqrt" if root else "reciprocal", got, function(model.finite(x)).view(np.uint32), x)


@cocotb.test()
async def reciprocal(dut: Any) -> None:
    await check_root(dut, 0)


@cocotb.test()
async def rsqrt(dut: Any) -> None:
    await check_root(dut, 1)


async def load(dut: Any, slot: int, name: str) -> model.F32:
    """Writes an activation table into a slot and returns it."""
    table = activation_table(name)
    pairs = np.ascontiguousarray(table[:, ::-1]).view(np.uint64).ravel()  # the base in the high half
    dut.write_i.value, dut.write_slot_i.value = 1, slot
    for index, pair in enumerate(pairs.tolist()):
        dut.write_index_i.value, dut.write_pair_i.value = index, pair
        await RisingEdge(dut.clk_i)
    dut.write_i.value = 0
    return table


@cocotb.test()
async def every_half_of_every_activation(dut: Any) -> None:
    """Two rounds over the slots, so that each is written over; the others stay."""
    halves = np.arange(65536, dtype=np.uint16).reshape(-1, READERS)
    names = [*sorted(ACTIVATIONS), "softcap(30)", "softcap(0.125)"]
    await start(dut)
    for first in (0, 4):
        tables = [await load(dut, slot, name) for slot, name in enumerate(names[first : first + 4])]
        for slot, table in enumerate(tables):
            dut.slot_i.value = slot
            got = await pipeline(dut, {"half_i": words(halves)}, "act_o", ACT_LATENCY, np.uint32)
            want = numerics.activation(numerics.load16(halves), table).view(np.uint32)
            expect(names[first + slot], got, want, halves)


@cocotb.test()
async def reset_forgets_the_tables(dut: Any) -> None:
    halves = np.arange(0x3C00, 0x3C20, dtype=np.uint16).reshape(-1, READERS)
    await start(dut)
    table = await load(dut, 2, "sigmoid")
    dut.slot_i.value = 2
    got = await pipeline(dut, {"half_i": words(halves)}, "act_o", ACT_LATENCY, np.uint32)
    expect("sigmoid", got, numerics.activation(numerics.load16(halves), table).view(np.uint32), halves)
    await reset(dut)
    got = await pipeline(dut, {"half_i": words(halves)}, "act_o", ACT_LATENCY, np.uint32)
    expect("forgotten", got, np.zeros_like(got), halves)
