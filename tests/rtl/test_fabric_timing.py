"""The C++ timing of the memory fabric against the RTL, and shapes that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.rtl import build
from dlavm.target import load_board
from tests.rtl.fabric import Fabric
from tests.unit.memory_model import SMALL

TB = Path(__file__).parent / "tb"
reason = build.missing_tools()


@pytest.mark.skipif(reason is not None, reason=str(reason))
def test_bench(tmp_path: Path) -> None:
    build.build_bench("memory_bench", [TB / "memory_bench.sv"], tmp_path)
    assert build.run_bench("memory_bench", "tests.rtl.bench_fabric", tmp_path) == 2


def test_a_read_and_a_write_by_hand() -> None:
    """Row by row of a channel that answers 16 cycles behind an address: activate, read, burst, response."""
    fabric = Fabric(1, 1, 2, [(0, 1 << 20, 1, SMALL)])
    seen: dict[str, list[int]] = {"beat": [], "busy": []}
    for cycle in range(60):
        if fabric("beat", 0):
            seen["beat"].append(cycle)
            fabric("take", 0)
        if not fabric("idle", 0):
            seen["busy"].append(cycle)
        if cycle == 0:
            fabric("read", 0, 0, 4)
            fabric("write", 0, 1 << 16, 2)
        fabric("put", 0)
        fabric("step")
    # Asked in 0: cut in 1, chosen 2, issued 3, address 4; arrival 5, open 5, reads 9 and 11, at the port 18 and 20; a
    # part 19, a row 20, at the client 21 and 23.
    assert seen["beat"] == [21, 23]
    # Asked in 0: cut in 1, row 2, chosen 3, issued and moved 4, address 5, data 6; arrival 7, answer 9, acknowledged
    # 10, told 11, idle 12.
    assert seen["busy"] == list(range(1, 12))


@pytest.mark.parametrize(("board_name", "memory_name", "share"), [("vcu128", "hbm", 0.92), ("kv260", "ddr", 0.93)])
def test_a_stream_keeps_memory_busy(board_name: str, memory_name: str, share: float) -> None:
    """What a channel gives alone is 92.4 % and 95.2 % (doc/timing.md)."""
    board = load_board(board_name)
    memory = board.memories[memory_name]
    beat = memory.port_bytes * max(1, int(memory.port_clock_mhz / board.clock_mhz))
    timing = memory.timing.channel(board.clock_mhz, beat)
    row = memory.channels * beat
    fabric = Fabric(2, 1, row // 16, [(0, memory.capacity, memory.channels, timing)])
    address = beats = 0
    for _ in range(20_000):
        if fabric("read_room", 1):
            fabric("read", 1, address, 64 * row // 16)
            address += 64 * row
        if fabric("beat", 1):
            fabric("take", 1)
            beats += 1
        fabric("step")
    assert share < beats / 20_000 < share + 0.01


@pytest.mark.parametrize("shape", [
    (1, 1, 0, [(0, 1024, 1, SMALL)]), (1, 1, 2, []), (1, 1, 2, [(0, 1024, 0, SMALL)]), (1, 1, 3, [(0, 960, 1, SMALL)]),
    (1, 1, 2, [(0, 1024, 2, SMALL)]), (1, 1, 2, [(0, 1024, 1, SMALL | {"window": 0})]),
])  # fmt: skip
def test_shapes_that_are_none(shape: tuple[int, int, int, list[tuple[int, int, int, dict[str, int]]]]) -> None:
    with pytest.raises(ValueError, match="no fabric of this shape"):
        Fabric(*shape)
