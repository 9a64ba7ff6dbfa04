"""Control flow of the whole core, Verilated: scalars, loops, calls, semaphores; what a target with scalars has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from dlavm.rtl import build
from dlavm.sim.native import NativeDevice
from dlavm.sim.reference import ReferenceDevice
from dlavm.target.isa import Instr, SReg, encode_program
from tests.ops.programs import READ, USED, WRITE, Case, Rng, case_of
from tests.ops.test_errors import outcome
from tests.rtl import cores
from tests.rtl.cores import V3, memory_after, register

missing = build.missing_tools()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))
FN = V3.enums["scalar_fn"]


@pytest.fixture
def core() -> Iterator[NativeDevice]:
    yield from cores.opened(V3)


def check_same(core: NativeDevice, case: Case, what: str) -> None:
    cores.check_same(core, ReferenceDevice(V3), V3, case, what)


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
    return case_of(V3, memory, program)


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
            length = len(encode_program(V3, body))
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

    sizes = len(encode_program(V3, part(0, 0)))
    body = len(encode_program(V3, [Instr("CALL", {"target": 0}), Instr("END")]))
    targets = [body, body + sizes]
    program = [Instr("CALL", {"target": targets[0]}), Instr("END"), *part(0, targets[1]), *part(3, None)]
    case = flow_case(program)
    images = []
    for device in (ReferenceDevice(V3), core):
        for i in range(8):
            device.csr_write(register(V3, "ARG") + 4 * i, 1000 * i + 77)
        images.append(memory_after(device, V3, case))
    assert np.array_equal(*images)
    assert images[0][0, WRITE:WRITE + 16].any()


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
    want = outcome(ReferenceDevice(V3), case, 400)
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


FEW = replace(V3, limits={**V3.limits, "scalar_registers": 20, "semaphores": 9, "loop_depth": 3, "call_depth": 2})
ABSENT: dict[str, tuple[Instr, str]] = {  # a command, and what comes of it
    "last register": (Instr("SCALAR", {"fn": FN["mov"], "rd": 19, "ra": 19, "b": 7}), "none"),
    "destination": (Instr("SCALAR", {"fn": FN["mov"], "rd": 20, "b": 7}), "field_range"),
    "operand before division by zero": (Instr("SCALAR", {"fn": FN["div"], "rd": 1, "ra": 31}), "field_range"),
    "predicate": (Instr("SCALAR", {"fn": FN["mov"], "rd": 1}, 20), "field_range"),
    "indirect word": (Instr("SCALAR", {"fn": FN["mov"], "rd": 1, "b": SReg(20)}), "field_range"),
    "loop variable": (Instr("LOOP", {"rd": 25, "count": 0}), "field_range"),
    "loop variable of a skipped loop": (Instr("LOOP", {"rd": 25, "count": 3}, 1), "none"),
    "last semaphore": (Instr("SIGNAL", {"engine": 1, "sem": 8}), "none"),
    "semaphore": (Instr("SIGNAL", {"engine": 1, "sem": 9}), "field_range"),
    "semaphore before a deadlock": (Instr("WAIT", {"engine": 1, "sem": 30}), "field_range"),
    "loops": (Instr("LOOP", {"rd": 1, "count": 2}), "stack"),
}


@pytest.mark.slow
def test_a_target_with_fewer_registers() -> None:
    """Limits that are no powers of two: what is not there is refused, with the same error everywhere."""
    for core in cores.opened(FEW):
        with NativeDevice(FEW) as native:
            for name, (instr, code) in ABSENT.items():
                case = flow_case([instr] * 4)
                want = outcome(ReferenceDevice(FEW), case, spec=FEW)
                assert want[0] == code, name
                assert outcome(native, case, spec=FEW) == want, name
                assert outcome(core, case, None, FEW) == want, name
