"""Damaged streams and registers: both engines stop at the same command with the same error, or both end."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import payload
from dlavm.target.spec import ADDRESS_UNIT
from tests.ops.programs import PROGRAM, Case, random_case

V1, V2, NANO = (load_target(name, "nano") for name in ("v1", "v2", "v3"))
STREAMS = (V2, NANO)
BOUND = 400  # commands: a damaged count must not keep a test running
Rng = np.random.Generator


def hurt(rng: Rng, word: int) -> int:
    """A word flipped in one bit, cleared, filled or replaced."""
    return int(rng.choice([word ^ (1 << int(rng.integers(32))), 0, 0xFFFFFFFF, int(rng.integers(1 << 32)),
                           int(rng.integers(64))]))


def damaged(seed: int, spec: TargetSpec = NANO) -> Case:
    """A random program in which one to three words are not what they should be."""
    rng = np.random.default_rng(seed)
    case = random_case(spec, seed, commands=4)
    words, memory = list(case.words), case.memory.copy()
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(words)))
        words[at] = hurt(rng, words[at])
    memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
    return replace(case, memory=memory, words=words)


def damaged_launches(seed: int, spec: TargetSpec = V1) -> list[tuple[int, list[int]]]:
    """The opcodes and payloads of a random program, in most of which a word is not what it should be."""
    rng = np.random.default_rng(seed)
    launches = []
    for instr in random_case(spec, seed, commands=8).program:
        opcode, (words, _) = spec.commands[instr.op].opcode, payload(spec, instr)
        at = int(rng.integers(-3, len(words)))
        if at >= 0:
            words[at] = hurt(rng, words[at])
        launches.append((hurt(rng, opcode) if at == -1 else opcode, words))
    return launches


def outcome(device: Any, case: Case, bound: int | None = BOUND, spec: TargetSpec = NANO) -> tuple[str, int, int, int]:
    """Error name, and what the registers ERROR, ERROR_PC and STATUS say.

    The stream lies in a memory of its own: rows that overlap, as damaged ones may, are written in any order
    (numerics.md section 11), and must not change it.
    """
    registers, stream = {name: r.offset for name, r in spec.registers.items()}, spec.board.memories["ddr"].base
    device.csr_write(registers["CONTROL"], 2)
    device.mem_write(spec.space("weights").base, case.memory.tobytes())
    device.mem_write(stream, np.array(case.words, dtype="<u4"))
    device.csr_write(registers["PROGRAM"], stream // ADDRESS_UNIT)
    device.csr_write(registers["PROGRAM_WORDS"], len(case.words))
    device.csr_write(registers["CONTROL"], 1)
    code = "none"
    try:
        device.run(bound)
    except DeviceError as error:
        code = error.code
    return code, *(device.csr_read(registers[name]) for name in ("ERROR", "ERROR_PC", "STATUS"))


def launched(device: Any, seed: int, spec: TargetSpec = V1) -> list[tuple[str, int, int]]:
    """Of each damaged launch the error's name, and what the registers ERROR and STATUS say; then what was counted."""
    registers = {name: r.offset for name, r in spec.registers.items()}
    device.csr_write(registers["CONTROL"], 2)
    device.mem_write(spec.space("weights").base, random_case(spec, seed, commands=8).memory.tobytes())
    device.csr_write(registers["CONTROL"], 1)
    found = []
    for opcode, words in damaged_launches(seed, spec):
        for i, word in enumerate(words):
            device.csr_write(registers["OP"] + 4 * i, word)
        code = "none"
        try:
            device.csr_write(registers["LAUNCH"], opcode)
        except DeviceError as error:
            code = error.code
        found.append((code, device.csr_read(registers["ERROR"]), device.csr_read(registers["STATUS"])))
    return [*found, ("commands", device.counters().commands, 0)]


@pytest.mark.parametrize("spec", STREAMS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("first", range(0, 80, 20))
def test_the_same_error_at_the_same_command(first: int, spec: TargetSpec) -> None:
    with NativeDevice(spec) as native:
        for seed in range(first, first + 20):
            case = damaged(seed, spec)
            want = outcome(ReferenceDevice(spec), case, spec=spec)
            assert outcome(native, case, spec=spec) == want, f"seed {seed}"


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_the_same_error_of_a_launch(first: int) -> None:
    with NativeDevice(V1) as native:
        for seed in range(first, first + 20):
            assert launched(native, seed) == launched(ReferenceDevice(V1), seed), f"seed {seed}"


@pytest.mark.parametrize("spec", STREAMS, ids=lambda spec: spec.name)
def test_damage_reaches_many_errors(spec: TargetSpec) -> None:
    with NativeDevice(spec) as native:
        seen = {outcome(native, damaged(seed, spec), spec=spec)[0] for seed in range(200)}
    assert {"none", "illegal_opcode", "bad_length", "reserved_bits", "field_range", "bad_address"} <= seen


def test_damage_of_registers_reaches_many_errors() -> None:
    with NativeDevice(V1) as native:
        seen = {code for seed in range(40) for code, *_ in launched(native, seed)}
    assert {"none", "illegal_opcode", "reserved_bits", "field_range", "bad_address", "buffer"} <= seen
