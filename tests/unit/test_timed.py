"""The timed simulator beside the functional one, without the RTL (tests/rtl/test_timed.py has that)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dlavm.cli import main
from dlavm.compile import Options, compile_model
from dlavm.frontend import load_model
from dlavm.profile.steps import of_compiled
from dlavm.sim.device import Counters, DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.sim.timed import open_timed
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.sweep.grid import Point
from dlavm.sweep.point import measured
from dlavm.target import TargetSpec, load_target
from dlavm.target.sizes import sizes
from dlavm.target.spec import with_buffers, with_room
from tests.ops.programs import USED, Case, random_case
from tests.ops.test_engines import start
from tests.rtl.cores import execute, memory_after, placed, write
from tests.rtl.test_sizes import BOARDS
from tests.rtl.timed_programs import concurrent_case, many_results_case, many_rows_case

NANO = load_target("v3", "nano")
WIDE = BOARDS["wide"]


@pytest.fixture
def timed() -> Iterator[NativeDevice]:
    with open_timed(NANO) as device:
        yield device


def run(device: NativeDevice, seed: int, commands: int = 6) -> bytes:
    start(device, NANO, random_case(NANO, seed, commands))
    device.run()
    return device.mem_read(0, USED)


def test_bytes_and_counters_of_the_functional_simulator(timed: NativeDevice) -> None:
    with NativeDevice(NANO) as sim:
        for seed in range(6):
            assert run(sim, seed) == run(timed, seed)
            want, got = sim.counters(), timed.counters()
            assert got == replace(want, cycles=got.cycles)
            assert got.cycles > got.commands and want.cycles == 0
            assert timed.csr_read(NANO.registers["CYCLES"].offset) == got.cycles


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_other_generations(target: str) -> None:
    """Bytes and counters of the functional simulator. v1's cycles grow from launch to launch."""
    spec = load_target(target, "nano")
    with NativeDevice(spec) as sim, open_timed(spec) as timed:
        for seed in range(4):
            case = placed(spec, random_case(spec, seed, 6))
            assert memory_after(sim, spec, case).tobytes() == memory_after(timed, spec, case).tobytes()
            want, got = sim.counters(), timed.counters()
            assert got == replace(want, cycles=got.cycles)
            assert got.cycles > got.commands and want.cycles == 0
        before = timed.counters().cycles
        if not spec.has("stream"):
            with pytest.raises(DeviceError, match="illegal_opcode"):
                timed.csr_write(spec.registers["LAUNCH"].offset, 0xFF)
            assert timed.counters().cycles > before


@pytest.mark.parametrize("board", ["nano", "kv260", "vcu128"])
@pytest.mark.parametrize("option", ["skip", "fold"])
def test_the_short_ways_change_nothing(option: str, board: str) -> None:
    """Stepping every part in every cycle, and every channel apart, takes the same cycles."""
    spec = load_target("v3", board)
    with open_timed(spec) as timed, open_timed(spec) as plain:
        plain.set_option(option, 0)
        for device in (timed, plain):
            device.set_option("check_hazards", 0)
        latencies = [(seed, ("board", "0", "3", "90", "200")[seed % 5]) for seed in range(24)]
        for seed, latency in (*latencies, (118, "1")):  # 118: a write that passes behind one that does not
            case = many_rows_case(spec, seed) if seed % 3 == 0 else concurrent_case(spec, seed)
            same_counters(timed, plain, spec, case, latency)
        for seed in range(6):
            same_counters(timed, plain, spec, many_results_case(spec, seed), ("board", "3", "90")[seed % 3])


@pytest.mark.parametrize(("board", "seed", "latency"), [
    ("two wide beats", 159, "90"),  # a unit of values whose rows have not come
    ("activations on the chip", 102, "board"),  # beats that wait behind rows that were told
])  # fmt: skip
def test_the_short_ways_that_once_differed(board: str, seed: int, latency: str) -> None:
    with open_timed(BOARDS[board]) as timed, open_timed(BOARDS[board]) as plain:
        plain.set_option("skip", 0)
        for device in (timed, plain):
            device.set_option("check_hazards", 0)
        same_counters(timed, plain, BOARDS[board], many_rows_case(BOARDS[board], seed), latency)


def same_counters(timed: NativeDevice, plain: NativeDevice, spec: TargetSpec, case: Case, latency: str) -> None:
    case = placed(spec, case)
    for device in (timed, plain):
        device.set_option("latency", latency)
        write(device, spec, case)
        execute(device, spec, case)
    assert timed.counters() == plain.counters(), case.program
    assert traffic(timed, spec) == traffic(plain, spec), case.program


def traffic(device: NativeDevice, spec: TargetSpec) -> list[int]:
    """Counters of a channel of each memory: bytes, busy and stalled cycles, and those in which nobody asked."""
    counts, channel = [], 0
    for memory in spec.board.memories.values():
        device.csr_write(spec.registers["CHANNEL"].offset, channel)
        channel += memory.channels
        names = ("CHANNEL_READ", "CHANNEL_WRITTEN", "CHANNEL_BUSY", "CHANNEL_STALLED", "CHANNEL_IDLE")
        counts += [device.csr_read(spec.registers[name].offset) for name in names]
    return counts


def test_timing_only() -> None:
    """The same cycles, commands and bytes, and nothing is written."""
    with open_timed(NANO) as timed, open_timed(NANO, timing_only=True) as only:
        for seed in range(4):
            before = random_case(NANO, seed, 6)
            assert run(timed, seed) != before.memory.tobytes()
            assert run(only, seed) == before.memory.tobytes()
            assert timed.counters() == only.counters()


def test_faster_memory_takes_fewer_cycles(timed: NativeDevice) -> None:
    taken = []
    for latency in (200, 40, 1):
        timed.set_option("latency", latency)
        run(timed, 3)
        taken.append(timed.counters().cycles)
    assert taken == sorted(set(taken), reverse=True)


def test_a_reset_forgets_the_run(timed: NativeDevice) -> None:
    run(timed, 1)
    assert timed.counters().cycles > 0
    timed.csr_write(NANO.registers["CONTROL"].offset, 2)
    assert timed.counters() == Counters(0, 0, 0, 0)
    assert timed.run() == 0


def test_an_error_of_a_command(timed: NativeDevice) -> None:
    case = random_case(NANO, 1, 2)
    words = np.array(case.words, np.uint32)
    words[0] = 0xFF
    start(timed, NANO, case)
    timed.mem_write(timed.csr_read(NANO.registers["PROGRAM"].offset) * 16, words)
    for _ in range(2):
        with pytest.raises(DeviceError, match="illegal_opcode"):
            timed.run()


def test_timing_only_of_tiles_along_k() -> None:
    """Of a model whose rows do not fit the activation buffer: a LINEAR goes on with the accumulators of one not run."""
    spec = with_buffers(NANO, 512, None)
    model = load_model(data_root() / "models" / "stories.py", "none")
    compiled = compile_model(model, spec, Options(ctx=64, chunk=4))
    assert "acc_in=1" in compiled.texts()["asm.txt"]
    taken = []
    for only in (False, True):
        with open_timed(spec, timing_only=only) as device:
            steps = of_compiled(device, compiled)
            taken.append([steps.step(3, 0), steps.step(1, 3)])
    assert taken[0] == taken[1]


def test_what_it_refuses(timed: NativeDevice) -> None:
    for name, value in (("latency", "x"), ("fold", "2"), ("skip", "-1"), ("timing_only", "yes"), ("memory7", ""),
                        ("memory0", "cl=x"), ("memory0", "cl=3"), ("timing", "window=0")):  # fmt: skip
        with pytest.raises(DeviceError) as error:
            timed.set_option(name, value)
        assert error.value.code == "bad_argument", name
    with pytest.raises(DeviceError, match="expected max_commands 0, got 1"):
        timed.run(1)
    good = ("port_bytes=16,halves=2,row_units=2,units=2,lanes=8,client_rows=64,weight_rows=256,share=1,rows_most=256,"
            "result_blocks=4")  # fmt: skip
    NativeDevice(NANO, f"timed:{good}").close()
    for old, new, wrong in (("lanes=8", "lanes=7", "lanes=8..128"), ("lanes=8", "lanes=", "lanes=8..128"),
                            (",lanes=8", "", "lanes=8..128"), ("lanes=8", "lanes=8 ", "lanes=8..128"),
                            ("lanes=8", "lanes=256", "lanes=8..128"), ("halves=2", "halves=3", "halves=1..2"),
                            ("weight_rows=256", "weight_rows=255", "weight_rows=16..4096"),
                            ("result_blocks=4", "result_blocks=6", "result_blocks=2..1024"),
                            ("lanes=8", "lanes=32", "do not fit"), ("halves=2", "halves=1", "do not fit"),
                            (",units=2", ",units=4", "do not fit"), ("row_units=2", "row_units=1", "do not fit"),
                            ("port_bytes=16", "port_bytes=128", "do not fit")):  # fmt: skip
        with pytest.raises(DeviceError, match=wrong) as error:
            NativeDevice(NANO, "timed:" + good.replace(old, new))
        assert error.value.code == "bad_argument", new


def test_results_that_wait_for_the_epilogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows on a board whose epilogue is slower than its lanes: with room for more results these wait less."""

    def cycles() -> list[int]:
        counted = []
        for seed in (4, 10, 16, 28):
            with open_timed(WIDE) as device:
                device.set_option("check_hazards", 0)
                case = placed(WIDE, many_rows_case(WIDE, seed))
                write(device, WIDE, case)
                execute(device, WIDE, case)
                counted.append(device.counters().cycles)
        return counted

    assert sizes(WIDE).result_blocks == 8
    many = cycles()
    monkeypatch.setattr("dlavm.target.sizes.MOST_RESULT_BLOCKS", 4)
    few = cycles()
    assert all(a < b for a, b in zip(many, few, strict=True)), (many, few)


def test_a_trace_of_commands(timed: NativeDevice, tmp_path: Path) -> None:
    """Every command of an engine once, in the order of their queues."""
    path = tmp_path / "trace.csv"
    timed.set_option("trace", path)
    timed.set_option("check_hazards", 0)
    start(timed, NANO, concurrent_case(NANO, 5))
    timed.run()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    engine = {command.name: command.engine for command in NANO.commands.values()}
    spans = [(int(row["queued"]), int(row["begun"]), int(row["ended"])) for row in rows]
    assert rows and all(engine[row["name"]] for row in rows)
    assert all(0 < queued < begun < ended < timed.counters().cycles for queued, begun, ended in spans)
    for name in {engine[row["name"]] for row in rows}:
        mine = [span for row, span in zip(rows, spans, strict=True) if engine[row["name"]] == name]
        assert all(end < begin for (_, _, end), (_, begin, _) in pairwise(mine))  # one at a time
    at = NANO.registers["ENGINE_BUSY"].offset + 8 * NANO.enums["engine"]["vector"]
    assert timed.csr_read(at) == sum(end - begin for row, (_, begin, end) in zip(rows, spans, strict=True)
                                     if engine[row["name"]] == "vector")  # fmt: skip
    timed.set_option("trace", tmp_path / "none" / "trace.csv")
    start(timed, NANO, concurrent_case(NANO, 5))
    with pytest.raises(DeviceError, match="option trace: expected a file that can be written"):
        timed.run()


def test_room_changes_no_cycle() -> None:
    spec = load_target("v3", "vcu128")
    larger = with_room(spec, {"hbm": 40 << 30})
    hbm, onchip, ddr = (larger.board.memory(name) for name in ("hbm", "onchip", "ddr"))
    assert hbm.capacity == 40 << 30 == onchip.base and ddr.base >= onchip.base + onchip.capacity
    assert ddr.capacity == spec.board.memory("ddr").capacity and larger.hash != spec.hash
    assert with_room(spec, {"hbm": 5}).hash == spec.hash
    with pytest.raises(DlavmError, match="board vcu128: memory hbm: base and capacity"):
        with_room(spec, {"hbm": 1 << 39})
    model, options = load_model(data_root() / "models" / "stories.py", "none"), Options(ctx=64, chunk=8)
    taken = []
    for board in (spec, larger):
        with open_timed(board, timing_only=True) as device:
            steps = of_compiled(device, compile_model(model, board, options))
            taken.append([steps.step(8, 0), steps.step(1, 50)])
    assert taken[0] == taken[1]


def test_a_model_that_a_board_has_no_room_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2,
              "num_attention_heads": 4, "vocab_size": 512, "max_position_embeddings": 1 << 16, "rms_norm_eps": 1e-6,
              "hidden_act": "silu", "torch_dtype": "float16", "tie_word_embeddings": False}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    arguments = [str(tmp_path), "--target", "v3", "--board", "nano", "--ctx", str(1 << 16), "--json"]
    assert main(["cycles", *arguments, "-p", "0"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["lacks"].startswith("memory hbm of board nano: expected at most 134217728 bytes")
    assert err == f"timed as if the board had room for it: {report['lacks']}\n"
    assert main(["profile", *arguments]) == 0
    profiled = json.loads(capsys.readouterr().out)
    assert profiled["lacks"] == report["lacks"] and profiled["cycles"] == report["rows"][0]["cycles"]
    row = measured(Point(str(tmp_path), "none", "v3", "nano", None, None, "auto", "fp16", 1 << 16, None, 0, 0))
    assert row["lacks"] == report["lacks"] and row["tg_cycles"] == str(profiled["cycles"]) and not row["error"]


def test_the_verb_cycles(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The cycles of a step are those of a session, but for where memory is in its refreshes; no weights are needed."""
    model = data_root() / "models" / "stories.py"
    arguments = ["cycles", str(model), "--target", "v3", "--board", "nano", "--ctx", "64", "--latency", "40", "--json"]
    assert main([*arguments, "-p", "5", "--trace", str(tmp_path / "t.csv")]) == 0
    prompt, token = json.loads(capsys.readouterr().out)["rows"]
    assert (prompt["test"], token["test"]) == ("pp5", "tg")
    assert 0 < token["cycles"] < prompt["cycles"] and 0 < token["memory_share"] < 1
    assert len((tmp_path / "t.csv").read_text().splitlines()) > 100
    assert main([*arguments, "-p", "0", "-d", "20"]) == 0
    (deeper,) = json.loads(capsys.readouterr().out)["rows"]
    assert deeper["test"] == "tg @ d20" and deeper["cycles"] > token["cycles"]
    assert main([*arguments, "-p", "0", "--trace-prompt", str(tmp_path / "p.csv")]) == 2
    assert "--trace-prompt: expected a prompt" in capsys.readouterr().err
    assert main([*arguments, "-p", "60", "-d", "5"]) == 2
    assert "within the context of 64 positions, got 65 (-d 5, -p 60)" in capsys.readouterr().err
    same = str(tmp_path / "same.csv")
    assert main([*arguments, "--ctx", "64", "-p", "1", "--trace", same, "--trace-prompt", same]) == 2
    assert f"--trace-prompt: {same}: expected another file than that of --trace" in capsys.readouterr().err
    assert main([*arguments, "-p", "1", "--trace", str(tmp_path)]) == 2
    assert f"--trace: {tmp_path}: expected a file that can be written" in capsys.readouterr().err
    for target in ("v1", "v2"):
        other = [*arguments[:3], target, *arguments[4:]]
        assert main([*other, "-p", "5"]) == 0
        later, single = json.loads(capsys.readouterr().out)["rows"]
        assert later["cycles"] > prompt["cycles"] and single["cycles"] > token["cycles"]  # a fetch of weights a token
        assert main([*other, "-p", "0", "--trace", str(tmp_path / "t.csv")]) == (2 if target == "v1" else 0)
        assert ("--trace: expected a target with a stream, got v1" in capsys.readouterr().err) == (target == "v1")
