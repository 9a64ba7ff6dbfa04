"""cocotb: matrix_slice and matrix_quad against section 3 of doc/numerics.md, with gaps, resumed tiles and a reset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import RisingEdge

from tests.rtl import model
from tests.rtl.drive import pack, pipeline, reset, start, words

PORT_BYTES = 32
ROWS = PORT_BYTES // 2
QUADS = ROWS // 8
LANE_LATENCY = 4


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


def unit(weight: model.Ints) -> npt.NDArray[np.uint8]:
    """weight (row, 32) -> the 8 beats (8, PORT_BYTES), bytes in the order [step][row][kk]."""
    nibble = (weight + 8).astype(np.uint8).reshape(len(weight), 4, 2, 4)  # row, step, half of the 8 k, kk
    packed = nibble[:, :, 0] | (nibble[:, :, 1] << 4)
    return np.asarray(packed.transpose(1, 0, 2).reshape(8, -1), np.uint8)


def beats(tile: Tile) -> list[tuple[int, int, int]]:
    """A tile as the slice sees it: (beat, pairs, exponents) a cycle; junk pairs beside a beat of scales."""
    pair_words = pack(pairs(tile.mantissa), 27)
    stream = []
    for block in range(tile.blocks):
        exponents = pack(tile.exponent[:, block][None], 8)[0]
        if block % 4 == 0:
            stream.append((words(tile.scale[:, block // 4][None])[0], (1 << 216) - 1, 0x5A5A))
        data = words(unit(tile.weight[:, 32 * block : 32 * block + 32]))
        stream += [(data[b], pair_words[4 * block + b // 2], exponents) for b in range(8)]
    return stream


async def feed(dut: Any, tile: Tile, rng: np.random.Generator, gap: float) -> None:
    for beat, pair, exponents in beats(tile):
        while rng.random() < gap:
            dut.slice_valid_i.value = 0
            dut.slice_beat_i.value = (1 << (8 * PORT_BYTES)) - 1
            await RisingEdge(dut.clk_i)
        dut.slice_valid_i.value = 1
        dut.slice_beat_i.value = beat
        dut.slice_pair_i.value = pair
        dut.slice_exp_i.value = exponents
        await RisingEdge(dut.clk_i)
    dut.slice_valid_i.value = 0


async def collect(dut: Any) -> model.U32:
    """The accumulators (token, row) of the next tile; rows must ascend within each quad's halves."""
    acc = np.zeros((2, ROWS), np.uint32)
    for index in range(8):
        await RisingEdge(dut.clk_i)
        while dut.slice_valid_o.value == 0:
            await RisingEdge(dut.clk_i)
        rows, values = dut.slice_row_o.value.to_unsigned(), dut.slice_acc_o.value.to_unsigned()
        for q in range(QUADS):
            row = (rows >> (4 * q)) & 15
            assert row == index // 4 * (ROWS // 2) + 4 * q + index % 4
            for token in range(2):
                acc[token, row] = (values >> (32 * (2 * q + token))) & 0xFFFFFFFF
    return acc


async def run_tiles(dut: Any, tiles: list[Tile], rng: np.random.Generator, gap: float) -> None:
    """Tiles one after the other; each is compared."""
    for tile in tiles:
        dut.slice_blocks_i.value = tile.blocks
        result = cocotb.start_soon(collect(dut))
        await feed(dut, tile, rng, gap)
        np.testing.assert_array_equal(await result, tile.want())


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """Every tile without a gap, all K sizes around the group."""
    rng = np.random.default_rng(1)
    await start(dut)
    await run_tiles(dut, [random_tile(rng, ROWS, n) for n in (1, 2, 3, 4, 5, 8, 9, 32, 128)], rng, gap=0.0)


@cocotb.test()
async def back_to_back(dut: Any) -> None:
    """The next tile starts in the cycle after the last beat, while the rows of this one are still on their way."""
    rng = np.random.default_rng(2)
    await start(dut)
    for blocks in (1, 3, 4):
        tiles = [random_tile(rng, ROWS, blocks) for _ in range(12)]
        dut.slice_blocks_i.value = blocks

        async def results(count: int = len(tiles)) -> list[model.U32]:
            return [await collect(dut) for _ in range(count)]

        task = cocotb.start_soon(results())
        for tile in tiles:
            await feed(dut, tile, rng, 0.0)
        for tile, got in zip(tiles, await task, strict=True):
            np.testing.assert_array_equal(got, tile.want())


@cocotb.test()
async def gaps(dut: Any) -> None:
    rng = np.random.default_rng(3)
    await start(dut)
    for gap in (0.1, 0.5, 0.9):
        await run_tiles(dut, [random_tile(rng, ROWS, int(rng.integers(1, 14))) for _ in range(8)], rng, gap)


@cocotb.test()
async def extremes(dut: Any) -> None:
    """Largest dots, scales and exponents: nothing saturates or becomes subnormal on the way."""
    rng = np.random.default_rng(4)
    await start(dut)
    await run_tiles(dut, [random_tile(rng, ROWS, 9, extreme=True) for _ in range(20)], rng, 0.0)


@cocotb.test()
async def resume(dut: Any) -> None:
    """A tile along K goes on from the accumulators of the one before."""
    rng = np.random.default_rng(5)
    await start(dut)
    acc: model.U32 | None = None
    for blocks in (8, 4, 5):
        tile = random_tile(rng, ROWS, blocks)
        dut.slice_blocks_i.value = blocks
        dut.slice_resume_i.value = int(acc is not None)
        result = cocotb.start_soon(collect(dut))
        await feed(dut, tile, rng, 0.2)
        got = await result
        np.testing.assert_array_equal(got, tile.want(acc))
        acc = got


@cocotb.test()
async def reset_in_the_middle(dut: Any) -> None:
    """After a reset anywhere in a tile the next tile is right and nothing of the old one comes out."""
    rng = np.random.default_rng(6)
    await start(dut)
    whole = 33
    for cut, wait in [(1, 0), (4, 0), (8, 0), (20, 0), *((whole, wait) for wait in range(16))]:
        tile = random_tile(rng, ROWS, 4)
        dut.slice_blocks_i.value = tile.blocks
        for beat, pair, exponents in beats(tile)[:cut]:
            dut.slice_valid_i.value, dut.slice_beat_i.value = 1, beat
            dut.slice_pair_i.value, dut.slice_exp_i.value = pair, exponents
            await RisingEdge(dut.clk_i)
        dut.slice_valid_i.value = 0
        for _ in range(wait):
            await RisingEdge(dut.clk_i)
        await reset(dut, cycles=1)
        await run_tiles(dut, [random_tile(rng, ROWS, 5)], rng, 0.0)


@cocotb.test()
async def two_beats_a_cycle(dut: Any) -> None:
    """matrix_quad alone with one row a lane: every accumulator is due again after four cycles, at full rate."""
    rng = np.random.default_rng(8)
    await start(dut)
    for gap in (0.0, 0.3):
        tile = random_tile(rng, 4, 13)
        task = cocotb.start_soon(collect_quad(dut))
        await feed_quad(dut, tile, rng, gap)
        np.testing.assert_array_equal(await task, tile.want())


@cocotb.test()
async def lane_of_8_bits(dut: Any) -> None:
    """matrix_lane with 8-bit mantissas: random blocks, the largest dots of either sign, a block each 4 cycles."""
    rng = np.random.default_rng(9)
    mantissa = rng.integers(-127, 128, (2, 500 * 32))
    weight = rng.integers(-8, 8, 500 * 32)
    mantissa[:, : 4 * 32] = np.repeat([[127, 127, -127, -127], [127, -127, 127, -127]], 32, axis=1)
    weight[: 4 * 32] = -8
    pair_words = pack((mantissa[1] * 2**11 + mantissa[0]).reshape(-1, 8), 19)
    first = [int(step % 4 == 0) for step in range(len(pair_words))]
    ports = {"lane8_pair_i": pair_words, "lane8_weight_i": pack((weight + 8).reshape(-1, 8), 4), "lane8_first_i": first}
    await start(dut)
    dut.lane8_valid_i.value = 1
    got = await pipeline(dut, ports, "lane8_dot_o", LANE_LATENCY, np.int16)
    want = (mantissa * weight).reshape(2, -1, 32).sum(axis=2).T
    np.testing.assert_array_equal(got[3::4], want)


async def feed_quad(dut: Any, tile: Tile, rng: np.random.Generator, gap: float) -> None:
    pair_words = pack(pairs(tile.mantissa), 27)
    for step in range(4 * tile.blocks):
        block = step // 4
        # Two beats a cycle bring a group's scales together with its first weights at the earliest.
        dut.quad_scale_valid_i.value = int(step % 16 == 0)
        dut.quad_scale_i.value = words(tile.scale[:, block // 4][None])[0]
        dut.quad_first_i.value, dut.quad_last_i.value = int(step % 4 == 0), int(step % 4 == 3)
        dut.quad_tile_first_i.value, dut.quad_tile_last_i.value = int(block == 0), int(block == tile.blocks - 1)
        dut.quad_exp_i.value = pack(tile.exponent[:, block][None], 8)[0]
        dut.quad_weight_i.value = pack((tile.weight[:, 8 * step : 8 * step + 8] + 8).reshape(1, -1), 4)[0]
        dut.quad_pair_i.value = pair_words[step]
        dut.quad_valid_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.quad_valid_i.value = dut.quad_scale_valid_i.value = 0
        while rng.random() < gap:
            await RisingEdge(dut.clk_i)


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
