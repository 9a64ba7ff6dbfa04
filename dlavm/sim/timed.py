"""The timed simulator: the bytes of the functional one, and the cycles of the RTL (doc/timing.md)."""

from __future__ import annotations

from dlavm.sim.native import NativeDevice
from dlavm.target.sizes import sizes
from dlavm.target.spec import TargetSpec

SIZES = (
    "port_bytes", "halves", "row_units", "units", "lanes", "client_rows", "weight_rows", "share", "rows_most",
    "result_blocks",
)  # fmt: skip


def open_timed(spec: TargetSpec, threads: int | None = None, timing_only: bool = False) -> NativeDevice:
    """A timed device of a target on its board, with the board's memory. `timing_only`: no command writes anything.

    Raises DlavmError for a target or board that the RTL does not cover.
    """
    size = sizes(spec)
    device = NativeDevice(spec, "timed:" + ",".join(f"{name}={getattr(size, name)}" for name in SIZES), threads)
    try:
        for number, memory in enumerate(spec.board.memories.values()):
            figures = memory.timing.channel(spec.board.clock_mhz, size.port_bytes)
            text = " ".join(f"{name}={value}" for name, value in figures.items())
            device.set_option(f"memory{number}", text)
        device.set_option("timing_only", int(timing_only))
    except BaseException:
        device.close()
        raise
    return device
