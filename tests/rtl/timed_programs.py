"""Programs whose cycles the timed simulator and the Verilated core are compared by."""

from __future__ import annotations

import numpy as np

from dlavm.target import TargetSpec
from dlavm.target.isa import Instr, encode_program
from dlavm.target.spec import ADDRESS_UNIT
from tests.ops import programs
from tests.ops.programs import (
    INDEX,
    INDICES,
    MAKERS,
    TABLE,
    USED,
    WRITE,
    Case,
    Rng,
    _through_registers,
    pool,
)

QUEUES = {"LINEAR": (0, 1), "COPY": (3,), "KV_APPEND": (3,), "GATHER": (3,)}  # engines whose queue a command shares


def case_of(spec: TargetSpec, program: list[Instr]) -> Case:
    """The program over random memory; where a command writes makes no difference to time."""
    memory = np.zeros(USED, np.uint8)
    memory[:TABLE] = pool()[:TABLE // 2].view(np.uint8)
    memory[INDEX:INDEX + INDICES.nbytes] = INDICES.view(np.uint8)
    return programs.case_of(spec, memory, program)


def concurrent_case(spec: TargetSpec, seed: int) -> Case:
    """Commands of all engines without fences between them: signals, waits, loops, predicates, scalars."""
    rng = np.random.default_rng(seed)
    signalled: list[int] = []
    move, base = spec.enums["scalar_fn"]["mov"], spec.space("weights").base // ADDRESS_UNIT
    program = [Instr("SCALAR", {"fn": move, "rd": rd, "b": b}) for rd, b in ((22, 1), (24, base))]  # s21 stays zero
    for _ in range(int(rng.integers(1, 4))):
        program += _commands(spec, rng, int(rng.integers(1, 5)), signalled)
        body = [*_commands(spec, rng, int(rng.integers(1, 4)), []), Instr("ENDLOOP")]
        fields = {"rd": 23, "count": int(rng.integers(0, 4)), "body": len(encode_program(spec, body))}
        program += [Instr("LOOP", fields, int(rng.choice([0, 21, 22]))), *body]
    return case_of(spec, program)


def _commands(spec: TargetSpec, rng: Rng, count: int, signalled: list[int]) -> list[Instr]:
    out: list[Instr] = []
    for _ in range(count):
        make = MAKERS[rng.integers(len(MAKERS))]
        engine = int(rng.choice(QUEUES.get(make.__name__.upper(), (2,))))
        if signalled and rng.random() < 0.5:
            sem = signalled.pop(int(rng.integers(len(signalled))))
            out.append(Instr("WAIT", {"engine": engine, "sem": sem}))
        out += _through_registers(spec, rng, make(spec, rng), make)
        if rng.random() < 0.6:
            signalled.append(int(rng.integers(0, 6)))
            out.append(Instr("SIGNAL", {"engine": engine, "sem": signalled[-1]}))
        if rng.random() < 0.1:
            out.append(Instr("FENCE"))
        if rng.random() < 0.2:
            name = str(rng.choice(["add", "div", "mod", "load", "mul", "max"]))
            fields = {"fn": spec.enums["scalar_fn"][name], "rd": 20, "ra": 24, "b": int(rng.integers(1, 64))}
            out.append(Instr("SCALAR", fields, int(rng.choice([0, 0, 21]))))
    return out


def single_case(spec: TargetSpec, op: str, seed: int) -> Case:
    """One command of that name."""
    rng = np.random.default_rng(seed)
    makers = [make for make in MAKERS if make.__name__.upper() == op]
    return case_of(spec, [Instr(op, makers[seed % len(makers)](spec, rng))])


def many_results_case(spec: TargetSpec, seed: int) -> Case:
    """A LINEAR of many rows and row tiles, with and without operands of its results."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.choice([32, 64, 128, 512])), int(rng.choice([100, 256, 520, 1024, 2048]))
    elements, sums = spec.board.activation_elements, spec.board.accumulators
    rows = max(1, min(int(rng.choice([16, 30, 64, 128])), elements // k, sums // (-(-n // 32) * 32)))
    fields = {"format": spec.enums["weight_format"]["int4g128"], "src": 0x100, "src_so": k // 8, "dst": WRITE // 16,
              "dst_so": -(-n // 8), "rows_o": rows, "rows_i": 1, "k": k, "n": n, "wgt": 0x8000, "wgt_tile": 4096,
              "batch": 1, "aux_mode": int(rng.integers(0, 3)), "aux": 0x200 + int(rng.integers(0, 9)),
              "aux_so": -(-n // 8) + int(rng.integers(0, 2)), "use_bias": int(rng.random() < 0.3), "bias": 0x300}
    return case_of(spec, [Instr("LINEAR", fields)])


def many_rows_case(spec: TargetSpec, seed: int) -> Case:
    """A LINEAR with so many rows that the timed simulator jumps over most of them."""
    rng = np.random.default_rng(seed)
    forms = ("int4g128", "int8g128", "mxfp6", "int4g32z", "mxfp8", "kv_k", "kv_v", "kvq_k", "kvq_v")
    form = forms[seed % len(forms)]
    cache = form.startswith("kv")
    k, n = int(rng.choice([32, 64, 100, 128, 256])), int(rng.choice([16, 40, 64, 100]))
    elements, sums = spec.board.activation_elements, spec.board.accumulators
    rows = min(int(rng.choice([30, 63, 64, 128, 256])), elements // (-(-k // 32) * 32), sums // (-(-n // 32) * 32))
    fields = {"format": spec.enums["weight_format"][form], "src": 0x100, "src_so": -(-k // 8), "dst": WRITE // 16,
              "dst_so": -(-n // 8), "rows_o": rows, "rows_i": 1, "k": k, "n": n, "wgt": 0x8000,
              "wgt_tile": 2048 if cache else 4096, "batch": 1 + int(cache and rng.random() < 0.5), "dst_b": 0x300,
              "wgt_b": 0x1000, "acc_out": int(not cache and rng.random() < 0.3)}
    return case_of(spec, [Instr("LINEAR", fields)])
