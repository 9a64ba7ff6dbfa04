"""cocotb: the quantiser against numpy: every fp16 value, blocks of ties, of subnormals, of zeros; gaps; a reset."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from dlavm.sim.reference import numerics
from tests.rtl import model
from tests.rtl.drive import reset, start, unpack, words

WIDTHS = (12, 8)


def blocks(rng: np.random.Generator) -> model.U16:
    """(n, 32) fp16: every value beside random ones, exponents near each other, subnormals only, few bits set."""
    every = np.arange(65536, dtype=np.uint16)
    full = rng.permutation(every).reshape(-1, 32)
    sign, fraction = rng.integers(0, 2, (2048, 32)) << 15, rng.integers(0, 1024, (2048, 32))
    base = rng.integers(0, 32, (2048, 1))
    near = sign | ((base - rng.integers(0, 14, (2048, 32))).clip(0, 31) << 10) | fraction
    tiny = sign | (fraction >> rng.integers(0, 11, (2048, 1)))
    sparse = near & ~((1 << rng.integers(0, 10, (2048, 32))) - 1)
    zeros = np.zeros((2, 32), int)
    zeros[1, ::2] = 0x8000
    return np.concatenate([full, near, tiny, sparse, zeros]).astype(np.uint16)


async def drive(dut: Any, rows: list[int], rng: np.random.Generator, gap: float) -> None:
    """Puts the blocks in with random gaps, the port full of junk in a gap."""
    for word in rows:
        while rng.random() < gap:
            dut.block_valid_i.value = 0
            dut.block_i.value = word ^ ((1 << 512) - 1)
            await RisingEdge(dut.clk_i)
        dut.block_valid_i.value = 1
        dut.block_i.value = word
        await RisingEdge(dut.clk_i)
    dut.block_valid_i.value = 0


async def collect(dut: Any, bits: int, count: int) -> list[tuple[int, int]]:
    """The next `count` valid results of the quantiser of `bits` bits: packed mantissas, exponent."""
    valid, data = getattr(dut, f"block{bits}_valid_o"), getattr(dut, f"block{bits}_o")
    exponent = getattr(dut, f"block{bits}_exp_o")
    results: list[tuple[int, int]] = []
    while len(results) < count:
        await RisingEdge(dut.clk_i)
        if valid.value == 1:
            results.append((data.value.to_unsigned(), exponent.value.to_signed()))
    return results


def check(bits: int, results: list[tuple[int, int]], x: model.U16) -> None:
    mantissa, exponent = model.quantize(x, bits)
    for row, (got, got_exponent) in enumerate(results):
        assert got_exponent == exponent[row], f"block {row}: e = {exponent[row]}, got {got_exponent}"
        values = unpack(got, bits, 32)
        assert values == mantissa[row].tolist(), f"block {row} {x[row]}: want {mantissa[row]}, got {values}"


async def run(dut: Any, x: model.U16, gap: float) -> None:
    rng = np.random.default_rng(7)
    tasks = [cocotb.start_soon(collect(dut, bits, len(x))) for bits in WIDTHS]
    await drive(dut, words(x), rng, gap)
    for bits, task in zip(WIDTHS, tasks, strict=True):
        check(bits, await task, x)


@cocotb.test()
async def values(dut: Any) -> None:
    await start(dut)
    await run(dut, blocks(np.random.default_rng(1)), gap=0.0)


@cocotb.test()
async def gaps_and_reset(dut: Any) -> None:
    x = blocks(np.random.default_rng(2))[::10]
    await start(dut)
    await drive(dut, words(x[:4]), np.random.default_rng(3), gap=0.0)
    await reset(dut)  # the four blocks on their way must not come out
    await run(dut, x, gap=0.4)


async def drive_powers(dut: Any, rows: list[int], powers: list[int], rng: np.random.Generator) -> None:
    for word, power in zip(rows, powers, strict=True):
        dut.block_valid_i.value, dut.block_i.value, dut.power_i.value = 1, word, power
        await RisingEdge(dut.clk_i)
        dut.block_valid_i.value = 0
        while rng.random() < 0.2:
            await RisingEdge(dut.clk_i)


async def run_powers(dut: Any, x: model.U16, powers: model.Ints, bits: int) -> None:
    """The quantiser of activations: each value times a power of two of its own."""
    dut.eight_i.value = int(bits == 8)
    task = cocotb.start_soon(drive_powers(dut, words(x), words(powers.astype(np.int8)), np.random.default_rng(8)))
    values = np.ldexp(model.half(x).astype(np.float64), powers.astype(np.int32))
    mantissa, exponent = numerics.quantize(values, bits)
    for row in range(len(x)):
        await RisingEdge(dut.clk_i)
        while dut.activation_valid_o.value == 0:
            await RisingEdge(dut.clk_i)
        got = unpack(dut.activation_o.value.to_unsigned(), 12, 32)
        want = mantissa[row, 0].tolist()
        assert got == want, f"block {row} {x[row]} {powers[row]}: want {want}, got {got}"
        assert dut.activation_sum_o.value.to_signed() == sum(want)
        if any(want):
            assert dut.activation_exp_o.value.to_signed() == exponent[row, 0]
    await task


@cocotb.test()
async def activations(dut: Any) -> None:
    await start(dut)
    x = blocks(np.random.default_rng(4))[::3]
    for bits in WIDTHS:
        await run_powers(dut, x, np.zeros(x.shape, np.int64), bits)


@cocotb.test()
async def powers_of_values(dut: Any) -> None:
    """Exponents as the cache's values have them, far apart and close together; the last of all blocks is of zeros."""
    await start(dut)
    rng = np.random.default_rng(5)
    x = blocks(rng)[::3]
    powers = rng.integers(-34, 6, x.shape)
    powers[::2] = powers[::2, :1] + rng.integers(-2, 1, powers[::2].shape)
    for bits in WIDTHS:
        await run_powers(dut, x, powers.clip(-34, 5), bits)
