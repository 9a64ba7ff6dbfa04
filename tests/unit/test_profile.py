"""The counters of a device's last run, from its registers."""

from __future__ import annotations

from typing import Any, cast

from dlavm.runtime.profile import read_profile
from dlavm.sim.device import Device
from dlavm.target import load_target


class Registers:
    """Counters that say of which channel and which register they are."""

    def __init__(self, spec: Any) -> None:
        self.offsets = {name: register.offset for name, register in spec.registers.items()}
        self.channel = 0

    def csr_write(self, offset: int, value: int) -> None:
        assert offset == self.offsets["CHANNEL"]
        self.channel = value

    def csr_read(self, offset: int) -> int:
        in_channel = self.offsets["CHANNEL_READ"] <= offset < self.offsets["ENGINE_BUSY"]
        return offset // 8 + 100 * self.channel * in_channel if offset % 8 == 0 else offset


def test_every_counter_has_its_place() -> None:
    """Low words say which, high words too; channels are counted through the memories."""
    spec = load_target("v3", "nano")
    device = Registers(spec)
    profile = read_profile(cast(Device, device), spec)

    def pair(name: str, place: int = 0, channel: int = 0) -> int:
        offset = device.offsets[name] + 8 * place
        return offset // 8 + 100 * channel + (offset + 4 << 32)

    assert profile.cycles == pair("CYCLES")
    assert profile.engines == {n: pair("ENGINE_BUSY", i) for i, n in enumerate(("load", "matrix", "vector", "store"))}
    assert [(c.memory, c.channel) for c in profile.channels] == [("hbm", 0), ("hbm", 1), ("ddr", 0)]
    for number, c in enumerate(profile.channels):
        expected = [pair(f"CHANNEL_{name}", 0, number) for name in ("READ", "WRITTEN", "BUSY", "STALLED", "IDLE")]
        assert [c.read, c.written, c.busy, c.stalled, c.idle] == expected
    report = profile.report()
    assert report["channels"][2]["memory"] == "ddr" and report["engines"]["store"] == profile.engines["store"]
