"""What share of a memory's peak the core's ways of asking get. Prints the table of doc/timing.md.

python scripts/memory_share.py
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from itertools import count

from dlavm.sim.memory_channel import MemoryChannel
from dlavm.target import load_board

CHUNK = 16  # beats of the core: one for each of a chunk's rows
ON_THE_WAY = 16  # chunks of reads and of writes (targets/rtl/read_channels.sv)
BEATS = 40_000
WARM_UP = 1000
APART = 1 << 22  # bytes: a multiple of what all banks hold in a row, so that streams meet in the same banks

ALL_BANKS = {"refresh_interval": 3510, "refresh_clocks": 234, "refresh_banks": 16, "refresh_postponed": 0}
"""The figures of hbm2_1800.yaml for refreshes of all banks together."""

Requests = Iterator[tuple[str, int, int]]
"""read or write, the address in the channel, beats."""


def stream(kind: str, beat: int, first: int = 0, chunk: int = CHUNK) -> Requests:
    for n in count():
        yield kind, first + n * chunk * beat, chunk


def in_turns(*streams: Requests) -> Requests:
    while True:
        for one in streams:
            yield next(one)


def random_places(beat: int, _: int) -> Requests:
    rng = random.Random(1)
    while True:
        yield "read", rng.randrange(1 << 16) * CHUNK * beat, CHUNK


WAYS: dict[str, Callable[[int, int], Requests]] = {
    "one stream of reads": lambda beat, _: stream("read", beat),
    "one stream, a row a chunk": lambda beat, _: stream("read", beat, chunk=1),
    "two streams in turns, half the banks apart": lambda beat, half: in_turns(
        stream("read", beat), stream("read", beat, APART + half)),
    "two streams in turns, in the same banks": lambda beat, _: in_turns(
        stream("read", beat), stream("read", beat, APART)),
    "chunks at random places": random_places,
    "one stream of writes": lambda beat, _: stream("write", beat),
    "reads and writes in turns (COPY)": lambda beat, half: in_turns(
        stream("read", beat), stream("write", beat, APART + half)),
}  # fmt: skip


def share(channel: MemoryChannel, requests: Requests, beat_bytes: int, bytes_per_cycle: float) -> float:
    """Bytes that pass, both ways together, over those of the peak."""
    kind, address, beats = next(requests)
    reads = writes = data = 0  # chunks of reads and writes that are owed, beats of a write that are not sent
    lengths: list[int] = []
    passed = start = cycle = 0
    while passed < BEATS:
        if reads and channel.beat_ready(cycle):
            channel.take_beat()
            passed += 1
            lengths[0] -= 1
            if not lengths[0]:
                lengths.pop(0)
                reads -= 1
        if writes and channel.response_ready(cycle):
            channel.take_response()
            writes -= 1
        if data:
            channel.write_beat(cycle)
            data -= 1
            passed += 1
        if kind == "read" and reads < ON_THE_WAY and channel.read_room(cycle):
            channel.read(cycle, address, beats)
            reads += 1
            lengths.append(beats)
            kind, address, beats = next(requests)
        elif kind == "write" and not data and writes < ON_THE_WAY and channel.write_room(cycle):
            channel.write(cycle, address, beats)
            writes, data = writes + 1, beats
            kind, address, beats = next(requests)
        if passed < WARM_UP:
            start = cycle
        cycle += 1
    return (BEATS - WARM_UP) * beat_bytes / (cycle - 1 - start) / bytes_per_cycle


def column(board_name: str, memory_name: str, change: dict[str, int]) -> list[str]:
    """The shares of WAYS, of a channel of the board."""
    board = load_board(board_name)
    memory = board.memories[memory_name]
    per_cycle = memory.peak_gbs * 1e3 / memory.channels / board.clock_mhz
    beat = memory.port_bytes * max(1, int(memory.port_clock_mhz / board.clock_mhz))
    timing = memory.timing.channel(board.clock_mhz, beat) | change
    half = timing["groups"] * timing["banks"] * timing["page_bytes"] // 2
    return [f"{100 * share(MemoryChannel(timing), way(beat, half), beat, per_cycle):.1f} %" for way in WAYS.values()]


def table() -> str:
    columns = [list(WAYS), column("vcu128", "hbm", {}), column("vcu128", "hbm", ALL_BANKS), column("kv260", "ddr", {})]
    head = ["way", "vcu128 hbm", "the same, all banks refreshed together", "kv260 ddr"]
    lines = [head, ["---", "---:", "---:", "---:"], *zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
