"""Task IR: builder, text, verifier, simplifier, interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from dlavm.sim.reference import ReferenceDevice
from dlavm.support.errors import DlavmError
from dlavm.sym import Const, Expr, Var, ceildiv, le, lt, minimum
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import payload
from dlavm.task import (
    Buffer,
    For,
    If,
    Launch,
    Let,
    Program,
    TaskBuilder,
    parse_program,
    print_program,
    problems,
    run,
    simplify,
    touched,
    trace,
    verify,
    walk,
)
from dlavm.task.facts import Facts

V1, V2, V3 = (load_target(name, "nano") for name in ("v1", "v2", "v3"))
TOKEN = Var("token", 1, 128)


def tiled() -> Program:
    """A copy in tiles of ten tokens, each of 32 bytes."""
    b = TaskBuilder("step", args=[TOKEN])
    x = b.buffer("x", "activations", 4096, "token, 16")
    y = b.buffer("y", "activations", 4096, "f16[token, 16]")
    with b.loop("t", ceildiv(TOKEN, 10)) as t, b.place("layer 3 / copy"):
        n = b.let("n", minimum(10, TOKEN - t * 10))
        fields = {"src": x.base + 20 * t, "dst": y.base + 20 * t, "src_so": 2, "dst_so": 2}
        b.launch("COPY", **fields, rows_o=n, rows_i=1, dim=16)
    return b.finish()


TILED = """\
program step(token: 1..128)
buffer x: activations 4096 bytes f16[token, 16]
buffer y: activations 4096 bytes f16[token, 16]
for t in (token + 9) // 10:
  let n = min(-10 * t + token, 10)
  launch COPY src=@x+20*t dst=@y+20*t src_so=2 dst_so=2 rows_o=n rows_i=1 dim=16  # layer 3 / copy
"""


def one(op: str, spec: TargetSpec = V3, **fields: Expr | int) -> list[str]:
    b = TaskBuilder(args=[TOKEN])
    b.buffer("x", "activations", 4096)
    with b.place("layer 3"):
        b.launch(op, **fields)
    return problems(b.finish(), spec)


# -- IR and builder ------------------------------------------------------------------------------------------------


def test_text_of_a_tiled_copy() -> None:
    assert print_program(tiled(), V3) == TILED
    assert parse_program(TILED) == tiled()


def test_walk_gives_paths_in_program_order() -> None:
    assert [(path, type(s).__name__) for path, s in walk(tiled())] == [
        ((0, 0), "For"), ((0, 0, 0), "Let"), ((0, 0, 1), "Launch"),
    ]  # fmt: skip


def test_touched_follows_lets() -> None:
    b = TaskBuilder()
    x = b.buffer("x", "activations", 64)
    y = b.buffer("y.1-a", "activations", 64)
    p = b.let("p", x.base + 1)
    q = b.let("q", p * 1 + 2)
    b.launch("COPY", src=q, dst=y.base)
    program = b.finish()
    assert touched(program.body[-1], program) == {"x", "y.1-a"}


def test_builder_renames_what_is_visible_and_reuses_what_is_not() -> None:
    b = TaskBuilder(args=[TOKEN])
    names = []
    for _ in range(2):
        with b.loop("t", TOKEN) as outer, b.loop("t", TOKEN) as inner:
            names += [outer.name, inner.name]
            names.append(b.let("token", inner + 1).name)
            b.launch("COPY", src=outer)
    assert names == ["t", "t_1", "token_1"] * 2


def test_builder_leaves_out_blocks_that_bounds_decide() -> None:
    b = TaskBuilder(args=[TOKEN])
    with b.loop("a", 1) as one_trip, b.loop("b", 0), b.when(1):
        b.launch("COPY", src=one_trip)
    with b.when(lt(TOKEN, 500)):
        b.launch("COPY", src=1)
    with b.loop("c", lt(7, TOKEN)) as c:
        b.launch("COPY", src=c)
    program = b.finish()
    assert [type(s).__name__ for _, s in walk(program)] == ["Launch", "If", "Launch"]
    assert one_trip == c == 0


def test_function_does_not_see_locals() -> None:
    b = TaskBuilder(args=[TOKEN])
    b.let("n", TOKEN + 1)
    with b.function("f"):
        assert b.let("n", TOKEN + 2).name == "n"
        assert b.let("token", TOKEN + 2).name == "token_1"
    b.call("f")
    assert problems(b.finish(), V3) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "buffer name"),
        ({"role": "stack"}, "role expected"),
        ({"bytes": -1}, "bytes expected"),
        ({"shape_text": "a\nb"}, "one line"),
    ],
)
def test_bad_buffers(change: dict[str, object], message: str) -> None:
    fields = {"name": "a", "role": "kv", "bytes": 4, **change}
    with pytest.raises(DlavmError, match=message):
        Buffer(**fields)  # type: ignore[arg-type]


def test_builder_refuses() -> None:
    b = TaskBuilder(args=[TOKEN])
    b.buffer("x", "kv", 64)
    assert b.buffer("x", "kv", 64).bytes == 64
    for wrong in (lambda: b.buffer("x", "kv", 65), lambda: b.arg("token", 0, 1), lambda: TaskBuilder(args=[TOKEN + 1])):
        with pytest.raises(DlavmError):
            wrong()
    block = b.loop("t", TOKEN)
    block.__enter__()
    with pytest.raises(DlavmError, match="1 open"):
        b.finish()


def test_buffer_type_text() -> None:
    assert Buffer("x", "kv", 4, "i32[token]").dtype == "i32"
    assert Buffer("x", "kv", 4, "token", "f32").shape_text == "f32[token]"


# -- text ----------------------------------------------------------------------------------------------------------

EVERYTHING = """\
program all.of-it(token: 1..128, kv_len: 0..1023)
assume le(kv_len + token, 1024)
buffer x-1.y: activations 65536 bytes f16[token, 256]
buffer y: tables 64 bytes i32
function setup:
  launch LOAD_TABLE act_slot=1 table=@y
  for i: 0..9 in token:
    let k = 5
call setup
for t in (token + 9) // 10:
  let n: 1..10 = min(-10 * t + token, 10)
  launch NORM norm=layer:1 src=@x-1.y - 3+320*t rows_o=n eps=1e-05:925353388  # layer 3 / #2
  if lt(8, token):
    await all
    copy dst=@y src=@y bytes=16
  await vector
read bytes: 0..3 = STATUS[0]
write ARG[1] = bytes + kv_len
signal matrix 4
wait vector 4
"""


def test_every_statement_round_trips() -> None:
    program = parse_program(EVERYTHING)
    text = print_program(program, V3)
    assert parse_program(text) == program
    assert print_program(parse_program(text, V3), V3) == text
    assert "norm=layer:1" in text and "eps=1e-05:925353388" in text and "# layer 3 / #2" in text


def test_enum_names_need_a_spec() -> None:
    text = "program p()\nlaunch LINEAR format=kv_k\n"
    assert parse_program(text, V3) == parse_program("program p()\n\n# remark\nlaunch LINEAR format=1")
    with pytest.raises(DlavmError, match="line 2: expression: unknown variable, got 'kv_k'"):
        parse_program(text)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("let x = 3", "line 1: expected one line `program"),
        ("", "expected a line `program"),
        ("program p()\nprogram q()", "line 2: expected one line `program"),
        ("program p()\n  let x = 2", "line 2: indentation: expected 0 blanks, got 2"),
        ("program p()\nif 1:\n   await all\n  await all", "line 4: indentation: expected 3"),
        ("program p()\nif 1:\n  let x = 2\nlet y = x", "line 4: expression: unknown variable, got 'x'"),
        ("program p()\nlet y = @z", "line 2: expression: unknown variable, got '@z'"),
        ("program p()\nlet y 5", "bad syntax at line 2, column 7, got 'let y 5'"),
        ("program p()\nlet y: 5..5 = 5", "line 2: variable y: expected lo < hi"),
        ("program p()\nlet y = 1\nlet y = 2", "line 3: expected a name that is free, got 'y'"),
        ("program p()\nbuffer b: heap 5 bytes f16", "line 2: buffer b: role expected"),
        ("program p()\nlaunch COPY dim=1 dim=2", "line 2: expected a name that is free, got 'dim'"),
        ("program p()\ncopy dst=1 src=2", "line 2: copy: expected dst, src and bytes"),
        ("program p()\nif 1:\n  function f:", "line 3: function f: expected outside of blocks"),
        ("program p()\nread x: 0..1 = STATUS[x]", "line 2: expression: unknown variable, got 'x'"),
    ],
)
def test_bad_text(lines: str, message: str) -> None:
    with pytest.raises(DlavmError) as error:
        parse_program(lines)
    assert message in str(error.value)


# -- facts ---------------------------------------------------------------------------------------------------------


def test_bounds_of_a_tile() -> None:
    t = Var("t", 0, 12)
    rows = minimum(10, TOKEN - 10 * t)
    facts = Facts().loop(t, ceildiv(TOKEN, 10))
    assert rows.bounds() == (-119, 10)
    assert facts.bounds(rows) == (1, 10)
    assert facts.bounds(10 * t + rows) == (1, 128)
    assert facts.always(lt(10 * t, TOKEN))


def test_bounds_from_assumptions_and_conditions() -> None:
    kv_len = Var("kv_len", 0, 1023)
    assert Facts().when(le(kv_len + TOKEN, 1024)).bounds(kv_len + TOKEN) == (1, 1024)
    assert Facts().when(lt(8, TOKEN)).bounds(TOKEN - 8) == (1, 120)
    assert Facts().when(lt(200, TOKEN)).empty
    assert Facts().when(lt(100, TOKEN)).when(lt(TOKEN, 50)).empty
    assert not Facts().when(lt(8, TOKEN)).empty


def test_terms_with_a_common_factor_are_bounded_together() -> None:
    """Blocks of 32 that a window leaves out, in units of 128: never less than none, though t is taken out of the
    quotient and something else is added."""
    t, kv_len, base = Var("t", 0, 3), Var("kv_len", 0, 300), Var("base", 0, 1 << 20)
    seen = kv_len + 32 * t + 1
    blocks = (seen - minimum(seen, 40)) // 32
    facts = Facts().loop(t, ceildiv(TOKEN, 32))
    assert blocks.lo < 0 and facts.bounds(base + 128 * blocks)[0] == 0
    assert facts.bounds(seen - 32 * blocks)[0] == 1
    assert facts.bounds(seen - 32 * blocks)[1] <= 40 + 31


# -- verifier ------------------------------------------------------------------------------------------------------


def test_good_programs_verify() -> None:
    for spec in (V1, V2, V3):
        verify(tiled(), spec)
    verify(parse_program(EVERYTHING.replace(" - 3+320*t", "+320*t").replace("i: 0..9", "i")), V3)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (one("SORT"), "SORT: expected a command of an engine of v3"),
        (one("FENCE"), "FENCE: expected a command of an engine"),
        (one("GATHER", V1, dim=1), "GATHER: expected a command of an engine of v1"),
        (one("COPY", width=1), "COPY.width: expected one of the fields"),
        (
            one("COPY", rows_i=TOKEN * 40),
            "COPY.rows_i: expected 0..4095 for every value of token, got [40, 5120] from '40 * token' at 'layer 3'",
        ),
        (one("COPY", rows_o=TOKEN - 2), "COPY.rows_o: expected 0..1048575 for every value of token, got [-1, 126]"),
        (one("LINEAR", format=7), "LINEAR.format: expected one of {'int4g128': 0, "),
        (one("LINEAR", use_bias=le(TOKEN, 8)), "LINEAR.use_bias: expected a constant"),
        (one("COPY", dim=Buffer("x", "kv", 4).base), "COPY.dim: expected a count without an address"),
        (one("COPY", src=Buffer("x", "kv", 4).base - TOKEN), "COPY.src: expected 0..4294967295 for every value"),
        (one("COPY", src=Buffer("x", "kv", 4).base + 256), "expected an address in 'x' of 4096 bytes, got byte 4096"),
        (one("COPY", src=Buffer("z", "kv", 4).base), "src: expected a declared buffer, got 'z'"),
        (one("COPY", dim=Var("n", 0, 5)), "dim: expected a variable that is defined here, got 'n'"),
        (one("COPY", dim=Var("token", 1, 5)), "dim: expected token with its bounds (1, 128), got (1, 5)"),
    ],
)
def test_bad_launches(found: list[str], message: str) -> None:
    assert len(found) == 1
    assert message in found[0]


def test_address_through_a_let_counts_from_its_buffer() -> None:
    b = TaskBuilder(args=[TOKEN])
    x = b.buffer("x", "activations", 4096)
    p = b.let("p", x.base + TOKEN)
    b.launch("COPY", src=p + 1)
    assert problems(b.finish(), V3) == []
    b.launch("COPY", src=p - 2)
    assert "got @x + [-1, 126]" in problems(b.finish(), V3)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("write STATUS[0] = 1", "register STATUS: expected one that can be written, got access 'ro'"),
        ("read n: 0..1 = CONTROL[0]", "register CONTROL: expected one that can be read"),
        ("write ARG[8] = 1", "register ARG: index expected 0..7, got [8, 8]"),
        ("write ARG[0] = 0 - token", "value: expected 0..4294967295, got [-128, -1]"),
        ("write GPIO[0] = 1", "register: expected one of"),
        ("signal gpu 1", "engine: expected one of"),
        ("wait vector 32", "semaphore: expected 0..31, got 32"),
        ("await gpu", "engine: expected one of"),
        ("call f", "call: expected one of the functions [], got 'f'"),
        ("let n: 1..5 = token", "n: expected values in its bounds [1, 5], got [1, 128]"),
        ("function f:\n  call f\ncall f", "expected no recursion"),
    ],
)
def test_bad_statements(text: str, message: str) -> None:
    found = problems(parse_program(f"program p(token: 1..128)\n{text}"), V3)
    assert any(message in line for line in found), found


def test_loops_nested_too_deep_also_through_calls() -> None:
    lines = ["program p(token: 1..128)", "function f:"]
    lines += [f"{'  ' * (d + 1)}for a{d} in token:" for d in range(5)]
    lines += [f"{'  ' * d}for b{d} in token:" for d in range(4)] + ["        call f"]
    program = parse_program("\n".join(lines))
    assert problems(program, V3) == ["p: expected loops nested at most 8 deep, got 9"]
    assert problems(program, V2) == []


def test_hand_made_defects() -> None:
    t = Var("t", 0, 5)
    nested = For(t, Const(6), (For(t, Const(6), (Launch("COPY", {}),)),))
    buffers = (Buffer("x", "kv", 4), Buffer("x", "kv", 8))
    found = problems(Program("p", (), buffers, (nested, Let(Const(4), Const(4)))), V3)
    assert len(found) == 3
    for text in ("'x' twice", "not visible yet, got 't'", "expected a variable, got '4'"):
        assert any(text in line for line in found)


def test_verify_lists_problems() -> None:
    b = TaskBuilder()
    for _ in range(25):
        b.launch("SORT")
    with pytest.raises(DlavmError, match=r"(?s)25 problems.*SORT.*and 5 more"):
        verify(b.finish(), V3)


def test_what_is_never_reached_cannot_overflow() -> None:
    text = "program p(token: 1..128)\nif lt(200, 2 * token):\n  if lt(token, 50):\n    launch COPY rows_i=token-100"
    assert problems(parse_program(text), V3) == []


# -- simplifier ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("if 0:\n  launch A", ""),
        ("if 1:\n  launch A", "launch A"),
        ("if lt(8, token):\n  if lt(4, token):\n    launch A", "if lt(8, token):\n  launch A"),
        ("if lt(8, token):\n  if lt(token, 4):\n    launch A", ""),
        ("for i in 0:\n  launch A", ""),
        ("for i in 1:\n  launch A n=i", "launch A n=0"),
        ("for i in min(token, 1):\n  launch A n=i", "launch A n=0"),
        ("for i in lt(5, token):\n  launch A n=i", "if le(1, lt(5, token)):\n  launch A n=0"),
        ("let n = 5\nlaunch A n=n + token", "launch A n=token+5"),
        ("let n = token\nlaunch A n=n", "launch A n=token"),
        ("let n = token + 1\nlaunch A n=n", "let n = token + 1\nlaunch A n=n"),
        (
            "if 1:\n  let n = token + 1\n  launch A n=n\nlet n = token + 2\nlaunch A n=n",
            "let n_1 = token + 1\nlaunch A n=n_1\nlet n = token + 2\nlaunch A n=n",
        ),
        ("let c = 3\nfor i: 0..90 in c:\n  launch A n=min(i, 50)", "for i in 3:\n  launch A n=i"),
    ],
)
def test_simplify(before: str, after: str) -> None:
    head = "program p(token: 1..128)\n"
    assert print_program(simplify(parse_program(head + before))) == head + after + ("\n" if after else "")


# -- interpreter ---------------------------------------------------------------------------------------------------


def test_trace_of_tiles() -> None:
    commands = list(trace(tiled(), {"token": 23}, {"x": 0x1000, "y": 0x2000}))
    assert [c.fields["rows_o"] for c in commands] == [10, 10, 3]
    assert [c.fields["src"] for c in commands] == [0x100, 0x114, 0x128]
    for command in commands:
        payload(V3, command)


def test_function_variables_are_its_own() -> None:
    text = "program p(token: 1..9)\nfunction f:\n  let n = token + 50\nlet n = token + 1\ncall f\nlaunch COPY dim=n"
    assert [c.fields["dim"] for c in trace(parse_program(text), {"token": 2}, {})] == [3]


@pytest.mark.parametrize(
    ("text", "args", "bases", "message"),
    [
        ("launch COPY", {}, {}, "variable token: expected a value"),
        ("launch COPY", {"token": 0}, {}, r"expected a value in \[1, 128\], got 0"),
        ("assume le(token, 9)", {"token": 10}, {}, r"expected le\(token, 9\)"),
        ("buffer x: kv 4 bytes f16\nlaunch COPY src=@x", {"token": 1}, {}, "variable @x: expected a value"),
        ("launch COPY", {"token": 1}, {"x": 8}, "buffer x: base expected a multiple of 16 bytes, got 8"),
        ("read s: 0..7 = STATUS[0]", {"token": 1}, {}, "expected no register read"),
        ("call f", {"token": 1}, {}, "expected one of the functions"),
        ("function f:\n  call f\ncall f", {"token": 1}, {}, "at most 64 nested calls"),
    ],
)
def test_trace_refuses(text: str, args: dict[str, int], bases: dict[str, int], message: str) -> None:
    program = parse_program(f"program p(token: 1..128)\n{text}")
    with pytest.raises(DlavmError, match=message):
        list(trace(program, args, bases))


def test_run_on_registers() -> None:
    data = np.arange(23 * 16, dtype=np.float16).tobytes()
    ddr = V1.space("activations").base
    with ReferenceDevice(V1) as device:
        device.mem_write(ddr, data)
        assert run(tiled(), device, V1, {"token": 23}, {"x": ddr, "y": ddr + 8192}) == 3
        assert device.mem_read(ddr + 8192, len(data)) == data


class FakeDevice:
    """Registers in a dictionary; busy for a few polls after each launch, then in the given status."""

    def __init__(self, status: int = 2) -> None:
        self.status, self.busy = status, 0
        self.writes: list[tuple[int, int]] = []

    def csr_read(self, offset: int) -> int:
        if offset != V1.registers["STATUS"].offset:
            return V1.enums["error"]["buffer"]
        return 1 if self.busy > 0 else self.status

    def csr_write(self, offset: int, value: int) -> None:
        self.busy = 3
        self.writes.append((offset, value))

    def mem_read(self, address: int, count: int) -> bytes:
        return address.to_bytes(count, "little")

    def mem_write(self, address: int, data: bytes) -> None:
        self.writes.append((address, data[0]))

    def run(self) -> None:
        self.busy -= 1


def test_run_writes_payload_then_launch_and_answers_reads() -> None:
    text = "program p()\nread s: 0..7 = STATUS[0]\nlaunch COPY dim=s\nawait all\ncopy dst=4 src=3 bytes=2"
    device = FakeDevice()
    assert run(parse_program(text), device, V1, {}, {}) == 1
    *words, launch, copy = device.writes
    assert words[-1] == (V1.registers["OP"].offset + 4 * (len(words) - 1), 2)
    assert launch == (V1.registers["LAUNCH"].offset, V1.commands["COPY"].opcode)
    assert copy == (64, 48)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("launch COPY dim=1  # here", V1, "COPY at 'here': expected the device to finish, got error 'buffer'"),
        ("launch COPY rows_i=5000", V1, "COPY.rows_i: expected 0..4095, got 5000"),
        ("write PROGRAM[0] = 1", V1, r"got PROGRAM\[0\]"),
        ("signal matrix 1", V1, "v1 has no semaphores"),
        ("launch COPY", V2, "expected a target with mmio, got 'v2'"),
    ],
)
def test_run_refuses(text: str, spec: TargetSpec, message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        run(parse_program(f"program p()\n{text}"), FakeDevice(status=4), spec, {}, {})


def test_if_is_exported_as_statement() -> None:
    assert If(1, [Launch("COPY", {"dim": 3})]).body == (Launch("COPY", {"dim": Const(3)}),)  # type: ignore[arg-type]
