"""cocotb: the registers of a core without a stream: launches, and what counts from the last start on."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from dlavm.target import load_target
from tests.rtl.bench_control import BUS, BUSY, DONE, ERROR, begin, finish

SPEC = load_target("v1", "nano")
REGISTERS = {name: register.offset for name, register in SPEC.registers.items()}
V3 = load_target("v3", "nano")
ABSENT = {name: register.offset for name, register in V3.registers.items() if name not in REGISTERS}


@cocotb.test()
async def what_is_written_is_read(dut: Any) -> None:
    """OP in any order; what this generation does not have reads as zero."""
    for delay in (0, 3):
        registers = await begin(dut, delay, delay)
        offsets = [REGISTERS["OP"] + 4 * i for i in range(SPEC.registers["OP"].count)]
        values = {offset: int(registers.rng.integers(1 << 32)) for offset in offsets}
        for offset in registers.rng.permutation(offsets).tolist():
            await registers.write(offset, values[offset])
        for offset in ABSENT.values():
            await registers.write(offset, 7)
        for offset in registers.rng.permutation(offsets).tolist():
            assert await registers.read(offset) == values[offset]
        assert int(dut.run_op_o.value) == sum(value << 8 * (offset - offsets[0]) for offset, value in values.items())
        assert [await registers.read(offset) for offset in ABSENT.values()] == [0] * len(ABSENT)


@cocotb.test()
async def launches_count_on(dut: Any) -> None:
    """Each has its own end and error; the counters are those since the start."""
    registers = await begin(dut, 5, 2)
    for start in range(2):
        await registers.write(REGISTERS["CONTROL"], 1)
        assert dut.run_launch_o.value == 0
        await finish(dut, 0, 0)
        for launch, (code, status) in enumerate(((0, DONE), (4, ERROR), (0, DONE)), start=1):
            await registers.write(REGISTERS["LAUNCH"], 0x30 + start)
            assert int(dut.run_opcode_o.value) == 0x30 + start
            assert await registers.read(REGISTERS["STATUS"]) == BUSY
            assert await registers.read(REGISTERS["LAUNCH"]) == 0
            await finish(dut, code, 0)
            assert await registers.read(REGISTERS["STATUS"]) == status
            assert await registers.read(REGISTERS["ERROR"]) == code
            assert await registers.read(REGISTERS["COMMANDS"]) == 3 + 3 * launch
            assert await registers.read(REGISTERS["BYTES_WRITTEN"]) == 9 + 9 * launch


@cocotb.test()
async def a_launch_that_waits(dut: Any) -> None:
    """From its write on STATUS is busy, of opcode 0 too, which LAUNCH cannot tell of; a reset takes it back."""
    registers = await begin(dut, 6, 0)
    for opcode in (0x32, 0):
        await registers.write(REGISTERS["LAUNCH"], 0x20)
        dut.run_busy_i.value = 1
        await registers.write(REGISTERS["LAUNCH"], opcode)
        for _ in range(5):
            assert await registers.read(REGISTERS["STATUS"]) == BUSY
            assert await registers.read(REGISTERS["LAUNCH"]) == opcode
            assert dut.run_launch_o.value == 0
        await registers.write(REGISTERS["CONTROL"], 2)
        await finish(dut, 0, 0)
        assert await registers.read(REGISTERS["CONTROL"]) == 0
        for name in ("LAUNCH", "STATUS", "COMMANDS"):
            assert await registers.read(REGISTERS[name]) == 0


@cocotb.test()
async def a_launch_after_a_bus_error(dut: Any) -> None:
    """The core is reset first, the registers are not."""
    registers = await begin(dut, 7, 1)
    order: list[str] = []

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk_i)
            order.extend(name for name in ("core_reset", "launch") if getattr(dut, f"run_{name}_o").value == 1)

    cocotb.start_soon(watch())
    await registers.write(REGISTERS["OP"], 42)
    for code in (BUS, 0, BUS, 4, 0):
        await registers.write(REGISTERS["LAUNCH"], 0x32)
        for _ in range(10):
            if await registers.read(REGISTERS["LAUNCH"]) == 0:
                break
        assert await registers.read(REGISTERS["STATUS"]) == BUSY
        await finish(dut, code, 0)
    assert order == ["launch", "core_reset", "launch", "launch", "core_reset", "launch", "launch"]
    assert await registers.read(REGISTERS["OP"]) == 42
