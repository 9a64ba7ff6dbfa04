"""Engine against engine: the numpy reference and the C++ simulator run the same stream; memory is compared byte for
byte after every command."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.env import SIMD_LEVELS
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from tests.conftest import examples
from tests.ops.coverage import covering_cases
from tests.ops.programs import MAKERS, PROGRAM, USED, Case, chained_case, random_case


def start(device: Any, spec: TargetSpec, case: Case) -> None:
    base = spec.space("weights").base
    registers = {n: r.offset for n, r in spec.registers.items()}
    device.mem_write(base, case.memory.tobytes())
    device.csr_write(registers["PROGRAM"], (base + PROGRAM) // 16)
    device.csr_write(registers["PROGRAM_WORDS"], len(case.words))
    device.csr_write(registers["CONTROL"], 1)


def compare_stepwise(spec: TargetSpec, native: Any, case: Case) -> int:
    """Runs a case one command at a time on both engines; returns the number of commands."""
    assert spec.space("weights").base == 0  # the cases use addresses from zero
    reference = ReferenceDevice(spec)
    for device in (reference, native):
        start(device, spec, case)
    commands = 0
    mine, theirs = np.empty(USED, np.uint8), np.empty(USED, np.uint8)
    while reference.run(1):
        assert native.run(1) == 1
        commands += 1
        reference.mem_read_into(0, mine)
        native.mem_read_into(0, theirs)
        different = np.flatnonzero(mine != theirs)
        assert different.size == 0, f"command {commands}: byte 0x{different[0]:x} and {different.size - 1} more differ"
    assert native.run(1) == 0
    return commands


BOARDS = ("nano", "vcu128", "u280")


@pytest.fixture(scope="module")
def simulators() -> Iterator[dict[str, NativeDevice]]:
    """By board; what a case leaves in a device must not matter to the next one."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(NativeDevice(load_target("v3", name))) for name in BOARDS}


@settings(max_examples=examples(36))
@given(board=st.sampled_from(BOARDS), seed=st.integers(0, (1 << 63) - 1), commands=st.integers(1, 8))
def test_random_programs(simulators: dict[str, NativeDevice], board: str, seed: int, commands: int) -> None:
    spec = load_target("v3", board)
    assert compare_stepwise(spec, simulators[board], random_case(spec, seed, commands)) > commands


@settings(max_examples=examples(8))
@given(seed=st.integers(0, (1 << 63) - 1))
@example(1018)  # of these four a LINEAR is drawn a destination among its own weights
@example(1037)
@example(1092)
@example(1130)
def test_chained_programs(seed: int) -> None:
    """They write into weights and caches, but no command into its own, of which it is undefined what it then reads.

    A new device for each, as they load no tables."""
    spec = load_target("v3", "nano")
    with NativeDevice(spec) as native:
        assert compare_stepwise(spec, native, chained_case(spec, seed, 20)) > 20


def test_a_maker_and_a_meaning_for_each_engine_command() -> None:
    spec = load_target("v3", "nano")
    engine = {c.name for c in spec.commands.values() if c.engine}
    assert {make.__name__.upper() for make in MAKERS} == engine - {"LOAD_TABLE"}  # which every program begins with
    beyond = replace(spec, commands={**spec.commands, "WARP": replace(spec.commands["COPY"], name="WARP", opcode=0x7F)})
    with pytest.raises(DlavmError, match="expected a meaning of every command of v3, got none of WARP"):
        ReferenceDevice(beyond)


def test_every_value_of_every_field() -> None:
    """All of the instruction set on both engines, exponents past their limits too."""
    spec = load_target("v3", "nano")
    with NativeDevice(spec) as native:
        for _, case in covering_cases(spec):
            compare_stepwise(spec, native, case)


@pytest.mark.parametrize("simd", SIMD_LEVELS[1:])
def test_every_simd_path(simd: str) -> None:
    spec = load_target("v3", "nano")
    with NativeDevice(spec) as native:
        try:
            native.set_option("simd", simd)
        except DlavmError as e:
            if simd == "portable":
                raise
            pytest.skip(f"this machine lacks {simd}: {e}")
        for seed in range(100, 104):
            compare_stepwise(spec, native, random_case(spec, seed, commands=12))


@pytest.mark.slow
@pytest.mark.parametrize("board", ["nano", "vcu128", "u280"])
def test_many_random_programs(board: str) -> None:
    spec = load_target("v3", board)
    with NativeDevice(spec) as native:
        for seed in range(1000, 1400):
            compare_stepwise(spec, native, random_case(spec, seed, commands=10))
