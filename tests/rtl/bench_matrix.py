"""cocotb: matrix_quad with one row a lane, under matrix_control, against section 3 of doc/numerics.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import RisingEdge

from tests.rtl import model
from tests.rtl.drive import pack, reset, start, words

ROWS = 4


@dataclass(frozen=True)
class Tile:
    """Operands of one row tile: mantissa (2, K), exponent (2, K/32), weight (row, K), scale (row, groups)."""

    mantissa: model.Ints
    exponent: model.Ints
    weight: model.Ints
    scale: model.U16

    @property
    def blocks(self) -> int:
        return self.exponent.shape[1]

    def want(self, acc: model.U32 | None = None) -> model.U32:
        """The accumulators (token, row) by the model."""
        return model.matmul(self.mantissa, self.exponent, self.weight, self.scale, acc)


def random_tile(rng: np.random.Generator, rows: int, blocks: int, extreme: bool = False) -> Tile:
    """Any mantissas, exponents, weights and scales, or (extreme) the largest that the formats hold."""
    k, groups = 32 * blocks, -(-blocks // 4)
    mantissa = rng.integers(-2047, 2048, (2, k))
    weight = rng.integers(-8, 8, (rows, k))
    exponent = rng.integers(-34, 6, (2, blocks))
    scale = rng.integers(0, 65536, (rows, groups)).astype(np.uint16)
    if extreme:
        mantissa = np.full_like(mantissa, 2047) * rng.choice([-1, 1], (2, 1))
        weight = np.full_like(weight, -8)
        scale = rng.choice(np.array([1, 0x3FF, 0x7BFF, 0x7C00, 0x8001, 0xFFFF], np.uint16), scale.shape)
        exponent = rng.choice(np.array([-34, 5]), exponent.shape)
    else:
        mantissa[:, 32 * rng.integers(0, blocks) :][:, :32] = 0
    return Tile(mantissa, exponent, weight, scale)


def pairs(mantissa: model.Ints) -> model.Ints:
    """Two tokens' mantissas (2, K) as the multiplier takes them: (K/8, 8)."""
    return (mantissa[1] * 2**15 + mantissa[0]).reshape(-1, 8)


async def run_tile(dut: Any, tile: Tile, rng: np.random.Generator, gap: float, group: int = 0) -> None:
    """A tile alone, compared."""
    task = cocotb.start_soon(collect_quad(dut))
    await feed_quad(dut, [(tile, group)], rng, gap)
    np.testing.assert_array_equal(await task, tile.want())


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """One row a lane and no gap: every accumulator is due again after four cycles."""
    rng = np.random.default_rng(1)
    await start(dut)
    for blocks in (1, 2, 3, 4, 5, 8, 9, 32, 128):
        await run_tile(dut, random_tile(rng, ROWS, blocks), rng, 0.0)


@cocotb.test()
async def gaps(dut: Any) -> None:
    rng = np.random.default_rng(3)
    await start(dut)
    for gap in (0.1, 0.3, 0.5, 0.9):
        for _ in range(6):
            await run_tile(dut, random_tile(rng, ROWS, int(rng.integers(1, 14))), rng, gap, int(rng.integers(16)))


@cocotb.test()
async def extremes(dut: Any) -> None:
    """Largest dots, scales and exponents: nothing saturates or becomes subnormal on the way."""
    rng = np.random.default_rng(4)
    await start(dut)
    for _ in range(20):
        await run_tile(dut, random_tile(rng, ROWS, 9, extreme=True), rng, 0.0)


@cocotb.test()
async def two_groups_in_turn(dut: Any) -> None:
    """Two pairs of tokens take turns block by block; each goes on from its own accumulators in memory."""
    rng = np.random.default_rng(5)
    await start(dut)
    for gap in (0.0, 0.2):
        one, two = (random_tile(rng, ROWS, 11) for _ in range(2))
        two = Tile(two.mantissa, two.exponent, one.weight, one.scale)

        async def both() -> list[model.U32]:
            return [await collect_quad(dut), await collect_quad(dut)]

        task = cocotb.start_soon(both())
        await feed_quad(dut, [(one, 3), (two, 9)], rng, gap)
        for tile, got in zip((one, two), await task, strict=True):
            np.testing.assert_array_equal(got, tile.want())


@cocotb.test()
async def reset_in_the_middle(dut: Any) -> None:
    """After a reset anywhere in a tile the next tile is right and nothing of the old one comes out."""
    rng = np.random.default_rng(6)
    await start(dut)
    for cut in range(1, 33):
        task = cocotb.start_soon(feed_quad(dut, [(random_tile(rng, ROWS, 4), 0)], rng, 0.0))
        for _ in range(cut):
            await RisingEdge(dut.clk_i)
        task.cancel()
        dut.quad_valid_i.value = dut.quad_metadata_valid_i.value = 0
        await reset(dut, cycles=1)
        await run_tile(dut, random_tile(rng, ROWS, 5), rng, 0.0)


async def feed_quad(dut: Any, tiles: list[tuple[Tile, int]], rng: np.random.Generator, gap: float) -> None:
    """Blocks of the tiles (of equal weights) in turn, each with the group of its accumulators."""
    for block in range(tiles[0][0].blocks):
        slot = block // 4 % 2
        for index, (tile, group) in enumerate(tiles):
            for step in range(4):
                k = 32 * block + 8 * step
                # Two beats a cycle bring a group's scales together with its first weights at the earliest.
                dut.quad_metadata_valid_i.value = int(index == 0 and step == 0 and block % 4 == 0)
                dut.quad_metadata_i.value = pack(tile.scale[:, block // 4][None], 24)[0]
                dut.quad_slot_i.value, dut.quad_group_i.value = slot, group
                dut.quad_first_i.value, dut.quad_last_i.value = int(step == 0), int(step == 3)
                dut.quad_tile_first_i.value = int(block == 0)
                dut.quad_tile_last_i.value = int(block == tile.blocks - 1)
                dut.quad_exp_i.value = pack(tile.exponent[:, block][None], 8)[0]
                dut.quad_code_i.value = words(codes(tile.weight[:, k : k + 8])[None])[0]
                dut.quad_pair_i.value = pack(pairs(tile.mantissa[:, k : k + 8]), 27)[0]
                lower = tile.mantissa[:1, k : k + 8]
                dut.quad_below_i.value, dut.quad_above_i.value = pack(lower < 0, 1)[0], pack(lower > 0, 1)[0]
                dut.quad_valid_i.value = 1
                await RisingEdge(dut.clk_i)
                dut.quad_valid_i.value = dut.quad_metadata_valid_i.value = 0
                while rng.random() < gap:
                    await RisingEdge(dut.clk_i)


def codes(weight: model.Ints) -> npt.NDArray[np.uint8]:
    """weight (row, 8) -> bytes (row, 4): k = kk in the low nibble, k = 4 + kk in the high one."""
    nibble = (weight + 8).astype(np.uint8)
    return np.asarray(nibble[:, :4] | nibble[:, 4:] << 4, np.uint8)


async def collect_quad(dut: Any) -> model.U32:
    acc = np.zeros((2, 4), np.uint32)
    for row in range(4):
        await RisingEdge(dut.clk_i)
        while dut.quad_valid_o.value == 0:
            await RisingEdge(dut.clk_i)
        assert dut.quad_row_o.value == row
        value = dut.quad_acc_o.value.to_unsigned()
        acc[:, row] = value & 0xFFFFFFFF, value >> 32
    return acc
