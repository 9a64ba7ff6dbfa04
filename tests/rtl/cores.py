"""Programs for every generation's core: where their operands lie, how they are run, what is left in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.rtl.model import library
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import Instr, SReg, payload
from dlavm.target.spec import ADDRESS_UNIT
from tests.ops.programs import CACHE, PROGRAM, REGION, USED, WEIGHTS, Case, case_of

V1, V2, V3 = (load_target(name, "nano") for name in ("v1", "v2", "v3"))
REGISTER_DRIVEN, PATCHED = (pytest.param(spec, id=spec.name, marks=pytest.mark.slow) for spec in (V1, V2))
STREAMS = (pytest.param(V3, id="v3"), PATCHED)
ORDERED = (PATCHED, REGISTER_DRIVEN)
GENERATIONS = (*STREAMS, REGISTER_DRIVEN)
"""Parameters of a test; the cores that `make test` does not build are slow."""

START, RESET = 1, 2
BUSY, DONE, FAILED = 1, 2, 4


def register(spec: TargetSpec, name: str) -> int:
    """The offset of a register."""
    return spec.registers[name].offset


def opened(spec: TargetSpec) -> Iterator[NativeDevice]:
    """The Verilated core of a target; for fixtures."""
    with NativeDevice(spec, f"rtl:{library(spec)}") as device:
        device.set_option("max_cycles", 2_000_000)
        yield device


def _base(spec: TargetSpec, address: int) -> int:
    """Where the space begins that holds what a case has at `address`: each region has its role."""
    region = address // REGION * REGION
    role = {WEIGHTS: "weights", CACHE: "kv", PROGRAM: "program"}.get(region, "activations")
    return spec.space(role).base if role in spec.roles else 0


def placed(spec: TargetSpec, case: Case) -> Case:
    """The case with every operand in the space of its role: addresses too that come through registers."""
    program, last_move = [], dict[int, int]()

    def moved(value: int | SReg) -> int:
        assert not isinstance(value, SReg)
        return value + _base(spec, value * ADDRESS_UNIT) // ADDRESS_UNIT

    for instr in case.program:
        fields, by_name = dict(instr.fields), spec.commands[instr.op].by_name
        for name, value in instr.fields.items():
            if by_name[name].kind != "addr":
                continue
            if isinstance(value, SReg):
                at = last_move[value.index]
                program[at] = Instr("SCALAR", {**program[at].fields, "b": moved(program[at].fields["b"])})
            else:
                fields[name] = moved(value)
        if instr.op == "SCALAR" and isinstance(fields["rd"], int):
            last_move[fields["rd"]] = len(program)
        program.append(Instr(instr.op, fields, instr.pred))
    return case_of(spec, case.memory, program)


def bases(spec: TargetSpec) -> list[int]:
    """Where the spaces begin that a target uses."""
    return sorted({spec.space(role).base for role in spec.roles})


def write(device: Any, spec: TargetSpec, case: Case) -> None:
    """The memory that the case starts on, in each space."""
    for base in bases(spec):
        device.mem_write(base, case.memory.tobytes())


def launch(device: Any, spec: TargetSpec, opcode: int, words: Sequence[int]) -> None:
    """One command of a register-driven target. Raises DeviceError where it stops the device."""
    for i, word in enumerate(words):
        device.csr_write(register(spec, "OP") + 4 * i, word)
    device.csr_write(register(spec, "LAUNCH"), opcode)


def execute(device: Any, spec: TargetSpec, case: Case) -> None:
    """Runs the program of a case whose memory is there. Raises DeviceError where it stops the device."""
    if spec.has("stream"):
        device.csr_write(register(spec, "PROGRAM"), (spec.space("program").base + PROGRAM) // ADDRESS_UNIT)
        device.csr_write(register(spec, "PROGRAM_WORDS"), len(case.words))
    device.csr_write(register(spec, "CONTROL"), START)
    if spec.has("stream"):
        device.run()
        return
    for instr in case.program:
        launch(device, spec, spec.commands[instr.op].opcode, payload(spec, instr)[0])
        assert device.csr_read(register(spec, "STATUS")) == DONE


def memory_after(device: Any, spec: TargetSpec, case: Case) -> NDArray[np.uint8]:
    """What a case leaves: [spaces, bytes]."""
    write(device, spec, case)
    execute(device, spec, case)
    return np.stack([np.frombuffer(device.mem_read(base, USED), np.uint8) for base in bases(spec)])


def check_same(core: Any, other: Any, spec: TargetSpec, case: Case, what: str) -> None:
    """The case leaves the same bytes on both devices."""
    want, got = memory_after(other, spec, case), memory_after(core, spec, case)
    different = np.argwhere(want != got)
    assert not different.size, f"{what}: {len(different)} bytes differ, the first at space {different[0][0]}, " \
                               f"0x{different[0][1]:x}"


def outcomes(device: Any, spec: TargetSpec, calls: Sequence[Callable[[Any], object]]) -> list[tuple[str, int, int]]:
    """For each call the name of its error, and what the registers ERROR and STATUS say."""
    found = []
    for call in calls:
        code = "none"
        try:
            call(device)
        except DeviceError as error:
            code = error.code
        found.append((code, *(device.csr_read(register(spec, name)) for name in ("ERROR", "STATUS"))))
    return found

