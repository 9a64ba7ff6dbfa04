"""The whole core, Verilated, behind the device interface: the same programs on it and on the simulators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.rtl import build
from dlavm.rtl.model import library
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.paths import native_library
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import Instr
from tests.conftest import examples
from tests.ops import test_errors as errors
from tests.ops.programs import PROGRAM, READ, USED, WRITE, Case, case_of, random_case
from tests.rtl import cores
from tests.rtl.cores import BUSY, GENERATIONS, RESET, START, V3, check_same, execute, placed, register

missing = build.missing_tools()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture(params=GENERATIONS)
def spec(request: pytest.FixtureRequest) -> TargetSpec:
    """Each generation on nano; a test of some of them says so with `only`."""
    found: TargetSpec = request.param
    return found


@pytest.fixture
def core(spec: TargetSpec) -> Iterator[NativeDevice]:
    yield from cores.opened(spec)


def only(*specs: Any) -> pytest.MarkDecorator:
    """For a test of what not every generation has."""
    return pytest.mark.parametrize("spec", specs, indirect=True)


def random_placed(spec: TargetSpec, seed: int, commands: int) -> Case:
    return placed(spec, random_case(spec, seed, commands))


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(core: NativeDevice, spec: TargetSpec, seed: int) -> None:
    """Every command with memory of several latencies, and with stalls."""
    core.set_option("latency", (1, 7, 40, 150)[seed % 4])
    core.set_option("stalls", (0, 300)[seed // 4])
    core.set_option("seed", seed)
    check_same(core, ReferenceDevice(spec), spec, random_placed(spec, seed, commands=12), f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1000 + examples(100), 10))
def test_many_random_programs(core: NativeDevice, spec: TargetSpec, first: int) -> None:
    for seed in range(first, first + 10):
        core.set_option("stalls", (0, 0, 200)[seed % 3])
        check_same(core, ReferenceDevice(spec), spec, random_placed(spec, seed, commands=10), f"seed {seed}")


@pytest.mark.slow
def test_a_board_of_one_wide_channel() -> None:
    """kv260: rows of 64 bytes, a beat of its only channel, a memory that does not begin at zero."""
    spec = load_target("v3", "kv260")
    with NativeDevice(spec) as native:
        for core in cores.opened(spec):
            for seed in range(20):
                core.set_option("stalls", 200 * (seed % 2))
                check_same(core, native, spec, random_placed(spec, seed, commands=12), f"seed {seed}")


@only(*cores.ORDERED)
def test_without_semaphores_commands_run_in_turn(core: NativeDevice, spec: TargetSpec) -> None:
    """Copies (store) and additions (vector) over the same rows, with nothing between them."""
    rows = {"rows_o": 1, "rows_i": 1, "dim": 500}
    program: list[Instr] = []
    for step in range(12):
        a, b, c = ((WRITE + 0x800 * (step + i)) // 16 for i in range(3))
        program += [Instr("COPY", {"src": a if step else READ // 16, "dst": b, **rows}),
                    Instr("ELTWISE", {"fn": 0, "src": b, "b": b, "dst": c, **rows})]
    case = placed(spec, case_of(spec, np.arange(USED).astype(np.uint8), program))
    for latency in (1, 90):
        core.set_option("latency", latency)
        check_same(core, ReferenceDevice(spec), spec, case, f"latency {latency}")


def test_counters(core: NativeDevice, spec: TargetSpec) -> None:
    """Commands and bytes of operands as the simulator counts them; cycles pass."""
    with NativeDevice(spec) as native:
        for seed in range(4):
            case = random_placed(spec, seed, commands=10)
            for device in (native, core):
                cores.memory_after(device, spec, case)
            want, got = native.counters(), core.counters()
            assert (got.commands, got.bytes_read, got.bytes_written) == \
                (want.commands, want.bytes_read, want.bytes_written), f"seed {seed}"
            assert got.cycles > got.commands


@only(*cores.STREAMS)
@pytest.mark.parametrize("first", range(0, 80, 20))
def test_the_same_error_at_the_same_command(core: NativeDevice, spec: TargetSpec, first: int) -> None:
    compared = 0
    with NativeDevice(spec) as native:
        for seed in range(first, first + 20):
            case = errors.damaged(seed, spec)
            want = errors.outcome(native, case, spec=spec)
            if want[3] != BUSY:  # a damaged count may run for very long
                assert errors.outcome(core, case, None, spec) == want, f"seed {seed}"
                compared += 1
    assert compared > 10


@only(cores.REGISTER_DRIVEN)
@pytest.mark.parametrize("first", range(0, 40, 20))
def test_the_same_error_of_a_launch(core: NativeDevice, spec: TargetSpec, first: int) -> None:
    """Where LINEAR has several errors the core may name another (doc/hardware.md, "The core")."""
    linear, other = spec.commands["LINEAR"].opcode, 0
    with NativeDevice(spec) as native:
        for seed in range(first, first + 20):
            got, want = errors.launched(core, seed, spec), errors.launched(native, seed, spec)
            opcodes = [opcode for opcode, _ in errors.damaged_launches(seed, spec)]
            for opcode, mine, theirs in zip([*opcodes, None], got, want, strict=True):
                if opcode == linear and mine != theirs:
                    assert "none" not in (mine[0], theirs[0]), f"seed {seed}"
                    other += 1
                else:
                    assert mine == theirs, f"seed {seed}"
    assert other < 3


@only(cores.REGISTER_DRIVEN)
def test_registers_of_a_launch(core: NativeDevice, spec: TargetSpec) -> None:
    """A start counts anew and is done at once; STATUS tells of the last launch; OP stays, until a reset."""
    copy = spec.commands["COPY"].opcode
    words = [WRITE // 16, 0, 0, WRITE // 16 + 64, 0, 0, 1, 1, 8]
    with NativeDevice(spec) as native:
        for device in (native, core):
            seen = []
            for act in (lambda d: d.csr_write(register(spec, "CONTROL"), START),
                        *[lambda d: cores.launch(d, spec, copy, words)] * 2,
                        lambda d: cores.launch(d, spec, 0, words),
                        lambda d: d.run(),
                        lambda d: cores.launch(d, spec, copy | 1 << 8, words),
                        lambda d: cores.launch(d, spec, copy, [0xFFFFFFFF, *words[1:]]),
                        lambda d: cores.launch(d, spec, copy, words),
                        lambda d: d.csr_write(register(spec, "CONTROL"), START),
                        lambda d: d.csr_write(register(spec, "CONTROL"), RESET)):
                code = "none"
                try:
                    act(device)
                except DeviceError as error:
                    code = error.code
                counters = device.counters()
                seen.append((code, *(device.csr_read(register(spec, name)) for name in ("STATUS", "ERROR")),
                             device.csr_read(register(spec, "OP") + 12), counters.commands, counters.bytes_read))
            if device is native:
                want = seen
        assert seen == want
        assert [code for code, *_ in want] == ["none"] * 3 + ["illegal_opcode"] * 3 + ["bad_address"] + ["none"] * 3


# -- Resets ----------------------------------------------------------------------------------------------------------


def lasting(spec: TargetSpec) -> Case:
    """A program that takes more than 2,000 cycles: copies of 64 KiB."""
    copy = {"src": READ // 16, "src_so": 512, "dst": WRITE // 16, "dst_so": 512, "rows_o": 8, "rows_i": 1, "dim": 4096}
    return placed(spec, case_of(spec, np.ones(USED, np.uint8), [Instr("COPY", copy)] * 8))


def test_reset_while_it_runs(core: NativeDevice, spec: TargetSpec) -> None:
    """A reset is taken in the middle of anything; memory stays, registers go, and the next run is as any other."""
    for cycles in (1, 50, 333, 2000):
        cores.write(core, spec, lasting(spec))
        core.set_option("max_cycles", cycles)
        with pytest.raises(DeviceError, match="did not finish"):
            execute(core, spec, lasting(spec))
        assert core.csr_read(register(spec, "STATUS")) == BUSY
        core.csr_write(register(spec, "CONTROL"), RESET)
        operands = "PROGRAM" if spec.has("stream") else "OP"
        assert core.csr_read(register(spec, "STATUS")) == core.csr_read(register(spec, operands)) == 0
        assert core.csr_read(register(spec, "ID")) == int(spec.hash[:8], 16)
        core.set_option("max_cycles", 2_000_000)
        check_same(core, ReferenceDevice(spec), spec, random_placed(spec, cycles, commands=4), f"after {cycles} cycles")


# -- Errors of memory ------------------------------------------------------------------------------------------------

COPIED = {"src": 0x100, "src_so": 64, "dst": WRITE // 16, "dst_so": 64, "rows_o": 4, "rows_i": 1, "dim": 512}
GATHERED = {"ids": 0x100, "table": 0, "dst": WRITE // 16, "rows_o": 1, "dim": 8, "limit": 1}
SCORES = {"format": V3.enums["weight_format"]["kv_k"], "src": 0x100, "dst": WRITE // 16, "rows_o": 1, "rows_i": 1,
          "k": 64, "n": 64, "wgt": 0x400, "wgt_tile": 256, "batch": 1}
FAULTY: dict[str, tuple[Instr, int]] = {  # a command, and the unit that it reads or writes and memory does not
    "COPY reads": (Instr("COPY", COPIED), 0x150),
    "COPY writes": (Instr("COPY", COPIED), WRITE // 16 + 0x90),
    "GATHER's ids": (Instr("GATHER", GATHERED), 0x100),
    "LOAD_TABLE": (Instr("LOAD_TABLE", {"table": 0x200}), 0x250),
    "SCALAR load": (Instr("SCALAR", {"fn": V3.enums["scalar_fn"]["load"], "rd": 1, "b": 4 * 0x100}), 0x100),
    "ELTWISE": (Instr("ELTWISE", {"fn": 2, **COPIED}), 0x120),
    "LINEAR": (Instr("LINEAR", SCORES), 0x500),
    "the stream": (Instr("FENCE"), (PROGRAM + 32) // 16),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_of_memory(core: NativeDevice, spec: TargetSpec, name: str) -> None:
    """The core stops with `bus` at the command, and runs again when memory does, without a reset. All of it lies in
    one space: faults are those of channel 0."""
    instr, unit = FAULTY[name]
    assert unit % 2 == 0  # channel 0 has the even units
    if instr.op not in spec.commands:
        pytest.skip(f"{spec.name} has no {instr.op}")
    before = [Instr("FENCE")] if spec.has("stream") else []
    program = [instr] * 40 if name == "the stream" else [*before, instr]
    case = case_of(spec, np.arange(USED).astype(np.uint8), program)
    core.mem_write(0, case.memory)
    core.set_option("fault", unit * 8 + 3)
    with pytest.raises(DeviceError, match="bus") as error:
        in_weights(core, spec, case)
    assert error.value.code == "bus"
    if spec.has("stream"):
        at = 8 if name == "the stream" else spec.header_words
        assert core.csr_read(register(spec, "ERROR_PC")) == at
    core.set_option("fault", "none")
    other = case_of(spec, case.memory, [*before, Instr("COPY", COPIED)])
    check_same(core, ReferenceDevice(spec), spec, placed(spec, other), "another command of the engine")
    for seed in range(2):
        check_same(core, ReferenceDevice(spec), spec, random_placed(spec, seed, commands=6), f"seed {seed}")


def in_weights(core: NativeDevice, spec: TargetSpec, case: Case) -> None:
    """Runs a case that lies in the space of weights, its stream too."""
    if not spec.has("stream"):
        execute(core, spec, case)
        return
    core.csr_write(register(spec, "PROGRAM"), PROGRAM // 16)
    core.csr_write(register(spec, "PROGRAM_WORDS"), len(case.words))
    core.csr_write(register(spec, "CONTROL"), START)
    core.run()


# -- Bad calls --------------------------------------------------------------------------------------------------------


def test_what_is_no_core(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    for wrong, message in ((tmp_path / "none.so", "none.so"), (text, "text.so"),
                           (native_library(), "lacks dlavm_rtl_version")):
        with pytest.raises(DeviceError, match=message):
            NativeDevice(V3, f"rtl:{wrong}")
    with pytest.raises(DeviceError, match="a board with other memory"):
        NativeDevice(load_target("v3", "kv260"), f"rtl:{library(V3)}")


@only(pytest.param(V3, id="v3"))
def test_options_and_limits(core: NativeDevice) -> None:
    bad = (("stalls", "1001"), ("latency", "-1"), ("seed", "x"), ("idle_cycles", ""), ("max_cycles", "1e3"))
    for name, value in bad:
        with pytest.raises(DeviceError, match=f"option {name}: expected"):
            core.set_option(name, value)
    with pytest.raises(DeviceError, match="a Verilated core has latency"):
        core.set_option("simd", "auto")
    with pytest.raises(DeviceError, match="expected max_commands 0"):
        core.run(1)
    assert core.info()["engine"] == "rtl"

