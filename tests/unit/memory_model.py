"""For the memory channel: a small timing, a slow check of all that banks demand, two ways to drive it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlavm.sim.memory_channel import BankCommand, MemoryChannel

SMALL = {
    "clocks": 1, "cycles": 1, "beat_bytes": 32, "burst_bytes": 32, "burst_clocks": 2, "groups": 1, "banks": 2,
    "page_bytes": 128, "interleave": 1, "cl": 5, "cwl": 3, "rcd_read": 4, "rcd_write": 3, "rp": 4, "ras": 9, "rrd_s": 2,
    "rrd_l": 3, "faw": 12, "ccd_s": 2, "ccd_l": 2, "wtr_s": 3, "wtr_l": 4, "rtp": 2, "wr": 5, "rtw": 1,
    "refresh_interval": 1_000_000, "refresh_clocks": 20, "refresh_banks": 2, "refresh_postponed": 0, "request": 1,
    "response": 2, "reads": 4, "writes": 4, "window": 4, "batch": 4,
}  # fmt: skip
"""One group of two banks with rows of four bursts; a clock is a cycle; refresh far away."""

LONG = 10_000_000  # cycles


# -- What banks demand ------------------------------------------------------------------------------------------------


def violations(t: Mapping[str, int], commands: list[BankCommand]) -> Iterator[str]:
    """The rules of JEDEC that a list of commands breaks, each looked at for itself over all commands."""
    done = sorted(commands, key=lambda c: (c.clock, c.kind != "precharge"))
    yield from _spacing(t, done)
    for bank in range(t["groups"] * t["banks"]):
        everywhere = t["refresh_banks"] != 1
        mine = [c for c in done if c.bank == bank or (c.kind == "refresh" and everywhere)]
        yield from _of_bank(t, mine)


def _spacing(t: Mapping[str, int], done: list[BankCommand]) -> Iterator[str]:
    activates = [c for c in done if c.kind == "activate"]
    columns = [c for c in done if c.kind in ("read", "write")]
    for what, list_, short, long in (("tRRD", activates, "rrd_s", "rrd_l"), ("tCCD", columns, "ccd_s", "ccd_l")):
        for at, later in enumerate(list_):
            for earlier in list_[max(0, at - 64):at]:
                same = earlier.bank // t["banks"] == later.bank // t["banks"]
                if later.clock - earlier.clock < t[long if same else short]:
                    yield f"{what} of {earlier} and {later}"
    for first, fifth in zip(activates, activates[4:], strict=False):
        if fifth.clock - first.clock < t["faw"]:
            yield f"tFAW of {first} and {fifth}"
    for at, later in enumerate(columns):
        for earlier in columns[max(0, at - 64):at]:
            if earlier.kind != later.kind and later.clock < earlier.clock + _turn(t, earlier, later):
                yield f"turnaround of {earlier} and {later}"


def _turn(t: Mapping[str, int], earlier: BankCommand, later: BankCommand) -> int:
    if earlier.kind == "read":
        return t["cl"] + t["burst_clocks"] + t["rtw"] - t["cwl"]
    same = earlier.bank // t["banks"] == later.bank // t["banks"]
    return t["cwl"] + t["burst_clocks"] + t["wtr_l" if same else "wtr_s"]


def _of_bank(t: Mapping[str, int], mine: list[BankCommand]) -> Iterator[str]:
    least = {
        ("activate", "read"): t["rcd_read"], ("activate", "write"): t["rcd_write"], ("activate", "precharge"): t["ras"],
        ("precharge", "activate"): t["rp"], ("precharge", "refresh"): t["rp"], ("read", "precharge"): t["rtp"],
        ("write", "precharge"): t["cwl"] + t["burst_clocks"] + t["wr"], ("refresh", "activate"): t["refresh_clocks"],
    }  # fmt: skip
    row: int | None = None
    last: dict[str, int] = {}
    for c in mine:
        for kind, clock in last.items():
            if c.clock - clock < least.get((kind, c.kind), 0):
                yield f"{kind} at {clock}, then {c}"
        if (c.kind in ("activate", "refresh")) != (row is None) or (c.kind in ("read", "write") and c.row != row):
            yield f"{c} with the row {row} open"
        row = c.row if c.kind == "activate" else None if c.kind in ("precharge", "refresh") else row
        last[c.kind] = c.clock


# -- Two drivers ------------------------------------------------------------------------------------------------------


@dataclass
class Traffic:
    """What a core asks for: (first cycle, address, beats) of reads and writes."""

    reads: list[tuple[int, int, int]]
    writes: list[tuple[int, int, int]]
    pause: int = 0  # every so many cycles no beat is taken

    def takes(self, cycle: int) -> bool:
        return self.pause == 0 or cycle % self.pause != 0


@dataclass
class Port:
    """A core's side of one channel, and what it saw: cycles by kind of event."""

    channel: MemoryChannel
    traffic: Traffic
    seen: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    reads: int = 0
    writes: int = 0
    data: list[int] = field(default_factory=list)  # beats that writes still have to send
    owed: list[int] = field(default_factory=lambda: [0, 0])  # beats, responses

    def done(self) -> bool:
        return (self.reads, self.writes) == (len(self.traffic.reads), len(self.traffic.writes)) and not any(
            (*self.data, *self.owed)
        )

    def step(self, cycle: int) -> None:
        """The handshakes at one edge."""
        c, traffic = self.channel, self.traffic
        if traffic.takes(cycle) and c.beat_ready(cycle):
            c.take_beat()
            self.owed[0] -= 1
            self.seen["beat"].append(cycle)
        if c.response_ready(cycle):
            c.take_response()
            self.owed[1] -= 1
            self.seen["response"].append(cycle)
        if self.data:
            c.write_beat(cycle)
            self.data[0] -= 1
            if not self.data[0]:
                self.data.pop(0)
        if self.reads < len(traffic.reads) and traffic.reads[self.reads][0] <= cycle and c.read_room(cycle):
            _, address, beats = traffic.reads[self.reads]
            c.read(cycle, address, beats)
            self.reads += 1
            self.owed[0] += beats
            self.seen["read"].append(cycle)
        if self.writes < len(traffic.writes) and traffic.writes[self.writes][0] <= cycle and c.write_room(cycle):
            _, address, beats = traffic.writes[self.writes]
            c.write(cycle, address, beats)
            self.writes += 1
            self.data.append(beats)
            self.owed[1] += 1
            self.seen["write"].append(cycle)

    def next_event(self, cycle: int) -> int:
        """The first cycle behind `cycle` at which a handshake may happen."""
        c, traffic = self.channel, self.traffic
        times = [c.next_beat(), c.next_response()]
        if self.data:
            times.append(cycle + 1)
        if self.reads < len(traffic.reads):
            times.append(traffic.reads[self.reads][0])
        if self.writes < len(traffic.writes):
            times.append(max(traffic.writes[self.writes][0], c.next_write_room()))
        return min(max(time, cycle + 1) for time in times)


def run(timing: Mapping[str, int], traffic: Traffic, by_event: bool, record: bool = True) -> Any:
    """Every cycle, or from event to event: (cycles by event, commands). A channel that records takes no short ways."""
    port = Port(MemoryChannel(timing, record), traffic)
    cycle = 0
    while not port.done():
        port.step(cycle)
        cycle = port.next_event(cycle) if by_event and not port.done() else cycle + 1
        assert cycle < LONG
    port.channel.read_room(LONG)  # so that writes that were answered are done, too
    return dict(port.seen), port.channel.commands()
