"""What channels and engines did in a device's last run: the counters that are read over registers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dlavm.sim.device import Device
from dlavm.target.spec import TargetSpec


@dataclass(frozen=True)
class ChannelProfile:
    """Bytes and cycles of one memory channel; a cycle is busy, stalled or idle (targets/isa/registers.yaml)."""

    memory: str
    channel: int  # of the memory
    read: int
    written: int
    busy: int
    stalled: int
    idle: int


@dataclass(frozen=True)
class Profile:
    """Of one run. `engines`: cycles in which each ran a command. All are zero on functional engines."""

    cycles: int
    engines: dict[str, int]
    channels: tuple[ChannelProfile, ...]

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "channels": [asdict(channel) for channel in self.channels]}


def read_profile(device: Device, spec: TargetSpec) -> Profile:
    """The counters of the last run, some ten register reads a channel. Register CHANNEL is another one afterwards."""

    def pair(name: str, place: int = 0) -> int:
        offset = spec.registers[name].offset + 8 * place
        return device.csr_read(offset) | device.csr_read(offset + 4) << 32

    channels = []
    places = [(memory.name, c) for memory in spec.board.memories.values() for c in range(memory.channels)]
    for number, (memory, channel) in enumerate(places):
        device.csr_write(spec.registers["CHANNEL"].offset, number)
        values = (pair(f"CHANNEL_{what}") for what in ("READ", "WRITTEN", "BUSY", "STALLED", "IDLE"))
        channels.append(ChannelProfile(memory, channel, *values))
    engines = {name: pair("ENGINE_BUSY", number) for name, number in spec.enums["engine"].items()}
    return Profile(pair("CYCLES"), engines, tuple(channels))
