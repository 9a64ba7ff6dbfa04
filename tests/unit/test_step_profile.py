"""`dlavm profile` and what it is made of: records of the timed simulator, names, critical paths, tables, traces."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlavm.cli import main
from dlavm.pack.manifest import TensorInfo
from dlavm.profile import causes
from dlavm.profile.ops import Line, ops_of, outermost_turns, read_listing
from dlavm.profile.path import complement, critical_path, overlap, total, union
from dlavm.profile.record import ENGINES, HOW, Command, Record, Wait, parse, read_record
from dlavm.profile.subject import Subject
from dlavm.profile.table import sums, tabulate
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.timed import open_timed
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target import load_target
from dlavm.target.isa import Instr, disassemble, encode_program, from_text, places
from tests.ops.programs import random_case
from tests.ops.test_engines import start
from tests.rtl.cores import execute, placed, write
from tests.rtl.timed_programs import concurrent_case, many_rows_case

NANO = load_target("v3", "nano")
ENGINE_NUMBERS = NANO.enums["engine"]
STORIES = str(data_root() / "models" / "stories.py")


def run(device: NativeDevice, seed: int, **options: object) -> None:
    """A random program of all engines."""
    case = placed(NANO, many_rows_case(NANO, seed) if seed % 3 == 0 else concurrent_case(NANO, seed))
    for name, value in {"check_hazards": 0, **options}.items():
        device.set_option(name, str(value))
    write(device, NANO, case)
    execute(device, NANO, case)


def record_of(device: NativeDevice, path: Path, seed: int, **options: object) -> Record:
    run(device, seed, profile=path, **options)
    return read_record(path)


@pytest.fixture
def timed() -> Iterator[NativeDevice]:
    with open_timed(NANO) as device:
        yield device


def test_a_profile_changes_nothing_and_has_every_cycle(timed: NativeDevice, tmp_path: Path) -> None:
    """Cycles as without it; the causes of a command are its cycles; tracks have no holes but the commands."""
    with open_timed(NANO) as plain:
        for seed in range(6):
            record = record_of(timed, tmp_path / "a", seed, profile_least=1)
            run(plain, seed)
            counters = timed.counters()
            assert counters == plain.counters() and record.cycles == counters.cycles
            for command in record.commands:
                assert sum(command.causes.values()) == command.cycles > 0
                assert command.queued < command.begin < command.end < record.cycles
            for wait in record.waits:
                assert sum(wait.how) == wait.cycles
            for engine in ENGINES:
                queue = [(w.begin, w.end) for w in record.waits if w.track == engine and
                         w.cause in ("nothing", "semaphore", "hand_over")]  # fmt: skip
                spans = [(c.begin, c.end) for c in record.commands if c.engine == engine]
                assert total(union([*queue, *spans])) == record.cycles
                # The cycle in which a command is handed over is the queue's and the command's.
                assert total(queue) + total(spans) == record.cycles + len(spans)


def test_the_short_ways_change_no_cause(tmp_path: Path) -> None:
    """Looking at every cycle gives the same causes as looking where something changes."""
    with open_timed(NANO) as skipping, open_timed(NANO) as stepping:
        stepping.set_option("skip", 0)
        for seed in range(8):
            quick = record_of(skipping, tmp_path / "a", seed)
            slow = record_of(stepping, tmp_path / "b", seed)
            assert quick.commands == slow.commands


def test_traffic_adds_up_to_the_counters(timed: NativeDevice, tmp_path: Path) -> None:
    record = record_of(timed, tmp_path / "a", 4)
    registers = NANO.registers
    number = 0
    for space, memory in enumerate(NANO.board.memories.values()):
        timed.csr_write(registers["CHANNEL"].offset, number)
        samples = [t for t in record.traffic if t.space == space]
        assert samples[0].begin == 0 and samples[-1].end == record.cycles
        assert all(a.end == b.begin for a, b in zip(samples, samples[1:], strict=False))
        read = timed.csr_read(registers["CHANNEL_READ"].offset)
        assert sum(t.read_beats for t in samples) * 16 == read
        assert sum(t.busy for t in samples) == timed.csr_read(registers["CHANNEL_BUSY"].offset)
        number += memory.channels


def test_a_run_that_ends_with_an_error_has_a_record(timed: NativeDevice, tmp_path: Path) -> None:
    """What was before the error, whole; the run after it without the option has none."""
    case = random_case(NANO, 1, 3)
    words = np.array([*case.words[:-NANO.header_words], 0xFF, 0], np.uint32)  # instead of END
    start(timed, NANO, case)
    timed.mem_write(timed.csr_read(NANO.registers["PROGRAM"].offset) * 16, words)
    timed.set_option("profile", str(tmp_path / "a"))
    with pytest.raises(DeviceError, match="illegal_opcode"):
        timed.run()
    record = read_record(tmp_path / "a")
    assert len(record.commands) >= 3 and record.cycles > max(command.end for command in record.commands)
    (tmp_path / "a").unlink()
    timed.set_option("profile", "")
    run(timed, 1)
    assert not (tmp_path / "a").exists()


def test_what_the_option_refuses(timed: NativeDevice, tmp_path: Path) -> None:
    for value in ("0", "x", "-1"):
        with pytest.raises(DeviceError) as error:
            timed.set_option("profile_least", value)
        assert error.value.code == "bad_argument"
    with pytest.raises(DeviceError, match="option profile: expected a file that can be written"):
        record_of(timed, tmp_path / "none" / "file", 1)


def test_every_cause_has_a_text_and_a_limit(timed: NativeDevice, tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for seed in range(12):
        record = record_of(timed, tmp_path / "a", seed, profile_least=1)
        seen |= {(c.engine, cause) for c in record.commands for cause in c.causes}
        assert all(causes.text_of(wait.cause) for wait in record.waits)
    assert len(seen) > 20
    for engine, cause in seen:
        assert causes.limit_of(engine, cause) in causes.LIMITS
        assert causes.text_of(cause)
    assert causes.limit_of("matrix", "weights/latency") == causes.LATENCY
    assert causes.limit_of("matrix", "weights/refresh") == causes.MEMORY
    assert causes.limit_of("vector", "work") == causes.VECTOR


GOOD = [
    "command,matrix,3,20,5,7,19,1 2 3,decode=2 weights/refresh=4 work=6",
    "wait,vector,semaphore,0,9,6,0,9,0,0",
    "memory,1,0,64,12,0,12",
    "end,30",
]


def test_reading_a_record() -> None:
    record = parse(GOOD)
    assert record.cycles == 30
    assert record.commands == (Command("matrix", 3, 20, 5, 7, 19, (1, 2, 3),
                                       {"decode": 2, "weights/refresh": 4, "work": 6}),)  # fmt: skip
    assert [(w.cause, w.begin, w.end) for w in record.waits] == [("semaphore", 0, 8), ("hand_over", 8, 9)]
    assert record.traffic[0].read_beats == 12


@pytest.mark.parametrize("line", ["", "command,matrix,3", "command,dma,3,20,5,7,19,1,work=1", "wait,matrix,x,0,1,0,0,1",
                                  "memory,1,2", "end,x", "begin,1", "command,matrix,3,20,5,7,19,1,work"])  # fmt: skip
def test_a_record_that_is_wrong(line: str) -> None:
    with pytest.raises(DlavmError, match="profile: line 2: expected a row of a profile"):
        parse([GOOD[0], line, GOOD[3]])


def test_a_record_that_breaks_off() -> None:
    with pytest.raises(DlavmError, match="expected a row `end`"):
        parse(GOOD[:3])


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda p: (min(p), max(p))), max_size=8)


@given(SPANS, st.integers(0, 40), st.integers(0, 40))
def test_spans(spans: list[tuple[int, int]], begin: int, end: int) -> None:
    inside = {cycle for a, b in spans for cycle in range(a, b)}
    joined = union(spans)
    assert {cycle for a, b in joined for cycle in range(a, b)} == inside
    assert total(joined) == len(inside)
    assert total(complement(joined, 40)) == 40 - len(inside)
    assert overlap(joined, begin, end) == len(inside & set(range(begin, end)))


def wait(track: str, cause: str, begin: int, end: int, detail: int = 0) -> Wait:
    return Wait(track, cause, begin, end, detail, 0, (end - begin, 0, 0))


def command(engine: str, number: int, begin: int, end: int) -> Command:
    return Command(engine, number, 0, max(0, begin - 1), begin, end, (), {"work": end - begin})


def test_a_critical_path_by_hand() -> None:
    """matrix 10..30, its signal lets vector begin at 34; store runs beside and delays nobody; 2 follows 1 in its queue;
    the last one comes late from the front end."""
    semaphore = ENGINE_NUMBERS["matrix"] * len(ENGINE_NUMBERS) + ENGINE_NUMBERS["vector"]
    commands = (command("matrix", 0, 10, 30), command("store", 1, 12, 60), command("vector", 2, 34, 50),
                command("vector", 3, 52, 70), command("store", 4, 90, 95))  # fmt: skip
    waits = (wait("matrix", "nothing", 0, 9), wait("matrix", "hand_over", 9, 11), wait("matrix", "hand_over", 30, 31),
             wait("matrix", "nothing", 31, 100), wait("vector", "nothing", 0, 5),
             wait("vector", "semaphore", 5, 33, semaphore), wait("vector", "hand_over", 33, 35),
             wait("vector", "hand_over", 50, 53), wait("vector", "hand_over", 70, 71),
             wait("vector", "nothing", 71, 100), wait("store", "nothing", 0, 11), wait("store", "hand_over", 11, 13),
             wait("store", "hand_over", 60, 61), wait("store", "nothing", 61, 89),
             wait("store", "hand_over", 89, 91), wait("store", "hand_over", 95, 96),
             wait("store", "nothing", 96, 100))  # fmt: skip
    path = critical_path(Record(100, commands, waits, ()), ENGINE_NUMBERS)
    assert path.numbers == {0, 2, 3, 4}
    gaps = {gap.before: (gap.begin, gap.end, dict(gap.cycles)) for gap in path.gaps}
    assert gaps == {
        0: (0, 10, {"control": 9, "latency": 1}),
        2: (30, 34, {"control": 0, "latency": 4}),  # store runs meanwhile
        3: (50, 52, {"control": 0, "latency": 2}),
        4: (70, 90, {"control": 18, "latency": 2}),
        None: (95, 100, {"control": 4, "latency": 1}),
    }
    assert path.idle == 10 + 20 + 5 and path.control == 9 + 18 + 4


def test_an_empty_run_is_control() -> None:
    path = critical_path(Record(7, (), (), ()), ENGINE_NUMBERS)
    assert not path.numbers and [(g.begin, g.end, g.cycles["control"]) for g in path.gaps] == [(0, 7, 7)]


def test_a_path_has_every_cycle_once(timed: NativeDevice, tmp_path: Path) -> None:
    """Of any program, also of one whose semaphores are not those of the compiler."""
    for seed in range(12):
        record = record_of(timed, tmp_path / "a", seed)
        path = critical_path(record, ENGINE_NUMBERS)
        spans = [(c.begin, c.end) for c in record.commands if c.number in path.numbers]
        spans += [(gap.begin, gap.end) for gap in path.gaps]
        assert total(spans) == record.cycles and union(spans) == [(0, record.cycles)]
        assert all(sum(gap.cycles.values()) == gap.end - gap.begin for gap in path.gaps)
        assert path.control <= path.idle == record.cycles - total(union([(c.begin, c.end) for c in record.commands]))


def test_places_in_the_assembly() -> None:
    program = [Instr("FENCE", where="start"), Instr("COPY", {"dim": 8}), Instr("COPY", {"dim": 9}, where="layer 3 / x"),
               Instr("END")]  # fmt: skip
    words = encode_program(NANO, program)
    found = places(NANO, program)
    text = disassemble(NANO, words, found)
    assert [line.rpartition("#")[2].strip() for line in text.splitlines() if "#" in line] == ["start", "layer 3 / x"]
    listing = read_listing(text)
    assert {at: line.where for at, line in listing.items() if line.where} == found
    assert [line.op for line in listing.values()] == [instr.op for instr in program]
    assert [from_text(NANO, line[6:]) for line in text.splitlines()] == [
        from_text(NANO, line[6:]) for line in disassemble(NANO, words).splitlines()
    ]
    with pytest.raises(DlavmError, match="assembly: line 2"):
        read_listing("     0  END\nnonsense\n")


def test_turns_of_the_outermost_loop() -> None:
    """A loop of three turns around one of two, and one that is not entered."""
    begin = NANO.header_words + NANO.commands["LOOP"].payload_words
    inner = 20 + begin
    listing = {0: Line("LOOP", "for layer", 60), 20: Line("LOOP", "for t", 10), inner: Line("COPY", ""),
               inner + 8: Line("ENDLOOP", ""), 58 + begin: Line("ENDLOOP", ""), 100: Line("LOOP", "if", 8),
               120: Line("COPY", "")}  # fmt: skip
    turn = [begin, 20, inner, inner + 8, inner, inner + 8, 58 + begin]
    words = [0, *turn, *turn, *turn, 100, 120]
    waits = [Wait("front", "fetch", 10 * i, 10 * i + 10, i, word, (10, 0, 0)) for i, word in enumerate(words)]
    turns = outermost_turns(waits, listing, NANO)
    assert turns == {i: (i - 1) // len(turn) for i in range(1, 1 + 3 * len(turn))}


def test_a_tensor_by_address() -> None:
    def tensor(name: str, address: int, size: int) -> TensorInfo:
        return TensorInfo(name, "weights", address, size, "f16", ())

    tensors = tensor("b", 64, 64), tensor("a", 16, 48), tensor("whole", 0, 256)
    subject = Subject("x", NANO, [], 0, (), "", tensors, 8, 4)
    found = [subject.tensor(at) for at in (0, 16, 63, 64, 200, 256)]
    assert [t.name if t else None for t in found] == ["whole", "a", "a", "b", "whole", None]
    subject.check(4, 4)
    for tokens, depth, wrong in ((0, 0, "step of 1..4 tokens, got 0"), (5, 0, "got 5"), (4, 5, "8 positions, got 9")):
        with pytest.raises(DlavmError, match=re.escape(wrong)):
            subject.check(tokens, depth)


def test_a_command_that_the_program_does_not_have() -> None:
    subject = Subject("x", NANO, [], 0, (), "     0  END\n", (), 8, 4)
    with pytest.raises(DlavmError, match="word 20: expected a command of the program"):
        ops_of(parse(GOOD), subject)


# -- the verb -----------------------------------------------------------------------------------------------


def test_slices_nest_where_a_cycle_is_no_whole_nanosecond(tmp_path: Path) -> None:
    """225 MHz."""
    assert main(["profile", STORIES, "--board", "vcu128", "--ctx", "64", "--least", "1", "--trace",
                 str(tmp_path / "t.json")]) == 0  # fmt: skip
    found = json.loads((tmp_path / "t.json").read_text())
    slices = [event for event in found["traceEvents"] if event["ph"] == "X"]
    end = round(1000 * found["otherData"]["cycles"] / 225)
    for thread in {event["tid"] for event in slices}:
        _check_nesting([event for event in slices if event["tid"] == thread], end)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A token of the bundled model on nano: the report by kind, the trace, the page."""
    folder = tmp_path_factory.mktemp("profile")
    arguments = ["profile", STORIES, "--board", "nano", "--ctx", "64", "-d", "20", "--latency", "40"]
    files = ["--trace", str(folder / "t.json"), "--html", str(folder / "p.html")]
    capture = pytest.MonkeyPatch()
    printed: list[Any] = []
    with capture.context() as patch:
        patch.setattr("dlavm.verbs.profile.print_json", printed.append)
        assert main([*arguments, *files, "--json"]) == 0
    return {"report": printed[0], "trace": json.loads((folder / "t.json").read_text()),
            "page": (folder / "p.html").read_text()}  # fmt: skip


def test_the_rows_add_up_to_the_step(written: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    report = written["report"]
    assert main(["cycles", STORIES, "--target", "v3", "--board", "nano", "--ctx", "64", "-p", "0", "-d", "20",
                 "--latency", "40", "--json"]) == 0  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert report["cycles"] == row["cycles"] == sum(r["cycles"] for r in report["rows"])
    assert report["bytes"] == sum(r["bytes"] for r in report["rows"]) == row["bytes_per_token"]
    assert sum(report["limits"].values()) == report["cycles"]
    for r in report["rows"]:
        assert sum(r["limits"].values()) == r["cycles"]
        assert sum(r["causes"].values()) == r["busy"] or r["name"] == "between commands"
        assert r["bound"] in causes.LIMITS or r["cycles"] == 0  # a kind that hides behind others has no bound
        assert r["memory_share"] is None or 0 < r["memory_share"] < 1
    assert 0 < report["control"] <= report["idle"] < report["cycles"]
    assert report["control_share"] == report["control"] / report["cycles"]
    linear = next(r for r in report["rows"] if r["name"] == "LINEAR int4g128")
    assert linear["bound"] == "memory" and linear["share"] > 0.5 and 0 < linear["lanes_share"] < 1


def test_the_trace(written: dict[str, Any]) -> None:
    """The keys that the Trace Event Format asks for; slices of a track that nest or follow each other."""
    found = written["trace"]
    cycles, clock = found["otherData"]["cycles"], found["otherData"]["clock_mhz"]
    assert cycles == written["report"]["cycles"] and found["displayTimeUnit"] == "ns"
    events = found["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    for event in events:
        assert isinstance(event["name"], str) and event["name"]
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and isinstance(event["args"], dict)
        if event["ph"] != "M":
            assert 0 <= event["ts"] <= cycles / clock
            assert (1000 * event["ts"]) == pytest.approx(round(1000 * event["ts"]), abs=1e-6)
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) and value >= 0 for value in event["args"].values())
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert sorted(names.values()) == ["front end", "layers", "matrix engine", "store engine", "vector engine"]
    for thread in names:
        _check_nesting([e for e in events if e["ph"] == "X" and e["tid"] == thread], round(1000 * cycles / clock))


def _check_nesting(slices: list[dict[str, Any]], end: int) -> None:
    """In nanoseconds: viewers drop a slice that reaches beyond the one around it."""
    assert slices
    stack: list[int] = []
    for event in slices:
        begin, finish = round(1000 * event["ts"]), round(1000 * event["ts"] + 1000 * event["dur"])
        while stack and stack[-1] <= begin:
            stack.pop()
        assert finish <= (stack[-1] if stack else end), event
        stack.append(finish)


def test_names_in_the_trace(written: dict[str, Any]) -> None:
    slices = [e for e in written["trace"]["traceEvents"] if e["ph"] == "X"]
    commands = {e["name"]: e["args"] for e in slices if e["cat"] == "command"}
    for layer in range(8):
        assert f"layer {layer} / down_proj: LINEAR int4g128" in commands
        assert f"layer {layer} / attention: SOFTMAX" in commands
    down = commands["layer 3 / down_proj: LINEAR int4g128"]
    assert down["tensor"] == "model.layers.3.mlp.down_proj.weight" and down["critical path"] is True
    assert sum(down["of them"].values()) == down["cycles"]
    assert [e["name"] for e in slices if e["cat"] == "layer"] == [f"layer {n}" for n in range(8)]
    waits = Counter(e["name"] for e in slices if e["cat"] == "queue")
    assert waits["wait for matrix"] and waits["wait for vector"] and waits["wait: no command"]
    of_whom = [e["args"]["until the end of"] for e in slices if e["name"] == "wait for matrix"]
    assert "layer 1 / o_proj: LINEAR int4g128" in of_whom
    assert any("front end meanwhile" in e["args"] for e in slices if e["name"] == "wait: no command")
    assert any(e["name"] == "wait: activations" for e in slices if e["cat"] == "stall"), \
        Counter(e["name"] for e in slices if e["cat"] == "stall")
    assert any(e["name"].startswith("LOOP for layer") for e in slices if e["cat"] == "front end")
    assert len(HOW) == 3


def test_the_page(written: dict[str, Any]) -> None:
    page = written["page"]
    assert page.count("<svg") == 2 and "http" not in page.replace("http://www.w3.org", "")
    assert 'id="by-kind"' in page and 'id="by-place"' in page and f"{written['report']['cycles']:,}" in page
    assert "layer * / down_proj: LINEAR int4g128" in page


def test_by_place_and_of_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["profile", STORIES, "--board", "nano", "--ctx", "64", "-n", "8", "--by", "place"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("stories on nano: 8 tokens, 0 in the cache: ")
    cycles = [int(re.split(r"  +", line)[2].replace(",", "")) for line in lines if line.startswith("layer *")]
    assert cycles == sorted(cycles, reverse=True) and len(cycles) > 10
    assert "because no command is there" in lines[-1]


@pytest.mark.parametrize("board", ["nano", "vcu128"])
def test_no_share_is_above_one(board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of lanes, of memory, of the roof: with a prompt, where the lanes have most to do."""
    page = tmp_path / "p.html"
    assert main(["profile", STORIES, "--board", board, "--ctx", "64", "-n", "32", "--html", str(page), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    shares = [row[name] for row in rows for name in ("lanes_share", "memory_share") if row[name] is not None]
    assert len(shares) > 10 and all(0 < share < 1 for share in shares)
    assert max(row["lanes_share"] or 0 for row in rows) > 0.1
    roof = [float(cell) for cell in re.findall(r"<td>([\d.]+) %</td><td>[\d,]+</td></tr>", page.read_text())]
    assert len(roof) > 5 and all(0 < share < 100 for share in roof)


@pytest.mark.parametrize(("arguments", "wrong"), [
    (["--board", "nano", "-n", "129"], "expected a step of 1..128 tokens, got 129"),
    (["--board", "nano", "-d", "1024"], "within the context of 1024 positions, got 1025"),
    (["--target", "v2"], "expected a target with a stream and scalars, got v2"),
    (["--board", "none"], "unknown board 'none'"),
    (["--board", "nano", "--by", "layer"], "--by"),
    (["--board", "nano", "--ctx", "64", "--trace", "/dev/null/x.json"], "--trace: /dev/null/x.json: expected a file"),
    (["--board", "nano", "-n", "999", "--html", "/"], "--html: /: expected a file that can be written, got 'Is a dir"),
    (["--board", "nano", "--trace", "x", "--html", "x"], "--html: x: expected another file than that of --trace"),
    (["--board", "nano", "--ctx", "64", "--least", "0"], "--least"),
])  # fmt: skip
def test_what_the_verb_refuses(arguments: list[str], wrong: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["profile", STORIES, *arguments]) == 2
    captured = capsys.readouterr()
    assert wrong in captured.err and not captured.out


def test_a_table_of_no_product() -> None:
    """Commands beside the critical path count their bytes and no cycles."""
    record = parse([*GOOD[1:3], "end,30"])
    table = tabulate([], critical_path(record, ENGINE_NUMBERS), record.cycles, NANO, lambda op: op.kind)
    assert [row.name for row in table.rows] == ["between commands"] and sums(table.rows)["control"] == 29
