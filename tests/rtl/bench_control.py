"""cocotb: registers over AXI4-Lite with delays on every handshake, start and reset, the scalar arithmetic."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from dlavm.sim.reference.device import scalar
from dlavm.target import load_target
from tests.rtl.drive import reset, start

SPEC = load_target("v3", "nano")
REGISTERS = {name: register.offset for name, register in SPEC.registers.items()}
BUSY, DONE, ERROR = 1, 2, 4
BUS = SPEC.enums["error"]["bus"]
LIMIT = 100  # cycles of a handshake
Rng = np.random.Generator


class Registers:
    """An AXI4-Lite master that lets up to `delay` cycles pass before each of its signals."""

    def __init__(self, dut: Any, rng: Rng, delay: int) -> None:
        self.dut, self.rng, self.delay = dut, rng, delay

    async def _pause(self) -> None:
        for _ in range(int(self.rng.integers(0, self.delay + 1))):
            await RisingEdge(self.dut.clk_i)

    async def _give(self, prefix: str, **values: int) -> None:
        """Holds valid until the ready of the same cycle."""
        await self._pause()
        for name, value in values.items():
            getattr(self.dut, f"{prefix}_{name}_i").value = value
        getattr(self.dut, f"{prefix}_valid_i").value = 1
        await self._until(f"{prefix}_ready_o")
        getattr(self.dut, f"{prefix}_valid_i").value = 0

    async def _until(self, name: str) -> None:
        for _ in range(LIMIT):
            await RisingEdge(self.dut.clk_i)
            if getattr(self.dut, name).value == 1:
                return
        raise AssertionError(f"{name} does not come")

    async def _take(self, prefix: str) -> None:
        await self._pause()
        getattr(self.dut, f"{prefix}_ready_i").value = 1
        await self._until(f"{prefix}_valid_o")
        getattr(self.dut, f"{prefix}_ready_i").value = 0

    async def write(self, offset: int, value: int) -> None:
        """Address and data in any order."""
        data = cocotb.start_soon(self._give("w", data=value))
        await self._give("aw", addr=offset)
        await data
        await self._take("b")

    async def read(self, offset: int) -> int:
        await self._give("ar", addr=offset)
        await self._take("r")
        return int(self.dut.r_data_o.value)


async def begin(dut: Any, seed: int, delay: int) -> Registers:
    await start(dut)
    dut.run_quiet_i.value = 1
    return Registers(dut, np.random.default_rng(seed), delay)


@cocotb.test()
async def what_is_written_is_read(dut: Any) -> None:
    for delay in (0, 3):
        registers = await begin(dut, delay, delay)
        offsets = [REGISTERS["PROGRAM"], REGISTERS["PROGRAM_WORDS"], *(REGISTERS["ARG"] + 4 * i for i in range(8))]
        values = {offset: int(registers.rng.integers(1 << 32)) for offset in offsets}
        for offset in registers.rng.permutation(offsets).tolist():
            await registers.write(offset, values[offset])
        for offset in registers.rng.permutation(offsets).tolist():
            assert await registers.read(offset) == values[offset]
        await registers.write(REGISTERS["ID"], 0)  # ignored, as what does not exist
        await registers.write(0xFF8, 5)
        assert await registers.read(REGISTERS["ID"]) == 0x1234ABCD
        assert await registers.read(0xFF8) == 0


async def finish(dut: Any, code: int, pc: int) -> None:
    """The front end's end of a run, after three commands."""
    dut.run_busy_i.value = 1
    for _ in range(3):
        dut.run_counted_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.run_counted_i.value = 0
        await RisingEdge(dut.clk_i)
    dut.run_finished_i.value, dut.run_code_i.value, dut.run_pc_i.value, dut.run_busy_i.value = 1, code, pc, 0
    await RisingEdge(dut.clk_i)
    dut.run_finished_i.value = 0
    await RisingEdge(dut.clk_i)


@cocotb.test()
async def a_run_and_its_counters(dut: Any) -> None:
    registers = await begin(dut, 5, 2)
    for code, pc, status in ((0, 0, DONE), (4, 77, ERROR), (0, 0, DONE)):
        await registers.write(REGISTERS["CONTROL"], 1)
        assert await registers.read(REGISTERS["STATUS"]) == BUSY
        assert await registers.read(REGISTERS["CONTROL"]) == 0
        await finish(dut, code, pc)
        assert await registers.read(REGISTERS["STATUS"]) == status
        assert await registers.read(REGISTERS["ERROR"]) == code
        assert await registers.read(REGISTERS["ERROR_PC"]) == pc
        assert await registers.read(REGISTERS["COMMANDS"]) == 3
        assert [await registers.read(REGISTERS["BYTES_READ"] + 4 * i) for i in range(2)] == [3, 3]
        assert await registers.read(REGISTERS["BYTES_WRITTEN"]) == 9
        assert await registers.read(REGISTERS["CYCLES"]) > 6


@cocotb.test()
async def a_reset_waits_for_the_core(dut: Any) -> None:
    registers = await begin(dut, 6, 1)
    await registers.write(REGISTERS["PROGRAM"], 99)
    await registers.write(REGISTERS["CONTROL"], 1)
    dut.run_busy_i.value, dut.run_quiet_i.value = 1, 0
    await registers.write(REGISTERS["CONTROL"], 2)
    for _ in range(20):
        await RisingEdge(dut.clk_i)
        assert dut.run_abort_o.value == 1 and dut.run_reset_o.value == 0
    assert await registers.read(REGISTERS["CONTROL"]) == 2
    await finish(dut, 0, 0)
    assert await registers.read(REGISTERS["CONTROL"]) == 2  # memory still owes something
    dut.run_quiet_i.value = 1
    await RisingEdge(dut.clk_i)
    await RisingEdge(dut.clk_i)
    for name in ("CONTROL", "STATUS", "PROGRAM", "CYCLES", "COMMANDS"):
        assert await registers.read(REGISTERS[name]) == 0


@cocotb.test()
async def a_start_after_a_bus_error(dut: Any) -> None:
    """The core is reset first, the registers are not, and the start comes when the reset is over."""
    registers = await begin(dut, 7, 1)
    order: list[str] = []

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk_i)
            order.extend(name for name in ("core_reset", "start") if getattr(dut, f"run_{name}_o").value == 1)

    cocotb.start_soon(watch())
    await registers.write(REGISTERS["PROGRAM"], 42)
    for code in (BUS, 0, BUS, 4, 0):
        await registers.write(REGISTERS["CONTROL"], 1)
        for _ in range(10):
            if await registers.read(REGISTERS["CONTROL"]) == 0:
                break
        assert await registers.read(REGISTERS["STATUS"]) == BUSY
        await finish(dut, code, 8)
    assert order == ["start", "core_reset", "start", "start", "core_reset", "start", "start"]
    assert await registers.read(REGISTERS["PROGRAM"]) == 42


def words(rng: Rng, count: int) -> list[int]:
    edges = [0, 1, 2, 7, 31, 32, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFFFFF9]
    return [int(rng.choice(edges)) if rng.random() < 0.5 else int(rng.integers(1 << int(rng.integers(1, 33))))
            for _ in range(count)]


@cocotb.test()
async def scalars(dut: Any) -> None:
    rng = np.random.default_rng(8)
    await start(dut)
    for name, number in SPEC.enums["scalar_fn"].items():
        if name == "load":
            continue
        for a, b in zip(words(rng, 150), words(rng, 150), strict=True):
            if name in ("shl", "shr") and rng.random() < 0.8:
                b &= 31
            dut.alu_fn_i.value, dut.alu_a_i.value, dut.alu_b_i.value, dut.alu_start_i.value = number, a, b, 1
            await RisingEdge(dut.clk_i)
            dut.alu_start_i.value = 0
            for _ in range(LIMIT):
                await RisingEdge(dut.clk_i)
                if dut.alu_done_o.value == 1:
                    break
            want = scalar(name, a, b)
            assert dut.alu_error_o.value == (want is None), f"{name} {a:#x} {b:#x}"
            if want is not None:
                assert int(dut.alu_result_o.value) == want & 0xFFFFFFFF, f"{name} {a:#x} {b:#x}"


@cocotb.test()
async def a_division_that_is_reset(dut: Any) -> None:
    await start(dut)
    for cycles in (1, 5, 20, 33):
        dut.alu_fn_i.value, dut.alu_a_i.value, dut.alu_b_i.value = SPEC.enums["scalar_fn"]["div"], 1000, 7
        dut.alu_start_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.alu_start_i.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk_i)
        await reset(dut)
        for _ in range(40):
            await RisingEdge(dut.clk_i)
            assert dut.alu_done_o.value == 0
