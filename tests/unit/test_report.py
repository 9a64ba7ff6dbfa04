"""report.html: numbers against a hand count and the simulator's counters, the page itself."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dlavm.codegen import Code
from dlavm.codegen.stream import generate
from dlavm.compile import Options, build, compile_model
from dlavm.describe import CompiledEntry, describe, model_info
from dlavm.frontend import load_model
from dlavm.graph import Builder
from dlavm.lower import lower
from dlavm.memory import assign
from dlavm.memory.liveness import Interval
from dlavm.memory.plan import Plan, plan
from dlavm.pack.artifact import Artifact
from dlavm.pack.emit import Extent
from dlavm.pack.manifest import ModelInfo
from dlavm.passes import QuantizeWeights
from dlavm.report import Step, Work, measure, render
from dlavm.report.bounds import bound, machine
from dlavm.report.loops import Loop, loops, outermost
from dlavm.report.memory import MAX_RECTANGLES, activations
from dlavm.report.page import step_args
from dlavm.report.steps import group_of
from dlavm.report.stream import histogram
from dlavm.report.svg import Axis, tag, text
from dlavm.report.text import number, seconds, share, size
from dlavm.runtime.session import open_session
from dlavm.schedule.traffic import RULES, operands
from dlavm.sim.native import NativeDevice
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from dlavm.target.isa import Instr, encode_program
from dlavm.task import Buffer, Program, TaskBuilder, parse_program, trace
from tests.ops.programs import MAKERS, PROGRAM, Case, random_case
from tests.ops.test_engines import start
from tests.unit.test_lower import NANO, small_graph

VOID = {"meta", "path", "rect", "circle", "br", "hr", "img", "link", "input"}
SECTIONS = ("summary", "memory", "activations", "commands", "roofline", "bounds", "program", "files")


def page(spec: TargetSpec = NANO) -> str:
    graph = small_graph()
    lowered = lower(graph, spec)
    sized = generate(lowered.program, spec, {b.name: 16 for b in lowered.program.buffers})
    stream = Buffer("stream.step", "program", 4 * len(sized))
    memory = assign(lowered.program, spec, [stream])
    words = generate(lowered.program, spec, memory.bases)
    bounds = {arg.name: (arg.lo, arg.hi) for arg in lowered.program.args}
    entry = CompiledEntry(bounds, Code("scalars", words))
    manifest = describe(graph, lowered, lowered.program, memory, spec, {"step": entry}, name="<small>",
                        quant="int4g128", images=(), tables=Extent(0, 0))
    return render(manifest, lowered.program, memory, spec, words, ["task.txt", "graph.txt"])


class Checker(HTMLParser):
    """Every tag is closed in order; collects ids, links and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID or not (self.get_starttag_text() or "").endswith("/>") and tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.links += [value or "" for key, value in attrs if key == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"line {self.getpos()[0]}: </{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


# -- numbers -----------------------------------------------------------------------------------------------------------


def one_linear(token: int) -> Step:
    """x[token, 200] times w[40, 200] transposed, with a bias, on nano: 2 channels of 16 bytes."""
    b = Builder("one", ctx=32, chunk=8)
    x = b.embedding(b.input("ids", (b.token,), "i32"), b.param("embed", (50, 200)))
    y = b.linear(x, b.param("w", (40, 200)), b.param("bias", (40,)))
    program = lower(QuantizeWeights()(b.finish(logits=y)), NANO).program
    return measure(program, NANO, assign(program, NANO), {"token": token, "kv_len": 0, "head_rows": 1})


def test_one_linear_by_hand() -> None:
    # nano: row tiles of 2 * 16 / 2 = 16 rows: 3 of them for 40. k = 200: 2 groups, 7 blocks; a tile is
    # 2 + 8 * 7 = 58 beat rows of 32 bytes.
    packed = 3 * 58 * 32
    for token in (1, 5):
        work = one_linear(token).kinds["LINEAR int4g128"]
        read, written = token * 200 * 2, token * 40 * 2
        assert work == Work(launches=1, macs=token * 40 * 200, weights=packed + 40 * 2, activations=read + written,
                            read=packed + 80 + read, written=written)


def test_one_embedding_by_hand() -> None:
    step = one_linear(3)
    row = 200 * 2
    assert step.kinds["GATHER"] == Work(launches=1, weights=3 * row, activations=3 * 4 + 3 * row,
                                        read=3 * (4 + row), written=3 * row)
    assert step.once == {"weights": 3 * 400 + 3 * 58 * 32 + 80, "tables": 0, "kv": 0, "activations": 0}
    assert step.total.launches == 2 and step.total.bytes == step.total.read + step.total.written


def test_bounds_by_hand() -> None:
    board = machine(NANO)  # 2 x 16 bytes x 100 MHz; 128 lanes x 100 MHz
    assert (board.bytes_s, board.macs_s, board.balance, board.limited_by) == (3.2e9, 12.8e9, 4.0, "the memory itself")
    step = one_linear(8)
    b = bound(step, NANO)
    assert b.once_s == pytest.approx((8 * 400 + 5568 + 80) / 3.2e9)
    assert b.lanes_s == pytest.approx(8 * 8000 / 12.8e9)
    assert b.operands_s == pytest.approx(step.total.bytes / 3.2e9)
    assert b.least_s == b.lanes_s and b.tokens == 8


def test_slow_ports_limit_the_bandwidth() -> None:
    slow = replace(NANO.board.memory("hbm"), port_clock_mhz=50)
    spec = replace(NANO, board=replace(NANO.board, memories={"hbm": slow}))
    assert (machine(spec).bytes_s, machine(spec).limited_by) == (1.6e9, "the ports")


def test_other_memories_do_not_count() -> None:
    spec = replace(NANO, roles={**NANO.roles, "activations": ("ddr",), "tables": ("ddr",)})
    step = one_linear(2)
    assert bound(step, spec).operands_s == pytest.approx(step.total.weights / 3.2e9)


def test_a_page_says_where_activations_lie_and_counts_them_there() -> None:
    """On the chip, or where there is too little room in the memory of the weights."""
    spec = load_target("v3", "vcu128")
    chip = spec.board.memories["onchip"]
    small = replace(chip, capacity=4 * chip.beat_row)
    for board, memory, counted in ((spec.board, "onchip", "weights, tables, kv"),
                                   (replace(spec.board, memories={**spec.board.memories, "onchip": small}), "hbm",
                                    "weights, tables, kv, activations")):  # fmt: skip
        words = page(replace(spec, board=board))
        assert f"at the peak in {memory}, lower bound" in words
        assert ("onchip: all 9.00 MiB" in words) == (memory == "onchip")
        assert f"operands in hbm ({counted})." in words


@pytest.mark.parametrize("args", [(1, 0, 1), (1, 63, 1), (40, 24, 40), (33, 1, 2), (40, 0, 0)])
def test_the_commands_are_those_of_the_trace(args: tuple[int, int, int]) -> None:
    program = lower(small_graph(), NANO).program
    memory = assign(program, NANO)
    named = {**dict(zip(("token", "kv_len", "head_rows"), args, strict=True)), "kv_base": 0}
    step = measure(program, NANO, memory, named)
    seen = list(trace(program, named, memory.bases))
    assert step.total.launches == len(seen)
    assert step.total.macs == sum(product(i) for i in seen if i.op == "LINEAR")
    for sums in (step.kinds, step.groups):
        assert sum(w.bytes for w in sums.values()) == step.total.bytes
    columns = ("weights", "tables", "kv", "activations")
    assert sum(getattr(step.total, c) for c in columns) == step.total.bytes


def product(instr: Instr) -> int:
    f = {name: int(str(value)) for name, value in instr.fields.items()}
    return f["batch"] * f["rows_o"] * f["rows_i"] * f["n"] * f["k"]


def test_bytes_are_those_of_the_simulator(repository: Path, tmp_path: Path) -> None:
    """The whole bundled model: what the counters of the simulator say of a chunk and of a token behind it."""
    model, spec, options = load_model(repository / "models" / "stories.py"), NANO, Options(ctx=96, chunk=40)
    build(model, spec, options, tmp_path / "a")
    compiled = compile_model(model, spec, options)
    artifact = Artifact.open(tmp_path / "a")
    with open_session(artifact) as session:
        for token, kv_len in ((40, 0), (37, 40), (1, 77)):
            counters = session.step(list(range(token)), 1).counters
            args = {"token": token, "kv_len": kv_len, "head_rows": 1, "kv_base": 0}
            total = measure(compiled.program, spec, compiled.memory, args).total
            assert (total.read, total.written) == (counters.bytes_read, counters.bytes_written)
    checked(artifact.file("report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("make", dict.fromkeys(MAKERS), ids=lambda make: make.__name__)
def test_bytes_of_any_command_are_those_of_the_simulator(make: Callable[..., dict[str, int]]) -> None:
    rng = np.random.default_rng(7)
    case = random_case(NANO, 7, commands=0)
    with NativeDevice(NANO) as device:
        for _ in range(40):
            fields, op = make(NANO, rng), make.__name__.upper()
            words = encode_program(NANO, [Instr(op, fields), Instr("END")])
            memory = case.memory.copy()
            memory[PROGRAM : PROGRAM + 4 * len(words)] = np.array(words, np.uint32).view(np.uint8)
            start(device, NANO, Case(memory, words))
            device.run()
            found = operands(op, fields, NANO)
            read, written = (sum(o.bytes for o in found if o.write == write) for write in (False, True))
            counters = device.counters()
            assert (read, written) == (counters.bytes_read, counters.bytes_written), fields


def test_a_rule_for_each_engine_command() -> None:
    for target in ("v1", "v2", "v3"):
        engine = {c.name for c in load_target(target).commands.values() if c.engine is not None}
        assert engine <= set(RULES)


def test_commands_without_rows_touch_nothing() -> None:
    for op in set(RULES) - {"LOAD_TABLE"}:
        assert operands(op, {"dim": 64, "k": 32, "n": 32, "rot": 16, "visible": 1, "width": 1}, NANO) == ()


def test_a_command_without_a_rule_is_refused() -> None:
    with pytest.raises(DlavmError, match=r"expected one of the commands .* got 'FENCE'"):
        operands("FENCE", {}, NANO)


def test_a_register_read_is_refused() -> None:
    b = TaskBuilder("reads")
    b.reg_read("x", "STATUS")
    program = b.finish()
    with pytest.raises(DlavmError, match="expected no register read, got 'STATUS'"):
        measure(program, NANO, assign(program, NANO), {})


def test_an_address_outside_is_refused() -> None:
    b = TaskBuilder("outside")
    base = b.buffer("x", "activations", 64).base
    b.launch("ACT", src=base + 1000, dst=base, rows_o=1, rows_i=1, dim=8)
    program: Program = b.finish()
    with pytest.raises(DlavmError, match="expected an address of one of 1 regions, got 0x3e80"):
        measure(program, NANO, assign(program, NANO), {})


def test_histogram_counts_every_word() -> None:
    program = lower(small_graph(), NANO).program
    words = generate(program, NANO, assign(program, NANO).bases)
    kinds = histogram(NANO, words)
    assert sum(k.words for k in kinds) == len(words)
    assert all(k.words % k.commands == 0 for k in kinds)
    assert {k.name: k.commands for k in kinds}["END"] == 1
    with pytest.raises(DlavmError, match="word 0: expected the header of a v3 command, got 0x000000ff"):
        histogram(NANO, [0xFF])
    with pytest.raises(DlavmError, match="expected the header"):
        histogram(NANO, words[:-1])


@pytest.mark.parametrize(("where", "group"), [
    ("layer 7 / q_proj", "layer * / q_proj"), ("model.layers.12.mlp", "model.layers.*.mlp"),
    ("block3.add_2", "block*.add_2"), ("logits", "logits"), ("linear_4", "linear_4"),
])
def test_group_of(where: str, group: str) -> None:
    assert group_of(where) == group


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_complete() -> None:
    parsed = checked(page())
    assert set(SECTIONS) <= set(parsed.ids) and len(set(parsed.ids)) == len(parsed.ids)
    words = " ".join(parsed.words)
    for name in ("<small>", NANO.hash, "nano", "token = 40, kv_len = 0", "token = 1, kv_len = 32", "LINEAR kv_v",
                 "SOFTMAX", "not measurements", "1 loop.", "balance"):
        assert name in words, name
    assert {"graph.txt", "task.txt"} <= set(parsed.links)
    assert all(f"#{i}" in parsed.links for i in ("memory", "commands", "roofline", "program", "files"))


def test_the_page_needs_no_network() -> None:
    text = page()
    assert "://" not in text and "@import" not in text and "url(" not in text
    assert not {key for key, _ in checked(text).attributes} & {"src", "srcset", "xlink:href", "onload"}


def test_the_page_is_deterministic() -> None:
    assert page() == page()


def test_no_number_is_broken() -> None:
    assert not re.search(r"\b(nan|inf)\b|[0-9]e[-+][0-9]|Undefined|None", page())


def test_steps_stay_inside_the_context() -> None:
    smallest = ModelInfo("custom", 50, 64, 1, 4, 2, 16, ctx=1, chunk=1, bos_token_id=None, eos_token_ids=())
    assert step_args(smallest)["decode"] == {"token": 1, "kv_len": 0, "head_rows": 1, "kv_base": 0}
    larger = step_args(replace(smallest, ctx=2048, chunk=128))
    assert larger["decode"]["kv_len"] == 1024 and larger["prefill"]["token"] == 128


def many_buffers(count: int) -> Iterator[Interval]:
    return (Interval(f"layer{i}.x", i, i + 2, 64 + i) for i in range(count))


def test_a_huge_plan_stays_small() -> None:
    program = lower(small_graph(), NANO).program
    memory = assign(program, NANO)
    intervals = tuple(many_buffers(2 * MAX_RECTANGLES))
    found = plan(intervals)
    view = activations(replace(memory, intervals=intervals, activations=found))
    assert view is not None
    first, last = view.drawn
    assert 0 <= first < last <= view.commands == len(intervals) + 1 and last - first < view.commands / 3
    assert any(found.offsets[i.name] + i.size == found.peak for i in intervals if first <= i.lower < last)
    assert 0 < view.drawing.count("<rect") <= MAX_RECTANGLES and len(view.drawing) < 300_000
    together = tuple(Interval(f"x{i}", 0, 9, 16) for i in range(2 * MAX_RECTANGLES))
    stacked = Plan({i.name: 16 * at for at, i in enumerate(together)}, 32 * MAX_RECTANGLES, 0, False)
    view = activations(replace(memory, intervals=together, activations=stacked))
    assert view is not None and view.drawing.count("<rect") == MAX_RECTANGLES
    assert activations(replace(memory, intervals=())) is None


def test_a_peak_above_the_bound_is_said() -> None:
    program = lower(small_graph(), NANO).program
    memory = assign(program, NANO)
    worse = replace(memory.activations, peak=memory.activations.lower_bound * 5 // 4)
    view = activations(replace(memory, activations=worse))
    assert view is not None and view.over == "25.0 %" and "dashed: lower bound" in view.drawing


LOOPS = """program p(token: 1..64)
buffer x: activations 64 bytes f16[32]
function f:
  for u in 2:
    launch COPY src=@x dst=@x
launch COPY src=@x dst=@x
for layer in 8:
  launch COPY src=@x dst=@x
  for t in (token + 15) // 16:
    launch COPY src=@x dst=@x
    launch COPY src=@x dst=@x
for nothing in 3:
  let a = token + 1
if lt(2, token):
  for late in 1:
    launch COPY src=@x dst=@x
call f
"""


def test_loops_on_the_axis_of_the_commands() -> None:
    found = loops(parse_program(LOOPS))
    assert found == [
        Loop("layer", "8 turns", 1, 4, 0),
        Loop("t", "up to 4 turns", 2, 4, 1),
        Loop("late", "1 turn", 4, 5, 0),
        Loop("u", "2 turns", 5, 6, 0),
    ]
    assert outermost(found) == "layer (8 turns), late (1 turn), u (2 turns)"


def test_the_picture_of_a_loop_says_how_many_turns_it_stands_for() -> None:
    program = lower(small_graph(), NANO).program
    memory = assign(program, NANO)
    end = max(i.upper for i in memory.intervals)
    around = [Loop("layer", "8 turns", 1, end, 0), Loop("t", "up to 4 turns", 2, 3, 1)]
    plain, view = activations(memory), activations(memory, around)
    assert plain is not None and view is not None
    assert (plain.turns, view.turns) == ("", "layer (8 turns)")
    assert view.drawing.count('class="turns"') == 2 and 'class="turns"' not in plain.drawing
    assert '>layer: 8 turns</text>' in view.drawing
    assert '>t: up to 4 turns</text>' not in view.drawing  # one command is too narrow for it: the tip has it
    assert "<title>t: up to 4 turns</title>" in view.drawing


def test_every_turn_is_counted(repository: Path) -> None:
    """The work of a step is the same whether its layers are a loop or not."""
    model, spec = load_model(repository / "models" / "stories.py"), load_target("v3", "vcu128")
    rolled, unrolled = (compile_model(model, spec, Options(rolls=rolls)) for rolls in (True, False))
    assert len(rolled.program.body) < len(unrolled.program.body)
    for args in step_args(model_info(rolled.graph)).values():
        steps = [measure(c.program, spec, c.memory, args) for c in (rolled, unrolled)]
        assert steps[0].groups == steps[1].groups and steps[0].once == steps[1].once
    assert len(activations(rolled.memory).drawing) < len(activations(unrolled.memory).drawing)  # type: ignore[union-attr]


# -- small parts -------------------------------------------------------------------------------------------------------


def test_numbers_for_people() -> None:
    assert [size(x) for x in (0, 1023, 1024, 14848, 8 << 30)] == ["0 B", "1023 B", "1.00 KiB", "14.5 KiB", "8.00 GiB"]
    assert [number(x) for x in (0, 999, 1000, 52_749, 1.8432e12)] == ["0", "999", "1.00 k", "52.7 k", "1.84 T"]
    assert [seconds(x) for x in (2.5, 0.012, 4.56e-4, 3e-9)] == ["2.50 s", "12.0 ms", "456 µs", "3.00 ns"]
    assert [share(*x) for x in ((1, 4), (1, 10_000), (0, 4), (1, 0))] == ["25.0 %", "<0.1 %", "0.0 %", "-"]


def test_markup_is_escaped() -> None:
    assert text(1.0, 2.5, "<a> & b") == '<text x="1" y="2.5">&lt;a&gt; &amp; b</text>'
    assert tag("rect", class_='"x"', stroke_width=1 / 3) == '<rect class="&quot;x&quot;" stroke-width="0.33"/>'


def test_axes() -> None:
    assert Axis(0, 10, 100, 0)(2.5) == 75
    log = Axis(0.1, 1000, 0, 400, log=True)
    assert log(10) == pytest.approx(200) and log.decades() == [0.1, 1.0, 10.0, 100.0, 1000.0]
    assert Axis(3, 3, 0, 10)(3) == 0
