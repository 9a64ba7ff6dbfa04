"""The core at other sizes than nano's: the same programs leave the same memory as on the simulator.

Boards here are none that exist; they have each width of the blocks once, as small as it gets.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlavm.rtl import build
from dlavm.rtl.model import library, top_text
from dlavm.sim.native import NativeDevice
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_board, load_target
from dlavm.target.memory_timing import MemoryTiming
from dlavm.target.sizes import Sizes, sizes
from tests.ops.programs import random_case
from tests.rtl.cores import check_same, placed

NANO = load_target("v3", "nano")
missing = build.missing_tools()
needs_verilator = pytest.mark.skipif(missing is not None, reason=str(missing))
SHARED, ON_CHIP = "shared lanes", "activations on the chip"


def board(channels: int, port_bytes: int, beat_rows: int = 1, lanes: int = 8, elements: int = 8192) -> TargetSpec:
    """v3 on a board with such a weights' memory, and buffers that are full now and then."""
    memories = NANO.board.memories
    clock = NANO.board.clock_mhz * beat_rows
    weights = replace(memories["hbm"], channels=channels, port_bytes=port_bytes, port_clock_mhz=clock)
    other = replace(memories["ddr"], port_bytes=port_bytes)
    made = replace(NANO.board, memories={"hbm": weights, "ddr": other}, vector_lanes=lanes)
    return replace(NANO, board=replace(made, activation_elements=elements))


def with_ram(spec: TargetSpec, channels: int = 4) -> TargetSpec:
    """The target on a board that has on-chip RAM for activations too."""
    port, clock = spec.space("weights").port_bytes, spec.board.clock_mhz
    like = load_board("vcu128").memories["onchip"]
    figures = {**like.timing.values, "burst_bytes": port}
    ram = replace(like, channels=channels, port_bytes=port, port_clock_mhz=clock,
                  peak_gbs=1e-3 * channels * port * clock, timing=MemoryTiming(2 * clock, figures))
    made = replace(spec.board, memories={**spec.board.memories, "onchip": ram})
    return replace(spec, board=made, roles={**spec.roles, "activations": ("onchip", "hbm")})


BOARDS = {
    "one channel": board(1, 16),  # row tiles of 8 rows
    "middle": board(4, 16, lanes=16),  # of 32
    # Of 64; rows of 128 bytes, clients take 64; results of 16 tokens wait for the epilogue.
    "wide": board(4, 32, lanes=16, elements=65536),
    "wider": board(8, 32, lanes=64),  # of 128
    "two beats": board(8, 16, 2, lanes=32),  # of 64; rows of 256 bytes
    "two wide beats": board(8, 32, 2, lanes=32),  # of 128; rows of 512 bytes
    ON_CHIP: with_ram(board(8, 32, lanes=16)),  # of 128; clients take half a row of the RAM, a quarter of the fabric's
    SHARED: board(4, 16, 2, lanes=16),  # of 32; what wide formats need in two lanes of four, as on the largest boards
}


def named(name: str, monkeypatch: pytest.MonkeyPatch) -> TargetSpec:
    """The board of BOARDS of that name; lanes of SHARED are shared for as long as the test runs."""
    if name == SHARED:
        monkeypatch.setattr("dlavm.target.sizes.MOST_WIDE_QUADS", 4)
        assert sizes(BOARDS[name]).share == 2
    return BOARDS[name]


@needs_verilator
@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_random_programs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command, with and without stalls."""
    spec = named(name, monkeypatch)
    with NativeDevice(spec) as native, NativeDevice(spec, f"rtl:{library(spec)}") as core:
        core.set_option("max_cycles", 2_000_000)
        for seed in range(24):
            core.set_option("stalls", 200 * (seed % 2))
            core.set_option("latency", (1, 40, 90)[seed % 3])
            check_same(core, native, spec, placed(spec, random_case(spec, seed, commands=12)), f"seed {seed}")


def test_sizes_of_boards() -> None:
    """A board's AXI ports bring in a cycle of the core what its weights' memory does; clients take what lanes need."""
    assert sizes(NANO) == Sizes(
        port_bytes=16, halves=2, row_units=2, units=2, lanes=8, rows_most=256, client_rows=64, weight_rows=256, share=1,
        result_blocks=4,
    )  # fmt: skip
    for name, size in (
        ("kv260", Sizes(64, 2, 4, 4, 16, 4096, 64, 4096, 1, 4)),
        ("vcu128", Sizes(64, 1, 128, 16, 128, 4096, 32, 1024, 2, 64)),
        ("u280", Sizes(64, 1, 128, 16, 128, 4096, 32, 1024, 2, 64)),
        ("v80", Sizes(32, 2, 128, 16, 128, 4096, 32, 4096, 2, 64)),
    ):
        spec = load_target("v3", name)
        assert sizes(spec) == size
        memory = spec.space("weights")
        per_cycle = 16 * size.row_units * spec.board.clock_mhz
        assert per_cycle == memory.beat_row * memory.port_clock_mhz


def test_results_that_wait() -> None:
    """A power of two, as many pairs as the activation buffer holds, where the epilogue is slower than the lanes."""
    wide = BOARDS["wide"]
    for elements, blocks in ((8192, 4), (32768, 4), (65536, 8), (122880, 8), (131072, 16), (1 << 20, 64)):
        board = replace(wide.board, activation_elements=elements)
        assert sizes(replace(wide, board=board)).result_blocks == blocks, elements
    narrow = replace(NANO.board, activation_elements=1 << 20)
    assert sizes(replace(NANO, board=narrow)).result_blocks == 4


def test_memories_that_do_not_fit() -> None:
    memories = NANO.board.memories
    crooked = replace(memories["ddr"], base=memories["ddr"].base + 16)
    spec = replace(NANO, board=replace(NANO.board, memories={**memories, "ddr": crooked}))
    with pytest.raises(DlavmError, match="expected ddr of nano in rows of 32 bytes"):
        top_text(spec)


@pytest.mark.parametrize("prefetch", [1, 48, 96 * 32])
def test_a_prefetch_buffer_that_does_not_fit(prefetch: int) -> None:
    """It has a power of two rows, of which a row is the smallest part; a small one has what memory has on its way."""
    spec = replace(NANO, board=replace(NANO.board, weight_prefetch=prefetch))
    with pytest.raises(DlavmError, match=f"expected weight_prefetch of nano .* rows of 32 bytes, got {prefetch}"):
        sizes(spec)
    assert sizes(replace(NANO, board=replace(NANO.board, weight_prefetch=32))).weight_rows == 64
