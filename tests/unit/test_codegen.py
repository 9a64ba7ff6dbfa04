"""The stream does what the task program says: the commands that run are those of the interpreter, in its order."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.codegen import generate as generate_code
from dlavm.codegen.stream import RESERVES, generate
from dlavm.graph import Builder
from dlavm.lower import lower
from dlavm.memory import alignments, assign
from dlavm.passes import QuantizeWeights
from dlavm.sim.reference import ReferenceDevice
from dlavm.support.errors import DlavmError
from dlavm.sym import Const, Expr, Var, ceildiv, evaluate, lt, maximum, minimum, select
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import Instr, decode_program, payload
from dlavm.task import (
    Call,
    Program,
    RegWrite,
    Stmt,
    TaskBuilder,
    execute,
    parse_program,
    print_program,
    restrict,
    roll,
    run,
    share_in_place,
    simplify,
    trace,
    verify,
    walk_body,
)
from dlavm.task.interpret import initial_values, value_of
from tests.conftest import examples
from tests.prop import task_programs
from tests.unit.test_lower import NANO, small_graph, with_buffers

PROGRAM_AT = 0x4000000  # of nano's 128 MiB


class Recorder(ReferenceDevice):
    """The front end of the reference; engine commands are written down instead of executed."""

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        self.seen: list[Instr] = []

    def _execute_engine(self, instr: Instr, at: int) -> None:
        self.seen.append(Instr(instr.op, {n: self._value(instr, n) for n in instr.fields}))


def executed(program: Program, spec: TargetSpec, bases: dict[str, int], args: dict[str, int],
             memory: dict[int, int] | None = None) -> list[Instr]:  # fmt: skip
    """`memory`: words by byte address."""
    words = generate(program, spec, bases)
    device = Recorder(spec)
    registers = {n: r.offset for n, r in spec.registers.items()}
    for address, word in (memory or {}).items():
        device.mem_write(address, np.array([word], dtype=np.uint32).tobytes())
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


def streams(program: Program, bases: dict[str, int], args: dict[str, int]) -> Iterator[list[Instr]]:
    """What is executed with all, some and no values kept in registers across loops."""
    for reserves in ((0, 32), RESERVES, (32,)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dlavm.codegen.stream.RESERVES", reserves)
            yield executed(program, NANO, bases, args)


@given(st.lists(expressions(), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 63))
@settings(max_examples=examples(60))
def test_scalar_code_computes_the_expressions(exprs: list[Expr], token: int, kv_len: int) -> None:
    """Expressions as addresses, outside and inside a loop: more of them than there are registers."""
    b = TaskBuilder("p", args=(TOKEN, KV))
    for e in exprs:
        b.launch("COPY", src=e)
    with b.loop("t", minimum(TOKEN, 3)) as t:
        for e in exprs:
            b.launch("COPY", src=e, dst=e + t)
            b.launch("NORM", src=t * 3 + 1)
        with b.loop("u", minimum(KV, 3)) as u:
            b.launch("COPY", src=u * KV + t, dst=exprs[0])
            for e in exprs:
                b.launch("COPY", src=e + u, dst=e * 3)
        for e in exprs:
            b.launch("COPY", src=e * 3 + t, dst=e + t)
    for e in exprs:
        b.launch("COPY", src=e * 3, dst=e)
    program = b.finish()
    args = {"token": token, "kv_len": kv_len}
    expected = [complete(NANO, i) for i in trace(program, args, {})]
    for made in streams(program, {}, args):
        assert [complete(NANO, i) for i in made] == expected


@settings(max_examples=examples(100), deadline=None)
@given(task_programs.programs())
def test_random_programs_keep_their_commands_in_loops(program: Program) -> None:
    """Loops of no trips, conditions, definitions, and what is computed before them."""
    program = replace(program, functions=(), body=tuple(s for s in program.body if not calls(s)))
    for args in task_programs.ARGUMENTS[1:4]:
        expected = [complete(NANO, i) for i in trace(program, args, task_programs.BASES)]
        for made in streams(program, task_programs.BASES, args):
            assert [complete(NANO, i) for i in made] == expected


@pytest.mark.parametrize("rows", [-1, 1 << 20])
def test_a_constant_that_a_field_does_not_take_is_refused(rows: int) -> None:
    b = TaskBuilder("p", args=(TOKEN, KV))
    b.launch("COPY", rows_o=rows)
    program = b.finish()
    with pytest.raises(DlavmError, match=rf"COPY.rows_o: expected 0..1048575, got \[{rows}, {rows}\] from '{rows}'$"):
        verify(program, NANO)
    with pytest.raises(DlavmError, match=rf"COPY.rows_o: expected 0..1048575, got {rows % 2**32}$"):
        generate(program, NANO, {})  # which nobody asked to verify


def test_what_a_loop_does_not_change_is_computed_before_it() -> None:
    b = TaskBuilder("p", args=(TOKEN, KV))
    with b.loop("t", TOKEN) as t:
        b.launch("COPY", src=KV * 16 + 40 + t, dst=ceildiv(TOKEN, 7))
        with b.loop("u", ceildiv(TOKEN, 7)) as u:
            b.launch("COPY", src=KV * 16 + 40 + t + u * 3, dst=t * 5)
        b.launch("COPY", src=ceildiv(TOKEN, 7), dst=t * 5)
    ops = [i.op for _, i in decode_program(NANO, generate(b.finish(), NANO, {}))]
    before, outer = ["SCALAR"] * 4, ["SCALAR", "COPY", "SCALAR"]  # 16 kv_len + 40, (token + 6) / 7; + t, 5 t
    inner = ["SCALAR", "SCALAR", "COPY"]  # + 3 u
    assert ops == [*before, "LOOP", *outer, "LOOP", *inner, "ENDLOOP", "COPY", "ENDLOOP", "END"]


def test_where_registers_are_short_less_is_computed_before_a_loop() -> None:
    """Thirty invariants of a loop that has fifteen names of its own; as many names as registers do not fit."""

    def program(names: int) -> Program:
        b = TaskBuilder("p", args=(TOKEN, KV))
        with b.loop("t", TOKEN) as t:
            for i in range(30):
                b.launch("COPY", src=KV * (i + 2), dst=t)
            made = [b.let("x", t * (i + 2)) for i in range(names)]
            for x in made + made[::-1]:
                b.launch("COPY", src=x)
        return b.finish()

    args = {"token": 4, "kv_len": 3}
    few, many = program(15), program(25)
    for one in (few, many):
        expected = [complete(NANO, i) for i in trace(one, args, {})]
        for made in streams(one, {}, args):
            assert [complete(NANO, i) for i in made] == expected
    with pytest.raises(DlavmError, match="more scalar registers than the target has"):
        generate(program(29), NANO, {})


def test_registers_come_back_behind_the_last_use() -> None:
    """Forty words from memory and forty names in one block, and what is computed with them."""
    b = TaskBuilder("p", args=(TOKEN, KV))
    base = b.buffer("words", "activations", 400).base
    kept = b.load("kept", base, 0, 0, 99)
    for i in range(40):
        word = b.load("word", base, i, 0, 200)
        double = b.let("double", word * 2 + TOKEN)
        with b.loop("t", TOKEN) as t:
            b.launch("COPY", src=double + t, dst=word * 8 + kept)
        b.launch("COPY", src=double, dst=word * 8)
    b.launch("COPY", src=kept)
    program, words = b.finish(), {0x1000 + 4 * i: 3 * i + 1 for i in range(40)}
    args, bases = {"token": 3, "kv_len": 0}, {"words": 0x1000}
    expected = [complete(NANO, i) for i in trace(program, args, bases, words.__getitem__)]
    assert [complete(NANO, i) for i in executed(program, NANO, bases, args, words)] == expected
    assert len(expected) == 161


def test_nothing_waits_behind_a_fence() -> None:
    b = TaskBuilder("p", args=(TOKEN, KV))
    b.launch("COPY")
    b.await_()
    b.launch("NORM")
    ops = [i.op for _, i in decode_program(NANO, generate(b.finish(), NANO, {}))]
    assert ops == ["COPY", "FENCE", "NORM", "END"]


def test_semaphores_pair_up_and_loops_close() -> None:
    program = simplify(lower(small_graph(), NANO).program)
    instrs = [i for _, i in decode_program(NANO, generate(program, NANO, dict(assign(program, NANO).bases)))]
    ops = [i.op for i in instrs]
    assert ops.count("LOOP") == ops.count("ENDLOOP") > 0 and ops[-1] == "END"
    signals, waits = ([(i, a.fields) for i, a in enumerate(instrs) if a.op == op] for op in ("SIGNAL", "WAIT"))
    assert signals and {f["sem"] for _, f in signals} == {f["sem"] for _, f in waits}
    engines = len(NANO.enums["engine"])
    for place, fields in signals:  # behind what it speaks of, for an engine that waits further down
        assert fields["sem"] // engines == fields["engine"]
        assert any(i > place and f["sem"] == fields["sem"] for i, f in waits)
    assert all(fields["sem"] % engines == fields["engine"] for _, fields in waits)


def test_a_target_without_stream_is_refused() -> None:
    program = simplify(lower(small_graph(), NANO).program)
    with pytest.raises(DlavmError, match="target v2 has no autonomous stream"):
        generate(program, load_target("v2"), {})
    nothing = replace(NANO, capabilities=frozenset({"act12"}))
    with pytest.raises(DlavmError, match="expected the capabilities of one way to control it"):
        generate_code(program, nothing, {})


# -- flat streams and register programs ----------------------------------------------------------------------------

V1, V2 = load_target("v1", "nano"), load_target("v2", "nano")
STEPS = [(1, 0, 1, 0), (1, 63, 1, 640), (6, 0, 0, 0), (6, 24, 6, 64), (3, 1, 2, 0), (2, 5, 0, 7)]


class Written:
    """A register-driven device that writes down what is launched."""

    def __init__(self, spec: TargetSpec) -> None:
        self.spec, self.op = spec, [0] * 32
        self.seen: list[tuple[str, list[int]]] = []
        self.writes = 0

    def csr_write(self, offset: int, value: int) -> None:
        self.writes += 1
        registers = self.spec.registers
        if offset == registers["LAUNCH"].offset:
            command = self.spec.opcodes[value]
            self.seen.append((command.name, self.op[: command.payload_words]))
        else:
            self.op[(offset - registers["OP"].offset) // 4] = value

    def csr_read(self, offset: int) -> int:
        return 2  # done

    def run(self) -> None:
        pass

    def mem_read(self, address: int, count: int) -> bytes:
        raise NotImplementedError

    def mem_write(self, address: int, data: bytes) -> None:
        raise NotImplementedError


Commands = list[tuple[str, list[int]]]


def commands(program: Program, spec: TargetSpec, bases: dict[str, int], args: dict[str, int]) -> Commands:
    """Those of the interpreter that have any rows, as payload words."""
    traced = [i for i in trace(program, args, bases) if i.fields.get("rows_o", 1) != 0]
    return [(i.op, payload(spec, i)[0]) for i in traced]


def small_program(spec: TargetSpec, layers: int = 3) -> Program:
    """Without attention between them: blocks that repeat."""
    b = Builder("blocks", ctx=64, chunk=6)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (50, 64)))
    for i in range(layers):
        with b.scope(f"layer {i}"):
            h = b.rms_norm(x, b.param(f"gamma.{i}", (64,)), eps=1e-5)
            k = b.reshape(b.linear(h, b.param(f"k.{i}", (64, 64))), shape=(b.token, 2, 32))
            cache = b.kv_append(b.kv(f"cache.{i}", (2, b.ctx, 32)), b.rope(k, b.rotary(32), rotary_dim=32))
            a = b.reshape(b.attention(k, cache, cache, scale=0.25), shape=(b.token, 64))
            x = b.add(x, b.linear(b.act(a, fn="silu"), b.param(f"o.{i}", (64, 64))))
    logits = b.linear(b.last_rows(x, count=b.head_rows), b.param("head", (50, 64)))
    graph = QuantizeWeights()(b.finish(logits=logits))
    return share_in_place(lower(graph, spec).program, spec)


@pytest.mark.parametrize("args", STEPS)
@pytest.mark.parametrize("tokens", [(1, 6), (1, 1)], ids=["chunk", "token"])
def test_a_flat_stream_runs_the_tasks(args: tuple[int, ...], tokens: tuple[int, int]) -> None:
    named = dict(zip(("token", "kv_len", "head_rows", "kv_base"), args, strict=True))
    if named["token"] > tokens[1]:
        pytest.skip("more tokens than this stream is for")
    program = simplify(restrict(small_program(V2), {"token": tokens, "head_rows": (0, tokens[1])}))
    bases = dict(assign(program, V2).bases)
    code = generate_code(program, V2, bases)
    words = list(code.words)
    for expr, offsets in code.patches.items():
        for offset in offsets:
            assert words[offset] == 0
            words[offset] = evaluate(expr, named)
    made = [(i.op, payload(V2, i)[0]) for _, i in decode_program(V2, words) if i.fields.get("rows_o", 1) != 0]
    assert made == [*commands(program, V2, bases, named), ("END", [])]
    assert code.control == "patches" and len(code.patches) < 60


@pytest.mark.parametrize("rolls", [True, False])
@pytest.mark.parametrize("args", STEPS)
def test_a_register_program_runs_the_tasks(args: tuple[int, ...], rolls: bool) -> None:
    named = dict(zip(("token", "kv_len", "head_rows", "kv_base"), args, strict=True))
    program = small_program(V1)
    program = simplify(roll(program, alignments(V1)).program if rolls else program)
    bases = dict(assign(program, V1).bases)
    made = generate_code(program, V1, bases).program
    assert made is not None
    verify(made, V1)
    device = Written(V1)
    run(parse_program(print_program(made)), device, V1, named, {})
    expected = commands(program, V1, bases, named)
    assert [c for c in device.seen if rows(c) != 0] == expected
    assert device.writes < 0.75 * sum(len(words) + 1 for _, words in expected)


def rows(command: tuple[str, list[int]]) -> int:
    field = V1.commands[command[0]].by_name.get("rows_o")
    return command[1][field.word] if field else 1


@settings(max_examples=examples(200))
@given(task_programs.programs())
def test_random_programs_keep_their_commands_without_unchanged_writes(program: Program) -> None:
    """Loops of no trips, conditions, definitions: what is launched is what the interpreter launches."""
    program = replace(program, functions=(), body=tuple(s for s in program.body if not calls(s)))
    made = generate_code(program, V1, task_programs.BASES).program
    assert made is not None
    for args in task_programs.ARGUMENTS:
        device = Written(V1)
        values = initial_values(made, args, {})
        for stmt in execute(made, values):
            if isinstance(stmt, RegWrite):
                offset = V1.registers[stmt.register].offset + 4 * value_of(stmt.index, values)
                device.csr_write(offset, value_of(stmt.value, values))
        expected = []
        for i in trace(program, args, task_programs.BASES):
            words = [0] * V1.commands[i.op].payload_words
            for name, value in i.fields.items():
                field = V1.commands[i.op].by_name[name]
                words[field.word] += int(str(value)) << field.lsb
            expected.append((i.op, words))
        assert device.seen == expected


def calls(stmt: Stmt) -> bool:
    return any(isinstance(inner, Call) for _, inner in walk_body((stmt,)))
