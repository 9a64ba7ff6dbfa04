"""Rolling: repeated layers become loops that launch the same commands on buffers that correspond."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dlavm.compile import Options, compile_model, pipeline
from dlavm.frontend import load_model
from dlavm.lower import lower
from dlavm.memory import alignments, assign
from dlavm.passes import run
from dlavm.target import load_target
from dlavm.target.isa import Instr
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import For, Program, parse_program, print_program, roll, simplify, trace, verify
from dlavm.task.roll import merged_name

NANO = load_target("v3", "nano")
ALIGN = alignments(NANO)
UNIT = NANO.space("weights").beat_row

HEAD = """\
program p(token: 1..8)
buffer e: activations 128 bytes f16[token, 8]
"""


def layers(count: int, turn: str, buffers: str, head: str = HEAD, tail: str = "") -> Program:
    """`{i}`: the layer, `{p}`: its input, `{d}`: 4 and 8 in turn."""
    inputs = ["e", *(f"x{i}" for i in range(count))]
    declared = "".join(buffers.format(i=i) for i in range(count))
    body = "".join(turn.format(i=i, p=inputs[i], d=4 + 4 * (i % 2)) for i in range(count))
    return parse_program(head + declared + "launch COPY dst=@e rows_o=token dim=8\n" + body + tail)


BUFFERS = """\
buffer w{i}: weights 100 bytes f16
buffer b{i}: weights 40 bytes f16
buffer h{i}: activations 128 bytes f16[token, 8]
buffer x{i}: activations 128 bytes f16[token, 8]
"""
TURN = """\
launch NORM src=@{p} dst=@h{i} gamma=@b{i} rows_o=token dim=8  # layer {i} / norm
for t in (token + 3) // 4:
  launch COPY src=@h{i}+t dst=@h{i}+t rows_o=1 dim=8
launch ACT src=@h{i} dst=@h{i} rows_o=token dim=8
launch ACT src=@h{i} dst=@h{i} rows_o=token dim=8
launch LINEAR src=@h{i} wgt=@w{i} dst=@x{i} rows_o=token k=8 n=8  # layer {i} / down
"""

ROLLED = """\
program p(token: 1..8)
buffer xN: activations 128 bytes f16[token, 8]
buffer wN: weights 100 bytes f16 copies 4 every 192
buffer bN: weights 40 bytes f16 copies 4 every 192
buffer hN: activations 128 bytes f16[token, 8]
launch COPY dst=@xN rows_o=token dim=8
for layer in 4:
  launch NORM src=@xN dst=@hN gamma=@bN+12*layer rows_o=token dim=8  # layer * / norm
  for t in (token + 3) // 4:
    launch COPY src=@hN+t dst=@hN+t rows_o=1 dim=8
  launch ACT src=@hN dst=@hN rows_o=token dim=8
  launch ACT src=@hN dst=@hN rows_o=token dim=8
  launch LINEAR src=@hN wgt=@wN+12*layer dst=@xN rows_o=token k=8 n=8  # layer * / down
launch COPY src=@xN rows_o=token dim=8
"""


def test_layers_become_a_loop() -> None:
    assert UNIT == 32
    made = roll(layers(4, TURN, BUFFERS, tail="launch COPY src=@x3 rows_o=token dim=8\n"), ALIGN)
    assert print_program(made.program) == ROLLED
    assert made.copies == {"wN": ("w0", "w1", "w2", "w3"), "bN": ("b0", "b1", "b2", "b3")}
    assert parse_program(ROLLED) == made.program


def test_layers_that_read_their_own_memory_become_a_loop() -> None:
    turn = TURN.replace("for t", "await all\nfor t").replace("  launch COPY", """\
  load e: 0..7 = @h{i}[t]
  launch COPY rows_i=e dst=@x{i}
  launch COPY""")
    program = roll(layers(4, turn, BUFFERS), ALIGN).program
    text = print_program(program)
    assert "for layer in 4:" in text and "    load e: 0..7 = @hN[t]\n" in text and text.count("load") == 1
    assert parse_program(text) == program


def test_records_lie_one_behind_the_other() -> None:
    program = layers(4, TURN, BUFFERS)
    made = roll(program, ALIGN)
    memory = assign(made.program, NANO).with_copies(made.program, made.copies)
    first = memory.region("weights").base
    assert [memory.bases[f"w{i}"] - first for i in range(4)] == [0, 192, 384, 576]
    assert [memory.bases[f"b{i}"] - first for i in range(4)] == [128, 320, 512, 704]


@pytest.mark.parametrize(
    ("turn", "tail"),
    [
        # An inner result is used behind the layers.
        (TURN, "launch COPY src=@h1 rows_o=token dim=8\n"),
        # The layers' constants are used elsewhere.
        (TURN, "launch COPY src=@w2 rows_o=token dim=8\n"),
    ],
)
def test_what_cannot_be_rolled_stays(turn: str, tail: str) -> None:
    program = layers(4, turn, BUFFERS, tail=tail)
    assert roll(program, ALIGN).program == program


def test_a_result_does_not_overwrite_an_input_that_is_still_read() -> None:
    """Two layers a turn, with two buffers in turns."""
    program = layers(5, TURN + "launch COPY src=@{p} dst=@h{i} rows_o=token dim=8\n", BUFFERS)
    made = roll(program, ALIGN).program
    assert [int(stmt.count) for stmt in made.body if isinstance(stmt, For) and stmt.count.is_const] == [2]
    follow(program, made)


def test_an_input_that_is_needed_later_stays_apart() -> None:
    program = layers(4, TURN, BUFFERS, tail="launch COPY src=@e rows_o=token dim=8\n")
    made = roll(program, ALIGN).program
    assert [int(stmt.count) for stmt in made.body if isinstance(stmt, For) and stmt.count.is_const] == [3]
    follow(program, made)


def test_layers_that_differ_are_rolled_in_pairs() -> None:
    """Every other layer has another width, as with alternating windows."""
    program = layers(8, TURN.replace("dim=8  # layer {i} / norm", "dim={d}"), BUFFERS)
    made = roll(program, ALIGN).program
    loops = [stmt for stmt in made.body if isinstance(stmt, For)]
    assert [int(loop.count) for loop in loops] == [4]
    assert len(loops[0].body) == 10
    follow(program, made)


def test_two_stretches() -> None:
    """Layers of one kind behind layers of another."""
    second = TURN.replace("launch ACT", "launch COPY").replace("{i}", "{q}")
    turns = "".join(
        (TURN if i < 4 else second).format(i=i, q=i, p="e" if i == 0 else f"x{i - 1}") for i in range(8)
    )
    declared = "".join(BUFFERS.format(i=i) for i in range(8))
    program = parse_program(HEAD + declared + "launch COPY dst=@e rows_o=token dim=8\n" + turns)
    made = roll(program, ALIGN).program
    assert [int(stmt.count) for stmt in made.body if isinstance(stmt, For)] == [4, 4]
    follow(program, made)


@pytest.mark.parametrize(
    ("names", "merged"),
    [
        (["layer0.q", "layer1.q"], "layerN.q"),
        (["l.0.w2", "l.1.w2"], "l.N.w2"),
        (["a", "b"], "a"),
        (["l0", "l1x"], "l0"),
        (["only"], "only"),
    ],
)
def test_names(names: list[str], merged: str) -> None:
    assert merged_name(names) == merged


@pytest.mark.parametrize("args", [(1, 0, 1, 0), (1, 600, 1, 64), (128, 0, 1, 0), (33, 40, 33, 0)])
def test_the_bundled_model_launches_the_same(args: tuple[int, ...], repository: Path) -> None:
    model = load_model(repository / "models" / "stories.py")
    program = lower(run(pipeline(Options(), NANO), model.graph(1024, 128)), NANO).program
    made = simplify(roll(program, ALIGN).program)
    verify(made, NANO)
    assert len(made.body) < 25 and parse_program(print_program(made)) == made
    follow(program, made, dict(zip([a.name for a in program.args], args, strict=True)))


def test_programs_do_not_grow_with_depth(repository: Path) -> None:
    model = load_model(repository / "models" / "stories.py")
    rolled = compile_model(model, NANO, Options(ctx=64, chunk=8))
    unrolled = compile_model(model, NANO, Options(ctx=64, chunk=8, rolls=False))
    assert 3 * len(rolled.words) < len(unrolled.words)
    assert rolled.memory.activations.peak == unrolled.memory.activations.peak
    assert set(unrolled.lowered.contents) <= set(rolled.memory.bases)


def follow(program: Program, made: Program, args: Mapping[str, int] | None = None) -> None:
    """Both launch the same commands, and each buffer of the first has one place in the second."""
    args = args or {"token": 5}
    apart = {b.name: (1 << 32) + (i << 28) for i, b in enumerate(program.buffers)}
    together = dict(assign(made, NANO).bases)
    places: dict[str, int] = {}
    names = {base // ADDRESS_UNIT: name for name, base in apart.items()}
    old, new = list(trace(program, args, apart)), list(trace(made, args, together))
    assert [i.op for i in old] == [i.op for i in new] and old
    for a, b in zip(old, new, strict=True):
        assert a.fields.keys() == b.fields.keys()
        for field, value in a.fields.items():
            place = number(a, field)
            if NANO.commands[a.op].by_name[field].kind != "addr" or not place:
                assert value == b.fields[field], (a, b, field)
                continue
            start = place >> 24 << 24
            found = number(b, field) - (place - start)
            assert places.setdefault(names[start], found) == found


def number(instr: Instr, field: str) -> int:
    return int(str(instr.fields[field]))
