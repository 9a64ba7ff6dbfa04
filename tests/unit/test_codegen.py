"""The stream does what the task program says: the commands that run are those of the interpreter, in its order."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.codegen import generate
from dlavm.lower import lower
from dlavm.memory import assign
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.errors import DlavmError
from dlavm.sym import Const, Expr, Var, ceildiv, lt, maximum, minimum, select
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import Instr, decode_program
from dlavm.task import Program, TaskBuilder, simplify, trace
from tests.unit.test_lower import NANO, small_graph, with_buffers

PROGRAM_AT = 0x4000000  # of nano's 128 MiB


class Recorder(ReferenceDevice):
    """The front end of the reference; engine commands are written down instead of executed."""

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        self.seen: list[Instr] = []

    def _execute_engine(self, instr: Instr, at: int) -> None:
        self.seen.append(Instr(instr.op, {n: self._value(instr, n) for n in instr.fields}))


def executed(program: Program, spec: TargetSpec, bases: dict[str, int], args: dict[str, int]) -> list[Instr]:
    words = generate(program, spec, bases)
    device = Recorder(spec)
    registers = {n: r.offset for n, r in spec.registers.items()}
    device.mem_write(PROGRAM_AT, np.array(words, dtype=np.uint32).tobytes())
    device.csr_write(registers["PROGRAM"], PROGRAM_AT // 16)
    device.csr_write(registers["PROGRAM_WORDS"], len(words))
    for i, var in enumerate(program.args):
        device.csr_write(registers["ARG"] + 4 * i, args[var.name])
    device.csr_write(registers["CONTROL"], 1)
    device.run()
    return device.seen


def complete(spec: TargetSpec, instr: Instr) -> tuple[str, dict[str, int]]:
    fields = {f.name: 0 for f in spec.commands[instr.op].fields}
    return instr.op, fields | {n: int(v) & 0xFFFFFFFF for n, v in instr.fields.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [NANO, with_buffers(256, 256), with_buffers(128, 64)], ids=["nano", "tiny", "k_tiles"])
@pytest.mark.parametrize(
    "args", [(1, 0, 1, 0), (1, 63, 1, 640), (40, 0, 0, 0), (40, 24, 40, 64), (33, 1, 2, 0), (2, 5, 0, 7)]
)
def test_stream_runs_the_tasks(spec: TargetSpec, args: tuple[int, ...]) -> None:
    program = simplify(lower(small_graph(hidden=256, ffn=160), spec).program)
    bases = dict(assign(program, spec).bases)
    named = dict(zip(("token", "kv_len", "head_rows", "kv_base"), args, strict=True))
    expected = [complete(spec, i) for i in trace(program, named, bases)]
    assert [complete(spec, i) for i in executed(program, spec, bases, named)] == expected
    assert len(expected) > 15


TOKEN, KV = Var("token", 1, 40), Var("kv_len", 0, 63)


COMBINE = (
    lambda a, b, n: a + b,
    lambda a, b, n: a * (n - 3),
    lambda a, b, n: a // n,
    lambda a, b, n: a % n,
    lambda a, b, n: minimum(a, b),
    lambda a, b, n: maximum(a, b),
    lambda a, b, n: ceildiv(a, 7) - b,
    lambda a, b, n: select(lt(a, b), b, n),
)


@st.composite
def expressions(draw: st.DrawFn) -> Expr:
    """Built upwards from the variables and a few numbers, each step over any two of what is there."""
    pool = [TOKEN, KV, Const(draw(st.integers(0, 50)))]
    for _ in range(draw(st.integers(1, 10))):
        combine = draw(st.sampled_from(COMBINE))
        made = combine(draw(st.sampled_from(pool)), draw(st.sampled_from(pool)), draw(st.integers(1, 9)))
        if made.lo > -(2**30) and made.hi < 2**30:  # the scalar unit has 32 bits
            pool.append(made)
    return pool[-1]


@given(st.lists(expressions(), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 63))
@settings(max_examples=60)
def test_scalar_code_computes_the_expressions(exprs: list[Expr], token: int, kv_len: int) -> None:
    """Expressions as addresses, outside and inside a loop: more of them than there are registers."""
    b = TaskBuilder("p", args=(TOKEN, KV))
    for e in exprs:
        b.launch("COPY", src=e)
    with b.loop("t", TOKEN) as t:
        for e in exprs:
            b.launch("COPY", src=e, dst=e + t)
            b.launch("NORM", src=t * 3 + 1)
        with b.loop("u", minimum(KV, 3)) as u:
            b.launch("COPY", src=u * KV + t, dst=exprs[0])
    program = b.finish()
    args = {"token": token, "kv_len": kv_len}
    expected = [complete(NANO, i) for i in trace(program, args, {})]
    assert [complete(NANO, i) for i in executed(program, NANO, {}, args)] == expected


def test_semaphores_pair_up_and_loops_close() -> None:
    program = simplify(lower(small_graph(), NANO).program)
    instrs = [i for _, i in decode_program(NANO, generate(program, NANO, dict(assign(program, NANO).bases)))]
    ops = [i.op for i in instrs]
    assert ops.count("LOOP") == ops.count("ENDLOOP") > 0 and ops[-1] == "END"
    assert ops.count("SIGNAL") == ops.count("WAIT")
    signals = [(i, a) for i, a in enumerate(instrs) if a.op == "SIGNAL"]
    assert all(instrs[i + 1].op == "WAIT" and instrs[i + 1].fields["sem"] == a.fields["sem"] for i, a in signals)


def test_a_target_without_stream_is_refused() -> None:
    program = simplify(lower(small_graph(), NANO).program)
    with pytest.raises(DlavmError, match="target v2 has no autonomous stream"):
        generate(program, load_target("v2"), {})
