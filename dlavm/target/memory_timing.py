"""When a board's memory answers: targets/memories and `timing` in targets/boards, for dlavm/memory_timing.h."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from dlavm.support.described import Kind, check_keys, check_range
from dlavm.support.errors import DlavmError

FIELDS = (
    "clocks", "cycles", "beat_bytes", "burst_bytes", "burst_clocks", "groups", "banks", "page_bytes", "interleave",
    "cl", "cwl", "rcd_read", "rcd_write", "rp", "ras", "rrd_s", "rrd_l", "faw", "ccd_s", "ccd_l", "wtr_s", "wtr_l",
    "rtp", "wr", "rtw", "refresh_interval", "refresh_clocks", "refresh_banks", "refresh_postponed", "request",
    "response", "reads", "writes", "window", "batch",
)  # fmt: skip
"""Those of dlavm_memory_timing, in its order. The first three follow from the clocks and the port."""

PORT = ("request", "response")  # stated by the board; the others by a file of targets/memories
STATED = tuple(name for name in FIELDS[3:] if name not in PORT)
KEYS: Mapping[str, Kind] = {"doc": str, "clock_mhz": (int, float), **dict.fromkeys(STATED, int)}
BOARD_KEYS: Mapping[str, Kind] = {"of": str, **dict.fromkeys(PORT, int)}
MOST = 1_000_000_000

RAM_KEYS: Mapping[str, Kind] = {"doc": str, "accesses": int, "reads": int, "writes": int}
"""Of a RAM on the chip: `accesses` in a cycle of the core, each of a beat of the port, one or one for each port."""
RAM_PAGE = 1 << 20
RAM: Mapping[str, int] = {
    **dict.fromkeys(STATED, 0), "burst_clocks": 1, "groups": 1, "banks": 1, "interleave": 1, "ccd_s": 1, "ccd_l": 1,
    "refresh_interval": MOST, "refresh_banks": 1, "window": 1, "batch": 1,
}  # fmt: skip
"""Its other figures: any access may follow any other in the next clock, rows cost nothing, a refresh has no length,
reads and writes take turns where both wait."""


@dataclass(frozen=True)
class MemoryTiming:
    """`values` has a number for each of STATED and PORT; what the C header calls clocks are those of `clock_mhz`.
    `accesses`: of a RAM on the chip, in a cycle of the core; else 0."""

    clock_mhz: float
    values: Mapping[str, int] = field(hash=False)
    accesses: int = 0

    def channel(self, core_mhz: float, beat_bytes: int) -> dict[str, int]:
        """A number for each of FIELDS: a channel behind a core that passes `beat_bytes` a cycle each way."""
        ratio = _exact(self.clock_mhz) / _exact(core_mhz)
        return {"clocks": ratio.numerator, "cycles": ratio.denominator, "beat_bytes": beat_bytes, **self.values}


def check_reference(place: str, raw: Any) -> None:
    """The `timing` of a board's memory: a file of targets/memories and the clocks of the way to it and back."""
    check_keys(place, raw, BOARD_KEYS)
    for name in PORT:
        check_range(f"{place}: {name}", raw[name], 0, MOST)


def check_memory(place: str, raw: Any) -> None:
    """A file of targets/memories. Whether a channel can work with the numbers, the model itself says."""
    if isinstance(raw, dict) and "accesses" in raw:
        check_keys(place, raw, RAM_KEYS)
        check_range(f"{place}: accesses", raw["accesses"], 1, 2)
        return
    check_keys(place, raw, KEYS)
    for name in STATED:
        check_range(f"{place}: {name}", raw[name], 0, MOST)
    for name in ("clock_mhz", "burst_bytes", "burst_clocks"):
        if not 0 < raw[name] < float("inf"):
            raise DlavmError(f"{place}: {name}: expected a number above 0, got {raw[name]}")


def completed(memory: Mapping[str, Any], core_mhz: float, port_bytes: int) -> Mapping[str, Any]:
    """A file of targets/memories with every figure: for a RAM on the chip behind such ports they follow."""
    if "accesses" not in memory:
        return memory
    own = {"clock_mhz": memory["accesses"] * core_mhz, "burst_bytes": port_bytes,
           "page_bytes": RAM_PAGE // port_bytes * port_bytes}  # fmt: skip
    return {**RAM, **own, **{name: memory[name] for name in ("accesses", "reads", "writes")}}


def merged(reference: Mapping[str, Any], memory: Mapping[str, Any]) -> dict[str, Any]:
    """What the board and the memory's file say together, without prose."""
    return {name: value for name, value in {**memory, **reference}.items() if name != "doc"}


def read_timing(place: str, raw: Mapping[str, Any], channels: int, peak_gbs: float) -> MemoryTiming:
    """Of a merged timing. Raises DlavmError where it gives `channels` of them another peak than the board's, which is
    that of each way where reads and writes have a port of their own."""
    clocks = raw["burst_clocks"] * raw.get("accesses", 1)
    peak = channels * raw["burst_bytes"] * _exact(raw["clock_mhz"]) / clocks / 1000
    if peak != _exact(peak_gbs):
        raise DlavmError(f"{place}: of: expected a memory whose bursts give the peak_gbs of {peak_gbs}, got "
                         f"{float(peak):g} from {channels} channels of {raw['of']}")  # fmt: skip
    values = {name: raw[name] for name in (*STATED, *PORT)}
    return MemoryTiming(raw["clock_mhz"], values, raw.get("accesses", 0))


def _exact(number: float) -> Fraction:
    """The decimal that a person wrote, not the binary number next to it."""
    return Fraction(str(number))
