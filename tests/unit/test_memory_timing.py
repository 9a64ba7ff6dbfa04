"""The timing of a memory channel (clib/src/timing): cycles computed by hand, and what must hold for any traffic."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.sim.memory_channel import NEVER, MemoryChannel
from dlavm.support.errors import DlavmError
from dlavm.target import load_board
from dlavm.target.memory_timing import STATED, MemoryTiming, completed
from dlavm.target.spec import list_boards
from tests.unit.memory_model import SMALL, Traffic, run, violations

BOARDS = [(b, m) for b in list_boards() for m in load_board(b).memories]


def order(timing: dict[str, int], traffic: Traffic) -> list[tuple[str, int]]:
    """Kind and clock of the commands, by clock; every run is held against the rules, and against the other driver."""
    seen, commands = run(timing, traffic, by_event=False)
    assert list(violations(timing, commands)) == []
    assert run(timing, traffic, by_event=True) == (seen, commands)
    return sorted(((c.kind, c.clock) for c in commands), key=lambda pair: pair[1])


def beats(timing: dict[str, int], traffic: Traffic) -> list[int]:
    return run(timing, traffic, by_event=False)[0]["beat"]


def columns(timing: dict[str, int], traffic: Traffic) -> str:
    """r and w in the order of the column commands."""
    return "".join(kind[0] for kind, _ in order(timing, traffic) if kind in ("read", "write"))


# -- By hand ----------------------------------------------------------------------------------------------------------


def test_a_stream_of_row_hits() -> None:
    """Arrival 11, row open 4 later, a burst every 2; data ends 5 + 2 behind its command and is 2 on its way."""
    traffic = Traffic([(10, 0, 4)], [])
    assert order(SMALL, traffic) == [("activate", 11), ("read", 15), ("read", 17), ("read", 19), ("read", 21)]
    assert beats(SMALL, traffic) == [24, 26, 28, 30]


def test_a_row_conflict() -> None:
    """The row may close 9 behind its opening, the next opens 4 later."""
    traffic = Traffic([(10, 0, 1), (11, 256, 1)], [])
    assert order(SMALL, traffic) == [("activate", 11), ("read", 15), ("precharge", 20), ("activate", 24), ("read", 28)]
    assert beats(SMALL, traffic) == [24, 37]


def test_another_bank_opens_meanwhile() -> None:
    assert order(SMALL, Traffic([(10, 0, 1), (11, 128, 1)], [])) == [
        ("activate", 11), ("activate", 14), ("read", 15), ("read", 18)]  # fmt: skip


def test_only_the_window_opens_rows_ahead() -> None:
    """Of four bursts of one row and then one of another bank, a window of 2 sees the last when the third is issued."""
    opened = [clock for kind, clock in order(SMALL | {"window": 2}, Traffic([(10, 0, 4), (11, 128, 1)], []))
              if kind == "activate"]  # fmt: skip
    assert opened == [11, 19]


def test_from_write_to_read() -> None:
    """The write's data ends at 15 + 3 + 2; a read of its group may follow 4 later."""
    traffic = Traffic([(12, 32, 1)], [(10, 0, 1)])
    assert order(SMALL, traffic) == [("activate", 12), ("write", 15), ("read", 24)]
    seen, _ = run(SMALL, traffic, by_event=False)
    assert (seen["response"], seen["beat"]) == ([14], [33])


def test_from_read_to_write() -> None:
    """The read's data ends at 22, the bus rests for 1, and a write's data comes 3 behind its command."""
    assert order(SMALL, Traffic([(10, 0, 1)], [(10, 32, 1)])) == [("activate", 11), ("read", 15), ("write", 20)]


def test_refresh_in_the_middle() -> None:
    """Due at 60, while the row is open until 65: precharge, 4, refresh, 20, and the row again."""
    timing = SMALL | {"refresh_interval": 60}
    traffic = Traffic([(55, 0, 1), (65, 32, 1)], [])
    assert order(timing, traffic) == [
        ("activate", 56), ("read", 60), ("precharge", 65), ("refresh", 69), ("activate", 89), ("read", 93)]  # fmt: skip
    assert beats(timing, traffic) == [69, 102]


def test_refreshes_of_an_idle_channel_are_over() -> None:
    """One read after seven intervals: each refresh was at its time, the last at 420."""
    timing = SMALL | {"refresh_interval": 60}
    done = order(timing, Traffic([(450, 0, 1)], []))
    assert done == [*(("refresh", 60 * n) for n in range(1, 8)), ("activate", 451), ("read", 455)]


def test_refresh_of_one_bank_behind_the_stream() -> None:
    """Bank 1 is refreshed while bank 0 is read; nothing waits for it."""
    timing = SMALL | {"refresh_interval": 60, "refresh_banks": 1, "refresh_postponed": 2, "page_bytes": 4096}
    traffic = Traffic([(50, 0, 20)], [])
    _, commands = run(timing, traffic, by_event=False)
    assert [(c.clock, c.bank) for c in commands if c.kind == "refresh"] == [(60, 1)]
    assert beats(timing, traffic) == list(range(64, 104, 2))


def test_four_activates() -> None:
    """The fifth row of five banks opens 12 behind the first."""
    timing = SMALL | {"groups": 4, "interleave": 4, "refresh_banks": 8, "window": 8}
    opened = [clock for kind, clock in order(timing, Traffic([(0, 0, 4), (1, 512, 1)], [])) if kind == "activate"]
    assert opened == [1, 3, 5, 7, 13]


def test_addresses() -> None:
    """From below: burst, interleaved groups, column, bank, other groups, row."""
    timing = SMALL | {"groups": 4, "interleave": 2, "refresh_banks": 8}
    places = {0: (0, 0), 32: (2, 0), 64: (0, 0), 256: (1, 0), 512: (4, 0), 544: (6, 0), 1024: (0, 1), 1792: (5, 1)}
    for address, place in places.items():
        _, commands = run(timing, Traffic([(0, address, 1)], []), by_event=False)
        assert (commands[-1].bank, commands[-1].row) == place, address


def test_the_port_holds_so_many_reads() -> None:
    channel = MemoryChannel(SMALL | {"reads": 2})
    channel.read(0, 0, 1)
    assert channel.read_room(1)
    channel.read(1, 32, 1)
    assert not channel.read_room(2)
    assert (channel.beat_ready(13), channel.beat_ready(14), channel.next_beat()) == (0, 1, 14)
    assert not channel.read_room(14)
    channel.take_beat()
    assert channel.read_room(14)


def test_the_port_holds_so_many_writes() -> None:
    """Until the data has left: command at 5, end at 10."""
    channel = MemoryChannel(SMALL | {"writes": 1})
    channel.write(0, 0, 1)
    assert channel.next_write_room() == channel.next_response() == NEVER
    channel.write_beat(1)
    assert channel.next_write_room() == 10
    assert (channel.write_room(9), channel.write_room(10)) == (0, 1)


def test_a_direction_has_its_batch() -> None:
    traffic = Traffic([(0, 0, 4)], [(0, 128, 4)])
    timing = SMALL | {"batch": 2, "window": 1}
    assert columns(timing, traffic) == "rrwwrrww"
    late = Traffic([(0, 0, 4), (1, 32, 4)], [(0, 128, 1)])
    assert columns(timing, late) == "rrwrrrrrr"


@pytest.mark.parametrize(("address", "kinds"), [(0, "rrrww"), (32, "rrwwr"), (64, "rrwwr"), (96, "rrrww")])
def test_a_read_waits_for_the_write_under_it(address: int, kinds: str) -> None:
    """Of the write at 32 .. 95 all data had come before the second read did."""
    traffic = Traffic([(0, 512, 2), (3, address, 1)], [(0, 32, 2)])
    assert columns(SMALL | {"request": 8, "window": 1}, traffic) == kinds


def test_a_read_does_not_wait_for_a_later_write() -> None:
    assert columns(SMALL | {"request": 8, "window": 1}, Traffic([(0, 512, 2), (1, 32, 1)], [(0, 32, 2)])) == "rrrww"


def test_clocks_of_another_ratio() -> None:
    """Three clocks take two cycles: edge 10 is clock 15, data is there at 29, the next edge is 20."""
    assert beats(SMALL | {"clocks": 3, "cycles": 2}, Traffic([(10, 0, 1)], [])) == [20]
    assert beats(SMALL | {"clocks": 1, "cycles": 3}, Traffic([(10, 0, 1)], [])) == [54]


def test_a_port_passes_a_beat_a_cycle() -> None:
    """A burst of memory holds two beats; or a beat two bursts."""
    assert beats(SMALL | {"beat_bytes": 16}, Traffic([(10, 0, 4)], [])) == [24, 25, 26, 27]
    assert beats(SMALL | {"beat_bytes": 64}, Traffic([(10, 0, 2)], [])) == [26, 30]


# -- For any traffic --------------------------------------------------------------------------------------------------


@st.composite
def timings(draw: st.DrawFn) -> dict[str, int]:
    def few(least: int, most: int) -> int:
        return draw(st.integers(least, most))

    groups, banks = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
    burst = few(1, 4)
    timing = {name: few(1, 12) for name in SMALL} | {
        "clocks": few(1, 7), "cycles": few(1, 7), "beat_bytes": draw(st.sampled_from([16, 32, 64])), "burst_bytes": 32,
        "burst_clocks": burst, "ccd_s": few(burst, 6), "groups": groups, "banks": banks,
        "page_bytes": draw(st.sampled_from([32, 128, 256])), "refresh_interval": few(150, 400),
        "refresh_clocks": few(1, 40), "reads": few(1, 4), "writes": few(1, 4),
    }  # fmt: skip
    one = draw(st.booleans())
    return timing | {"interleave": draw(st.sampled_from([g for g in (1, 2, 4) if groups % g == 0])),
                     "refresh_banks": 1 if one else groups * banks,
                     "refresh_postponed": few(0, 8) if one else 0}  # fmt: skip


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    """Streams, jumps and short bursts, close together and far apart; addresses are multiples of the largest beat."""
    def requests() -> list[tuple[int, int, int]]:
        out, cycle, address = [], 0, 0
        for _ in range(draw(st.integers(0, 12))):
            cycle += draw(st.sampled_from([0, 0, 1, 3, 20, 300]))
            address = draw(st.sampled_from([address, 64 * draw(st.integers(0, 60))]))
            count = draw(st.sampled_from([1, 2, 5, 16]))
            out.append((cycle, address, count))
            address += 64 * count
        return out

    return Traffic(requests(), requests(), draw(st.sampled_from([0, 0, 2, 7])))


@settings(max_examples=100, deadline=None)
@given(timings(), traffics())
def test_banks_get_what_they_demand(timing: dict[str, int], traffic: Traffic) -> None:
    """Both drivers see the same cycles; no rule of the banks is broken; every access is there once, in order."""
    seen, commands = run(timing, traffic, by_event=False)
    assert run(timing, traffic, by_event=True) == (seen, commands)
    assert list(violations(timing, commands)) == []
    for kind, requests in (("read", traffic.reads), ("write", traffic.writes)):
        want = []
        for _, address, count in requests:
            last = address + count * timing["beat_bytes"] - 1
            want += [place(timing, access) for access in range(address // 32, last // 32 + 1)]
        assert [(c.bank, c.row) for c in commands if c.kind == kind] == want
    assert len(seen.get("beat", [])) == sum(count for *_, count in traffic.reads)
    assert len(seen.get("response", [])) == len(traffic.writes)


def place(t: dict[str, int], access: int) -> tuple[int, int]:
    """Bank and row of an access, by the widths of the fields of its address."""
    sizes = (t["interleave"], t["page_bytes"] // 32, t["banks"], t["groups"] // t["interleave"])
    low, _, bank, high = ((access // unit) % size for size, unit in zip(sizes, units(sizes), strict=True))
    return (high * t["interleave"] + low) * t["banks"] + bank, access // (units(sizes)[-1] * sizes[-1])


def units(sizes: tuple[int, ...]) -> list[int]:
    out = [1]
    for size in sizes[:-1]:
        out.append(out[-1] * size)
    return out


@st.composite
def rams(draw: st.DrawFn) -> dict[str, int]:
    """RAM of any ratio of clocks; of most the channel chooses whole bursts, windows and beats of others forbid it."""
    ratio = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (3, 2), (1, 2)]))
    ways = {"request": draw(st.integers(0, 9)), "response": draw(st.integers(0, 9))}
    return on_chip() | ways | {
        "clocks": ratio[0], "cycles": ratio[1], "beat_bytes": draw(st.sampled_from([64, 64, 64, 32])),
        "window": draw(st.sampled_from([1, 1, 1, 2])), "batch": draw(st.sampled_from([1, 1, 2, 7])),
        "reads": draw(st.integers(1, 4)), "writes": draw(st.integers(1, 4)),
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.one_of(rams(), timings()), traffics(), st.booleans())
def test_short_ways_change_nothing(timing: dict[str, int], traffic: Traffic, by_event: bool) -> None:
    """Whole bursts of RAM and runs of open rows are chosen together where no commands are recorded."""
    assert run(timing, traffic, by_event, record=False)[0] == run(timing, traffic, by_event)[0]


@settings(max_examples=60, deadline=None)
@given(timings(), traffics())
def test_refreshes_are_neither_early_nor_left_out(timing: dict[str, int], traffic: Traffic) -> None:
    _, commands = run(timing, traffic, by_event=True)
    refreshes = [c for c in commands if c.kind == "refresh"]
    for number, refresh in enumerate(refreshes):
        assert refresh.clock >= (number + 1) * timing["refresh_interval"]
    last = max((c.clock for c in commands), default=0)
    chosen_ahead = 500  # clocks: the due one is looked at when an access is chosen
    assert len(refreshes) >= (last - chosen_ahead) // timing["refresh_interval"] - timing["refresh_postponed"] - 1
    if timing["refresh_banks"] == 1:
        banks = timing["groups"] * timing["banks"]
        for first in range(0, len(refreshes) - banks + 1, banks):
            assert len({c.bank for c in refreshes[first:first + banks]}) == banks


@settings(max_examples=60, deadline=None)
@given(timings(), st.lists(st.integers(1, 16), min_size=1, max_size=20))
def test_never_faster_than_the_peak(timing: dict[str, int], lengths: list[int]) -> None:
    cycles = beats(timing, Traffic([(0, 64 * 16 * i, n) for i, n in enumerate(lengths)], []))
    assert all(later > earlier for earlier, later in zip(cycles, cycles[1:], strict=False))
    accesses = sum(-(-n * timing["beat_bytes"] // 32) for n in lengths)
    assert cycles[-1] * timing["clocks"] / timing["cycles"] >= (accesses - 1) * timing["ccd_s"]


# -- Boards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("board_name", "memory_name"), BOARDS)
def test_long_reads_reach_the_peak_less_refresh(board_name: str, memory_name: str) -> None:
    """A stream of chunks loses refreshes and what the rows cost around them, and no more."""
    board = load_board(board_name)
    memory = board.memories[memory_name]
    per_cycle = memory.peak_gbs * 1e3 / memory.channels / board.clock_mhz
    t = memory.timing.channel(board.clock_mhz, 16 if per_cycle < 32 else 32 if per_cycle < 64 else 64)
    chunk, count = 16 * t["beat_bytes"], 1500
    cycles = run(t, Traffic([(0, chunk * i, 16) for i in range(count)], []), by_event=True)[0]["beat"]
    of_port = t["beat_bytes"] / per_cycle
    share = (len(cycles) - 16) * t["beat_bytes"] / (cycles[-1] - cycles[15]) / per_cycle
    lost = t["refresh_clocks"] / t["refresh_interval"]
    around = (t["ras"] + t["rp"] + t["rcd_read"] + t["rtp"] + t["faw"]) / t["refresh_interval"]
    if t["refresh_banks"] == 1:  # behind the stream, which meets a bank that is not ready once in a while
        lost, around = 0.0, 0.01
    assert min(1 - lost - around, of_port) - 0.005 < share < min(1 - lost + 0.005, of_port + 1e-9)


def on_chip(accesses: int = 2) -> dict[str, int]:
    """The memory on the vcu128's chip; with one access it has one port for both ways."""
    memory = load_board("vcu128").memories["onchip"]
    figures = completed({"accesses": accesses, "reads": 32, "writes": 32}, 225, memory.port_bytes)
    ports = {name: memory.timing.values[name] // (3 - accesses) for name in ("request", "response")}
    return MemoryTiming(figures["clock_mhz"], {**{name: figures[name] for name in STATED}, **ports}).channel(225, 64)


def test_the_memory_on_the_chip_is_what_its_file_says() -> None:
    assert on_chip() == load_board("vcu128").memories["onchip"].timing.channel(225, 64)


def test_on_the_chip_data_comes_after_ten_cycles_wherever_it_lies() -> None:
    """In rows that were never open, right behind a write, in an idle channel and after a long rest."""
    timing = on_chip()
    for address in (0, 1 << 20, (3 << 19) - 64):
        for cycle in (10, 50_000):
            seen, commands = run(timing, Traffic([(cycle, address, 2)], []), by_event=False)
            assert seen["beat"] == [cycle + 10, cycle + 11]
            assert [c.kind for c in commands if c.kind in ("refresh", "precharge")] == []
    seen, _ = run(timing, Traffic([(14, 0, 1)], [(10, 1 << 20, 1)]), by_event=False)
    assert (seen["response"], seen["beat"]) == ([21], [24])  # the write's data comes in cycle 11


@pytest.mark.parametrize(("accesses", "cycles"), [(2, 64), (1, 128)])
def test_on_the_chip_reads_and_writes_pass_beside_each_other(accesses: int, cycles: int) -> None:
    """64 beats each way: as long as one way alone with a port for each, twice as long with one for both."""
    reads, writes = [(0, 1024 * i, 16) for i in range(4)], [(0, (1 << 19) + 64 * i, 1) for i in range(64)]
    alone, both = (beats(on_chip(accesses), Traffic(reads, w)) for w in ([], writes))
    assert alone[-1] - alone[0] == 63
    assert cycles - 8 <= both[-1] - both[0] + 1 <= cycles + 8


# -- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "message"), [
    ({"clocks": 0}, "clocks: expected 1..1000000"), ({"window": 0}, "window: expected 1..1000"),
    ({"interleave": 3}, "interleave: expected a divisor"), ({"page_bytes": 33}, "page_bytes: expected a multiple"),
    ({"ccd_s": 1}, "ccd_s: expected at least burst_clocks"), ({"refresh_banks": 3}, "refresh_banks: expected 1"),
    ({"refresh_postponed": 1}, "refresh_postponed: expected 0"),
    ({"refresh_interval": 48}, "refresh_interval: expected longer than a refresh"),
])  # fmt: skip
def test_an_unsound_timing(change: dict[str, int], message: str) -> None:
    with pytest.raises(DlavmError, match=f"memory timing: {message}"):
        MemoryChannel(SMALL | change)


def test_the_page_holds_the_shares(repository: Path) -> None:
    path = repository / "scripts" / "memory_share.py"
    spec = importlib.util.spec_from_file_location("memory_share", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table() in (repository / "doc" / "timing.md").read_text(), "stale: run scripts/memory_share.py"
