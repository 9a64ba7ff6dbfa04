"""The table of the vector engine: what its places say, and mistakes in the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.target.vector import load_vector

WRONG = [
    ("programs:", "steps:", "expected the keys programs, rows, got steps, rows"),
    ("[MUL ACC IMM0 S0]", "[MUL ACC IMM0]", "mean: expected `unit a b to .special.`, got 'MUL ACC IMM0'"),
    ("[MUL L0 L0 V0, ADD ACC", "[ADD ACC L0 ACC, ADD ACC", "squares: expected the step that accumulates last, got"),
    ("[ADD ACC L0 ACC MASK]", "[MUL ACC L0 ACC MASK]", "sum: expected ADD or MAX to go on with an accumulator, got"),
    ("{tree: add}", "{tree: mul}", "rms: expected add, max, got 'mul'"),
    ("{once: rsqrt}", "{once: root}", "rms: expected squares, .*, got 'root'"),
    ("{once: rsqrt}", "{once: rsqrt, tree: add}", "rms: expected one of pass, tree, once, loop, got"),
    ("range: seen", "range: all", "softmax: expected row, half, .*, got 'all'"),
    ("store: both", "store: all", "halves: expected nothing, elements, both, .*, got 'all'"),
    ("common: [2, 3]", "common: [2, 4]", "halves: stream: expected 0..3, got 4"),
    ("groups: maps", "groups: some", "halves: expected alone, maps, reduces, got 'some'"),
    ("{loop: 5}", "{loop: 7}", "topk: loop: expected 0..6, got 7"),
    ("drain: true", "drain: 1", "drain: expected bool, got 1"),
    ("{loop: 5}", "{loop: 5, count: 1}", "topk: expected the keys loop, got loop, count"),
]


def test_places_follow_each_other() -> None:
    table = load_vector(data_root() / "targets")
    steps = [step for program in table.programs for step in program.steps]
    for program in table.programs:
        assert steps[program.first] is program.steps[0]
        assert [step.last for step in program.steps] == [False] * (len(program.steps) - 1) + [True]
    phases = [phase for row in table.rows for phase in row.phases]
    for row in table.rows:
        assert phases[row.first] is row.phases[0]
        assert [phase.kind == "done" for phase in row.phases] == [False] * (len(row.phases) - 1) + [True]
    assert len(steps) <= 128 and len(phases) <= 128  # places of 7 bits


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_a_mistake_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(data_root() / "targets" / "isa", tmp_path / "isa")).parent
    path = tree / "isa" / "vector.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DlavmError, match=f"targets/isa/vector.yaml.*{message}"):
        load_vector(tree)
