"""The whole core, Verilated, behind the device interface: the same programs on it and on the simulators."""

from __future__ import annotations

import os
import signal
import threading
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
from dlavm.target.isa import Instr, SReg, decode_program, encode_program
from dlavm.target.spec import ADDRESS_UNIT
from tests.ops.programs import PROGRAM, READ, USED, WRITE, Case, Rng, random_case
from tests.ops.test_engines import start
from tests.ops.test_errors import damaged

NANO = load_target("v3", "nano")
REGISTERS = {name: register.offset for name, register in NANO.registers.items()}
FN = NANO.enums["scalar_fn"]
BUSY = 1
missing = build.missing_tools()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture(scope="module")
def path() -> Path:
    return library(NANO)


@pytest.fixture
def core(path: Path) -> Iterator[NativeDevice]:
    with NativeDevice(NANO, f"rtl:{path}") as device:
        device.set_option("max_cycles", 2_000_000)
        yield device


def memory_after(device: Any, case: Case) -> np.ndarray[Any, Any]:
    start(device, NANO, case)
    device.run()
    return np.frombuffer(device.mem_read(0, USED), np.uint8)


def check_same(core: Any, case: Case, what: str) -> None:
    want, got = memory_after(ReferenceDevice(NANO), case), memory_after(core, case)
    different = np.flatnonzero(want != got)
    assert different.size == 0, f"{what}: {different.size} bytes differ, the first at 0x{different[0]:x}"


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(core: NativeDevice, seed: int) -> None:
    """Every command with memory of several latencies, and with stalls."""
    core.set_option("latency", (1, 7, 40, 150)[seed % 4])
    core.set_option("stalls", (0, 300)[seed // 4])
    core.set_option("seed", seed)
    check_same(core, random_case(NANO, seed, commands=12), f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1100, 10))
def test_many_random_programs(core: NativeDevice, first: int) -> None:
    for seed in range(first, first + 10):
        core.set_option("stalls", (0, 0, 200)[seed % 3])
        check_same(core, random_case(NANO, seed, commands=10), f"seed {seed}")


def moved(spec: TargetSpec, case: Case, base: int) -> list[int]:
    """The words of a case whose memory begins at `base`: addresses too that come through registers."""
    program, last_move = [], dict[int, int]()
    for _, instr in decode_program(spec, case.words):
        fields, by_name = dict(instr.fields), spec.commands[instr.op].by_name
        for name, value in instr.fields.items():
            if by_name[name].kind == "addr" and isinstance(value, SReg):
                at = last_move[value.index]
                earlier = program[at].fields
                program[at] = Instr("SCALAR", {**earlier, "b": _number(earlier["b"]) + base // ADDRESS_UNIT})
            elif by_name[name].kind == "addr":
                fields[name] = _number(value) + base // ADDRESS_UNIT
        if instr.op == "SCALAR":
            last_move[_number(fields["rd"])] = len(program)
        program.append(Instr(instr.op, fields, instr.pred))
    return encode_program(spec, program)


def _number(value: int | SReg) -> int:
    assert not isinstance(value, SReg)
    return value


@pytest.mark.slow
def test_a_board_of_one_wide_channel() -> None:
    """kv260: rows of 64 bytes, a beat of its only channel, a memory that does not begin at zero."""
    spec = load_target("v3", "kv260")
    base = spec.space("weights").base
    with NativeDevice(spec) as native, NativeDevice(spec, f"rtl:{library(spec)}") as core:
        for seed in range(20):
            core.set_option("stalls", 200 * (seed % 2))
            case = random_case(spec, seed, commands=12)
            words = moved(spec, case, base)
            memory = case.memory.copy()
            memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
            images = []
            for device in (native, core):
                device.mem_write(base, memory)
                device.csr_write(REGISTERS["PROGRAM"], (base + PROGRAM) // ADDRESS_UNIT)
                device.csr_write(REGISTERS["PROGRAM_WORDS"], len(words))
                device.csr_write(REGISTERS["CONTROL"], 1)
                device.run()
                images.append(device.mem_read(base, USED))
            assert images[0] == images[1], f"seed {seed}"


def test_counters(core: NativeDevice) -> None:
    """Commands and bytes of operands as the simulator counts them; cycles pass."""
    with NativeDevice(NANO) as native:
        for seed in range(4):
            case = random_case(NANO, seed, commands=10)
            for device in (native, core):
                start(device, NANO, case)
                device.run()
            want, got = native.counters(), core.counters()
            assert (got.commands, got.bytes_read, got.bytes_written) == \
                (want.commands, want.bytes_read, want.bytes_written), f"seed {seed}"
            assert got.cycles > got.commands


def outcome(device: Any, case: Case, bound: int | None) -> tuple[str, int, int, int]:
    """Error name and what the registers say; the stream lies in a memory of its own (tests/ops/test_errors.py)."""
    stream = NANO.board.memories["ddr"].base
    device.csr_write(REGISTERS["CONTROL"], 2)
    device.mem_write(0, case.memory.tobytes())
    device.mem_write(stream, np.array(case.words, dtype="<u4"))
    device.csr_write(REGISTERS["PROGRAM"], stream // 16)
    device.csr_write(REGISTERS["PROGRAM_WORDS"], len(case.words))
    device.csr_write(REGISTERS["CONTROL"], 1)
    code = "none"
    try:
        device.run(bound)
    except DeviceError as error:
        code = error.code
    return code, *(device.csr_read(REGISTERS[name]) for name in ("ERROR", "ERROR_PC", "STATUS"))


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_the_same_error_at_the_same_command(core: NativeDevice, first: int) -> None:
    compared = 0
    with NativeDevice(NANO) as native:
        for seed in range(first, first + 20):
            want = outcome(native, damaged(seed), 400)
            if want[3] != BUSY:  # a damaged count may run for very long
                assert outcome(core, damaged(seed), None) == want, f"seed {seed}"
                compared += 1
    assert compared > 10


# -- Control flow -----------------------------------------------------------------------------------------------------


def scalar_word(rng: Rng) -> int:
    """Words at the edges as often as others."""
    edges = (0, 1, 2, 31, 32, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 7, 0xFFFFFFF9)
    return int(rng.choice(edges)) if rng.random() < 0.6 else int(rng.integers(0, 1 << 32))


def mark(register: int, place: int) -> list[Instr]:
    """Writes as many words of the source as the register's low bits say, to place `place` of the destination."""
    return [Instr("SCALAR", {"fn": FN["mod"], "rd": 30, "ra": register, "b": 251}),
            Instr("COPY", {"src": READ // 16, "src_so": 0, "src_si": 0, "dst": (WRITE + 512 * place) // 16, "dst_so": 0,
                           "dst_si": 0, "rows_o": 1, "rows_i": 1, "dim": SReg(30)})]


def flow_case(program: list[Instr], seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    memory = np.zeros(USED, np.uint8)
    memory[READ:READ + 4096] = rng.integers(1, 256, 4096)
    words = encode_program(NANO, [*program, Instr("END")])
    memory[PROGRAM:PROGRAM + 4 * len(words)] = np.array(words, dtype=np.uint32).view(np.uint8)
    return Case(memory, words)


def test_scalars(core: NativeDevice) -> None:
    """Every function over random and extreme words; each result decides what is written where."""
    rng = np.random.default_rng(1)
    program, place = [], 0
    for _ in range(6):
        for name, number in FN.items():
            a, b = scalar_word(rng), scalar_word(rng)
            if name in ("shl", "shr"):
                b &= 31
            if name in ("div", "mod"):
                b = b or 3
            if name == "load":
                a, b = (READ + 16 * int(rng.integers(0, 200))) // 16, int(rng.integers(0, 16))
            program += [Instr("SCALAR", {"fn": FN["mov"], "rd": 1, "b": a}),
                        Instr("SCALAR", {"fn": FN["mov"], "rd": 2, "b": b}),
                        Instr("SCALAR", {"fn": number, "rd": 3, "ra": 1, "b": SReg(2)}), *mark(3, place)]
            # and whether it is exactly what it should be, against a register that differs in one bit
            program += [Instr("SCALAR", {"fn": FN["shr"], "rd": 3, "ra": 3, "b": 16}), *mark(3, place + 1)]
            place = (place + 2) % 400
    check_same(core, flow_case(program), "scalars")


def random_flow(rng: Rng, depth: int, counter: list[int]) -> list[Instr]:
    """Loops in loops, predicates, zero and negative counts, counts in registers; marks on the way."""
    out: list[Instr] = []
    for _ in range(int(rng.integers(1, 4))):
        register, counter[0] = int(rng.integers(1, 8)), counter[0] + 1
        out.append(Instr("SCALAR", {"fn": FN["add"], "rd": 20, "ra": 20, "b": SReg(register)}))
        out += mark(20, counter[0] % 500)
        if depth and rng.random() < 0.8:
            body = [*random_flow(rng, depth - 1, counter), Instr("ENDLOOP")]
            length = len(encode_program(NANO, body))
            count = int(rng.choice([0, 1, 2, 3, 0xFFFFFFFF]))
            pred = int(rng.choice([0, 0, 9, 10]))
            out.append(Instr("LOOP", {"rd": register, "count": count, "body": length}, pred))
            out += body
        pred = int(rng.choice([0, 9, 10, register]))
        out.append(Instr("SCALAR", {"fn": FN["add"], "rd": 20, "ra": 20, "b": 5}, pred))
    return out


@pytest.mark.parametrize("seed", range(6))
def test_random_control_flow(core: NativeDevice, seed: int) -> None:
    rng = np.random.default_rng(seed)
    head = [Instr("SCALAR", {"fn": FN["mov"], "rd": 9, "b": 1})]  # s10 stays zero
    check_same(core, flow_case([*head, *random_flow(rng, 3, [0])], seed), f"seed {seed}")


def test_calls_and_arguments(core: NativeDevice) -> None:
    """CALL of a part behind END, nested; ARG arrives in s1 .. s8."""
    def part(first: int, call: int | None) -> list[Instr]:
        inner = [Instr("CALL", {"target": call})] if call is not None else []
        return [*mark(1 + first, first), *inner, *mark(2 + first, first + 8), Instr("RET")]

    sizes = len(encode_program(NANO, part(0, 0)))
    body = len(encode_program(NANO, [Instr("CALL", {"target": 0}), Instr("END")]))
    targets = [body, body + sizes]
    program = [Instr("CALL", {"target": targets[0]}), Instr("END"), *part(0, targets[1]), *part(3, None)]
    case = flow_case(program)
    images = []
    for device in (ReferenceDevice(NANO), core):
        for i in range(8):
            device.csr_write(REGISTERS["ARG"] + 4 * i, 1000 * i + 77)
        images.append(memory_after(device, case))
    assert np.array_equal(*images)
    assert images[0][WRITE:WRITE + 16].any()


STACK_PROGRAMS: dict[str, list[Instr]] = {
    "nine loops": [*[Instr("LOOP", {"rd": 1, "count": 2, "body": 2})] * 9],
    "nine calls": [Instr("CALL", {"target": 0})],
    "END in a loop": [Instr("LOOP", {"rd": 1, "count": 2, "body": 2})],
    "ENDLOOP alone": [Instr("ENDLOOP")],
    "RET alone": [Instr("RET")],
    "WAIT without SIGNAL": [Instr("WAIT", {"engine": 2, "sem": 3})],
    "two WAITs of one SIGNAL": [Instr("SIGNAL", {"engine": 3, "sem": 4}), Instr("WAIT", {"engine": 2, "sem": 4}),
                                Instr("WAIT", {"engine": 1, "sem": 4})],
    "jump past the end": [Instr("CALL", {"target": 0xFFFFFFFF})],
    "division by zero": [Instr("SCALAR", {"fn": FN["div"], "rd": 1, "ra": 1, "b": 0})],
    "long shift": [Instr("SCALAR", {"fn": FN["shl"], "rd": 1, "ra": 1, "b": 32})],
    "load outside": [Instr("SCALAR", {"fn": FN["load"], "rd": 1, "ra": 0, "b": 0xFFFFFFFF})],
    "register of 5 bits": [Instr("SCALAR", {"fn": FN["mov"], "rd": 1, "b": 1 << 20}),
                           Instr("COPY", {"src": 0, "dst": 64, "rows_o": SReg(1), "rows_i": 1, "dim": 8})],
}


@pytest.mark.parametrize("name", STACK_PROGRAMS)
def test_errors_of_the_front_end(core: NativeDevice, name: str) -> None:
    case = flow_case(STACK_PROGRAMS[name])
    want = outcome(ReferenceDevice(NANO), case, 400)
    assert want[0] != "none"
    assert outcome(core, case, None) == want
    check_same(core, flow_case(mark(1, 1)), "after an error")  # and it starts anew, without a reset


def test_semaphores_order_the_engines(core: NativeDevice) -> None:
    """Copies (store) and additions (vector) in turns over the same rows, each waiting for the other."""
    rows = {"rows_o": 1, "rows_i": 1, "dim": 500}
    program: list[Instr] = []
    for step in range(12):
        a, b, c = ((WRITE + 0x800 * (step + i)) // 16 for i in range(3))
        a = a if step else READ // 16
        program += [Instr("WAIT", {"engine": 3, "sem": 1})] if step else []
        program += [Instr("COPY", {"src": a, "dst": b, **rows}), Instr("SIGNAL", {"engine": 3, "sem": 0}),
                    Instr("WAIT", {"engine": 2, "sem": 0}),
                    Instr("ELTWISE", {"fn": 0, "src": b, "b": b, "dst": c, **rows}),
                    Instr("SIGNAL", {"engine": 2, "sem": 1})]
    case = flow_case(program)
    for latency in (1, 90):
        core.set_option("latency", latency)
        check_same(core, case, f"latency {latency}")


def test_reset_while_it_runs(core: NativeDevice) -> None:
    """A reset is taken in the middle of anything; memory stays, registers go, and the next run is as any other."""
    long = flow_case([Instr("LOOP", {"rd": 1, "count": 0x7FFFFFFF, "body": len(encode_program(NANO, mark(1, 1))) + 2}),
                      *mark(1, 1), Instr("ENDLOOP")])
    for cycles in (1, 50, 333, 2000):
        start(core, NANO, long)
        core.set_option("max_cycles", cycles)
        with pytest.raises(DeviceError, match="did not finish"):
            core.run()
        core.csr_write(REGISTERS["CONTROL"], 2)
        assert core.csr_read(REGISTERS["STATUS"]) == core.csr_read(REGISTERS["PROGRAM"]) == 0
        assert core.csr_read(REGISTERS["ID"]) == int(NANO.hash[:8], 16)
        core.set_option("max_cycles", 2_000_000)
        check_same(core, random_case(NANO, cycles, commands=4), f"after {cycles} cycles")


# -- Errors of memory ------------------------------------------------------------------------------------------------

COPIED = {"src": 0x100, "src_so": 64, "dst": WRITE // 16, "dst_so": 64, "rows_o": 4, "rows_i": 1, "dim": 512}
GATHERED = {"ids": 0x100, "table": 0, "dst": WRITE // 16, "rows_o": 1, "dim": 8, "limit": 1}
SCORES = {"format": NANO.enums["weight_format"]["kv_k"], "src": 0x100, "dst": WRITE // 16, "rows_o": 1, "rows_i": 1,
          "k": 64, "n": 64, "wgt": 0x400, "wgt_tile": 256, "batch": 1}
FAULTY: dict[str, tuple[Instr, int]] = {  # a command, and the unit that it reads or writes and memory does not
    "COPY reads": (Instr("COPY", COPIED), 0x150),
    "COPY writes": (Instr("COPY", COPIED), WRITE // 16 + 0x90),
    "GATHER's ids": (Instr("GATHER", GATHERED), 0x100),
    "LOAD_TABLE": (Instr("LOAD_TABLE", {"table": 0x200}), 0x250),
    "SCALAR load": (Instr("SCALAR", {"fn": FN["load"], "rd": 1, "b": 4 * 0x100}), 0x100),
    "ELTWISE": (Instr("ELTWISE", {"fn": 2, **COPIED}), 0x120),
    "LINEAR": (Instr("LINEAR", SCORES), 0x500),
    "the stream": (Instr("FENCE"), (PROGRAM + 32) // 16),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_of_memory(core: NativeDevice, name: str) -> None:
    """The core stops with `bus` at the command, and runs again when memory does, without a reset."""
    instr, unit = FAULTY[name]
    assert unit % 2 == 0  # channel 0 has the even units
    case = flow_case([Instr("FENCE"), instr] if name != "the stream" else [instr] * 8)
    start(core, NANO, case)
    core.csr_write(REGISTERS["CONTROL"], 2)
    core.set_option("fault", unit * 8 + 3)
    start(core, NANO, case)
    with pytest.raises(DeviceError, match="bus") as error:
        core.run()
    assert error.value.code == "bus"
    assert core.csr_read(REGISTERS["ERROR_PC"]) == (8 if name == "the stream" else 2)
    core.set_option("fault", "none")
    check_same(core, flow_case([Instr("FENCE"), Instr("COPY", COPIED)]), "another command of the engine")
    for seed in range(2):
        check_same(core, random_case(NANO, seed, commands=6), f"seed {seed}")


# -- Cores that hang, and hosts that do not wait -----------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 700])
def test_memory_that_never_answers(core: NativeDevice, after: int) -> None:
    """A run in which nothing moves any more ends, from its start on or in the middle of it; then all is as ever."""
    case = random_case(NANO, 3, commands=4)
    start(core, NANO, case)
    if after:
        core.set_option("max_cycles", after)
        with pytest.raises(DeviceError, match=f"did not finish within {after} cycles"):
            core.run()
        core.set_option("max_cycles", 2_000_000)
    core.set_option("stalls", 1000)
    core.set_option("idle_cycles", 30000)
    with pytest.raises(DeviceError, match=r"run: the core hangs: no command and no beat of memory for 3\d{4} cycles"
                                          r".*it was reset") as error:
        core.run()
    assert error.value.code == "system"
    assert core.csr_read(REGISTERS["STATUS"]) == 0 and core.run() == 0
    core.set_option("stalls", 0)
    check_same(core, case, "afterwards")


def test_slow_memory_is_no_hang(core: NativeDevice) -> None:
    core.set_option("latency", 20000)
    core.set_option("idle_cycles", 25000)
    check_same(core, flow_case(mark(1, 1)), "latency 20000")


def test_a_reset_that_is_not_taken(core: NativeDevice) -> None:
    """Memory owes answers and gives none: the core is reset from outside, and works again."""
    case = random_case(NANO, 3, commands=4)
    start(core, NANO, case)
    core.set_option("max_cycles", 700)
    with pytest.raises(DeviceError, match="did not finish"):
        core.run()
    core.set_option("stalls", 1000)
    message = "CONTROL: the core did not end what it runs within 50... cycles; it was reset from outside"
    with pytest.raises(DeviceError, match=message):
        core.csr_write(REGISTERS["CONTROL"], 2)
    core.set_option("stalls", 0)
    core.set_option("max_cycles", 2_000_000)
    check_same(core, case, "afterwards")


def test_ctrl_c_ends_a_run(core: NativeDevice) -> None:
    """The main thread sees it while the core runs; the core is reset and runs what comes next."""
    core.set_option("max_cycles", 1 << 40)
    loop = Instr("LOOP", {"rd": 1, "count": 0x7FFFFFFF, "body": len(encode_program(NANO, mark(1, 1))) + 2})
    start(core, NANO, flow_case([loop, *mark(1, 1), Instr("ENDLOOP")]))
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        core.run()
    timer.join()
    assert core.csr_read(REGISTERS["STATUS"]) == core.csr_read(REGISTERS["PROGRAM"]) == 0
    check_same(core, random_case(NANO, 5, commands=4), "afterwards")


def test_errors_of_a_run_reach_every_thread(core: NativeDevice) -> None:
    """Whether the main thread calls, or another one, which no Ctrl-C reaches."""
    errors: list[BaseException] = []

    def run() -> None:
        start(core, NANO, flow_case([Instr("RET")]))
        try:
            core.run()
        except DeviceError as error:
            errors.append(error)

    run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 2 and str(errors[0]) == str(errors[1])
    assert str(errors[0]).startswith("command at word 0: stack:")


# -- Bad calls --------------------------------------------------------------------------------------------------------


def test_what_is_no_core(path: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    for wrong, message in ((tmp_path / "none.so", "none.so"), (text, "text.so"),
                           (native_library(), "lacks dlavm_rtl_version")):
        with pytest.raises(DeviceError, match=message):
            NativeDevice(NANO, f"rtl:{wrong}")
    with pytest.raises(DeviceError, match="a board with other memory"):
        NativeDevice(load_target("v3", "kv260"), f"rtl:{path}")


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

