"""What `build` prints of the activations, found again from the text of the tasks alone: when buffers live, the lower
bound, the peak; and that no command finds bytes that another buffer has taken, by a run of that text."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.compile import Options, build
from dlavm.frontend import load_model
from dlavm.memory import Interval, liveness, lower_bound, validate
from dlavm.memory.csv import parse_csv
from dlavm.pack.artifact import Artifact
from dlavm.schedule.order import Beside, alone, beside
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target
from dlavm.target.layout import ceildiv
from dlavm.task import Launch, Load, Program, execute, parse_program
from dlavm.task.interpret import initial_values
from dlavm.task.ir import buffers_in

Command = Callable[..., Any]
MODELS = Path(__file__).resolve().parents[2] / "models"


def places() -> Iterator[str]:
    """Every model of models/, every shape of those that have several."""
    for path in sorted(MODELS.glob("*.py")):
        shapes = runpy.run_path(str(path)).get("SHAPES")
        yield from (f"{path.name}:{shape}" for shape in shapes) if shapes else [path.name]


BUILT = [place for place in places() if ":" not in place or place.endswith("_tiny")]
SHAPES = [place for place in places() if place not in BUILT]


def quick(every: Iterable[tuple[str, str]], *chosen: tuple[str, str]) -> list[Any]:
    """Parameters of a test, all but the chosen ones marked slow."""
    return [pytest.param(*one, marks=[] if one in chosen else pytest.mark.slow) for one in every]


@dataclass(frozen=True)
class Step:
    """A command of a run: the activations that it reads and those that it writes."""

    reads: frozenset[str]
    writes: frozenset[str]


def intervals_of(program: Program, spec: TargetSpec, beside: Beside = beside) -> list[Interval]:
    """Lifetimes, sizes rounded up to whole beat rows as the planner takes them."""
    unit = spec.space("activations").beat_row
    return [replace(i, size=ceildiv(i.size, unit) * unit) for i in liveness(program, spec, beside=beside)]


def recomputed(program: Program, spec: TargetSpec, offsets: Mapping[str, int]) -> dict[str, int]:
    """Peak and lower bound of a plan, in the words of the report. Raises DlavmError for a plan that is none."""
    intervals = intervals_of(program, spec)
    validate(intervals, offsets, spec.space("activations").beat_row)
    return {
        "activation_peak_bytes": max(offsets[i.name] + i.size for i in intervals),
        "activation_lower_bound_bytes": lower_bound(intervals, spec.space("activations").beat_row),
    }


def steps(program: Program, spec: TargetSpec, args: Mapping[str, int]) -> Iterator[Step]:
    """The commands that a run amounts to, and what it loads. All bases are zero: only the buffers behind them count."""
    activations = {b.name for b in program.buffers if b.role == "activations"}
    values = initial_values(program, args, dict.fromkeys(program.buffer, 0))
    for stmt in execute(program, values):
        if isinstance(stmt, Load):
            values[stmt.var.name] = stmt.var.lo
            yield Step(buffers_in((stmt.base,), {}) & activations, frozenset())
        if not isinstance(stmt, Launch):
            continue
        written = {f.name for f in spec.commands[stmt.op].fields if f.write}
        used = {name: buffers_in((expr,), {}) & activations for name, expr in stmt.fields.items()}
        yield Step(frozenset().union(*(names for field, names in used.items() if field not in written)),
                   frozenset().union(*(used[field] for field in written & used.keys())))  # fmt: skip


def largest(program: Program) -> dict[str, int]:
    """Arguments with as many tokens and logits as there can be."""
    return {arg.name: arg.hi if arg.name in ("token", "head_rows") else 0 for arg in program.args}


def refuse_strangers(run: list[Step], intervals: list[Interval], offsets: Mapping[str, int], unit: int) -> None:
    """Raises AssertionError for a command that reads a buffer of which another one has bytes by then."""
    places = {i.name: slice(offsets[i.name] // unit, (offsets[i.name] + i.size) // unit) for i in intervals}
    owner = np.zeros(max(place.stop for place in places.values()), dtype=np.int32)
    numbers = {name: number for number, name in enumerate(places, start=1)}
    for time, step in enumerate(run):
        for name in sorted(step.reads):
            assert (owner[places[name]] == numbers[name]).all(), f"command {time} reads {name}, which is not there"
        for name in step.writes:
            owner[places[name]] = numbers[name]


def needed_at_once(run: list[Step], intervals: list[Interval]) -> int:
    """The most bytes of buffers between a write and the last read of what it wrote, in a run."""
    sizes = {i.name: i.size for i in intervals}
    begun: dict[str, int] = {}
    ends: dict[str, int] = {}
    changes = [0] * (len(run) + 1)

    def close(name: str) -> None:
        changes[begun[name]] += sizes[name]
        changes[ends[name]] -= sizes[name]

    for time, step in enumerate(run):
        for name in step.reads | step.writes:
            if name in begun and (name in step.reads or time < ends[name]):
                ends[name] = time + 1
                continue
            if name in begun:
                close(name)
            begun[name], ends[name] = time, time + 1
    for name in begun:
        close(name)
    return int(np.cumsum(changes).max())


def check_bound(run: list[Step], program: Program, spec: TargetSpec, bound: int) -> None:
    """A run of one command after the other needs what liveness says of such a run. Engines beside each other hold more,
    but where a target has none."""
    intervals = intervals_of(program, spec, alone)
    needed = needed_at_once(run, intervals)
    assert needed == lower_bound(intervals, spec.space("activations").beat_row) <= bound
    assert needed == bound or spec.has("decoupled")


@pytest.mark.parametrize(
    ("target", "model"),
    quick(product(["v1", "v2", "v3"], BUILT), *product(["v3"], BUILT), ("v1", "llama.py:llama_tiny")),
)
def test_an_artifact_alone_says_what_build_printed(target: str, model: str, dlavm: Command, tmp_path: Path) -> None:
    options = () if model == "stories.py" else ("--weights", "random", "--board", "nano")
    options = (*options, "--target", target, "--ctx", 96, "--chunk", 40)
    built = dlavm("build", MODELS / model, *options, "-o", tmp_path / "a", "--json")
    assert built.code == 0, built.err
    artifact = Artifact.open(tmp_path / "a")
    spec, unit = artifact.target, artifact.target.space("activations").beat_row
    program = parse_program((tmp_path / "a" / "task.txt").read_text(encoding="utf-8"))
    addresses = {t.name: t.address for t in artifact.manifest.tensors if t.role == "activations"}
    offsets = {name: address - min(addresses.values()) for name, address in addresses.items()}
    found = recomputed(program, spec, offsets)
    assert found == {key: built.json[key] for key in found}
    assert found["activation_peak_bytes"] == found["activation_lower_bound_bytes"]
    intervals = intervals_of(program, spec)
    for args in (largest(program), {**largest(program), "token": 1, "head_rows": 1}):
        refuse_strangers(list(steps(program, spec, args)), intervals, offsets, unit)
    run = list(steps(program, spec, largest(program)))
    check_bound(run, program, spec, found["activation_lower_bound_bytes"])


def roomy(target: str) -> TargetSpec:
    """v80 with 64 GiB behind its channels, so that every shape has room."""
    spec = load_target(target, "v80")
    memory = replace(spec.board.memory("hbm"), capacity=64 << 30)
    return replace(spec, board=replace(spec.board, memories={**spec.board.memories, "hbm": memory}))


@pytest.mark.parametrize(
    ("target", "place"), quick(product(["v1", "v3"], SHAPES), ("v3", "llama.py:tinyllama_1b"))
)
def test_shapes_without_weights(target: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLAVM_DUMP", str(tmp_path))
    spec = roomy(target)
    report = build(load_model(f"{MODELS}/{place}", "none"), spec, Options(), None)
    program = parse_program((tmp_path / "task-04-scheduled.txt").read_text(encoding="utf-8"))
    intervals, offsets = parse_csv((tmp_path / "memory.csv").read_text(encoding="utf-8"))
    assert intervals == intervals_of(program, spec)
    found = recomputed(program, spec, offsets)
    assert found == {key: report[key] for key in found}
    assert found["activation_peak_bytes"] == found["activation_lower_bound_bytes"]
    run = list(steps(program, spec, largest(program)))
    refuse_strangers(run, intervals, offsets, spec.space("activations").beat_row)
    check_bound(run, program, spec, found["activation_lower_bound_bytes"])


TEXT = """\
program p(token: 1..8)
buffer a: activations 64 bytes f16
buffer b: activations 64 bytes f16
buffer c: activations 64 bytes f16
launch COPY dst=@a
launch COPY src=@a dst=@b
launch COPY src=@b dst=@c
"""


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ({"a": 0, "b": 0, "c": 64}, "expected no overlap"),
        ({"a": 0, "b": 72, "c": 0}, "offset expected a multiple of 32"),
        ({"a": 0, "b": 64}, "buffer c: expected an offset"),
    ],
)
def test_a_plan_that_is_none_is_refused(offsets: dict[str, int], message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        recomputed(parse_program(TEXT), load_target("v3", "nano"), offsets)


def test_a_buffer_that_is_overwritten_too_early_is_found() -> None:
    program, spec = parse_program(TEXT + "launch COPY src=@a dst=@c\n"), load_target("v3", "nano")
    intervals = intervals_of(program, spec)
    run = list(steps(program, spec, {"token": 1}))
    refuse_strangers(run, intervals, {"a": 0, "b": 64, "c": 128}, 16)
    assert needed_at_once(run, intervals) == 192
    for offsets in ({"a": 0, "b": 64, "c": 0}, {"a": 0, "b": 0, "c": 64}):
        with pytest.raises(AssertionError, match="reads a, which is not there"):
            refuse_strangers(run, intervals, offsets, 16)
