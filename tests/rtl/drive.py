"""Drives a bench from numpy arrays: one row of an array is one cycle's packed port value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

Array = npt.NDArray[Any]


async def start(dut: Any) -> None:
    """Starts the clock, zeroes every input and resets for three cycles."""
    Clock(dut.clk_i, 2, unit="step").start()
    for handle in dut:
        if handle._name.endswith("_i") and handle._name != "clk_i":
            handle.value = 0
    await reset(dut)


async def reset(dut: Any, cycles: int = 3) -> None:
    """Resets for some cycles."""
    dut.rst_i.value = 1
    for _ in range(cycles):
        await RisingEdge(dut.clk_i)
    dut.rst_i.value = 0
    await RisingEdge(dut.clk_i)


def words(rows: Array) -> list[int]:
    """Each row of an integer array as one integer, element 0 lowest."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    return [int.from_bytes(row.tobytes(), "little") for row in flat]


def pack(values: Array, bits: int) -> list[int]:
    """Each row of an integer array as one integer of two's complement fields of `bits` bits, element 0 lowest."""
    mask = (1 << bits) - 1
    flat = np.ascontiguousarray(values).reshape(len(values), -1).tolist()
    return [sum((v & mask) << (bits * i) for i, v in enumerate(row)) for row in flat]


def unpack(word: int, bits: int, count: int, signed: bool = True) -> list[int]:
    """The inverse of `pack` for one row."""
    fields = [(word >> (bits * i)) & ((1 << bits) - 1) for i in range(count)]
    return [v - (1 << bits) if signed and v >> (bits - 1) else v for v in fields]


async def pipeline(dut: Any, inputs: Mapping[str, list[int]], output: str, latency: int, dtype: type) -> Array:
    """Puts a row into each input every cycle and returns the rows of `output`, `latency` cycles later."""
    count = len(next(iter(inputs.values())))
    out_handle = getattr(dut, output)
    size = len(out_handle) // 8
    handles = [(getattr(dut, name), values) for name, values in inputs.items()]
    results = []
    for cycle in range(count + latency + 1):
        if cycle < count:
            for handle, values in handles:
                handle.value = values[cycle]
        await RisingEdge(dut.clk_i)
        # Values read here are those before the edge: of inputs written one cycle and `latency` registers ago.
        if latency <= cycle < count + latency:
            results.append(out_handle.value.to_unsigned().to_bytes(size, "little"))
    return np.frombuffer(b"".join(results), dtype).reshape(count, -1)
