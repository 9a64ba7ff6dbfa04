"""Damaged streams: both engines stop at the same command with the same error, or both end."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.target import load_target
from dlavm.target.spec import ADDRESS_UNIT
from tests.ops.programs import PROGRAM, Case, random_case
from tests.ops.test_engines import start

NANO = load_target("v3", "nano")
REGISTERS = {name: register.offset for name, register in NANO.registers.items()}
STREAM = NANO.board.memories["ddr"].base
BOUND = 400  # commands: a damaged count must not keep a test running


def damaged(seed: int) -> Case:
    """A random program in which one to three words were flipped, cleared, filled or replaced."""
    rng = np.random.default_rng(seed)
    case = random_case(NANO, seed, commands=4)
    words, memory = list(case.words), case.memory.copy()
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(words)))
        words[at] = int(rng.choice([words[at] ^ (1 << int(rng.integers(32))), 0, 0xFFFFFFFF,
                                    int(rng.integers(1 << 32)), int(rng.integers(64))]))
    memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
    return replace(case, memory=memory, words=words)


def outcome(device: Any, case: Case) -> tuple[str, int, int, int]:
    """Error name, and what the registers ERROR, ERROR_PC and STATUS say.

    The stream lies in a memory of its own: rows that overlap, as damaged ones may, are written in any order
    (numerics.md section 11), and must not change it.
    """
    device.csr_write(REGISTERS["CONTROL"], 2)
    start(device, NANO, case)
    device.csr_write(REGISTERS["CONTROL"], 2)
    device.mem_write(STREAM, np.array(case.words, dtype="<u4"))
    device.csr_write(REGISTERS["PROGRAM"], STREAM // ADDRESS_UNIT)
    device.csr_write(REGISTERS["PROGRAM_WORDS"], len(case.words))
    device.csr_write(REGISTERS["CONTROL"], 1)
    code = "none"
    try:
        device.run(BOUND)
    except DeviceError as error:
        code = error.code
    return code, *(device.csr_read(REGISTERS[name]) for name in ("ERROR", "ERROR_PC", "STATUS"))


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_the_same_error_at_the_same_command(first: int) -> None:
    with NativeDevice(NANO) as native:
        for seed in range(first, first + 20):
            case = damaged(seed)
            assert outcome(native, case) == outcome(ReferenceDevice(NANO), case), f"seed {seed}"


def test_damage_reaches_many_errors() -> None:
    with NativeDevice(NANO) as native:
        seen = {outcome(native, damaged(seed))[0] for seed in range(200)}
    assert {"none", "illegal_opcode", "bad_length", "reserved_bits", "field_range", "bad_address"} <= seen
