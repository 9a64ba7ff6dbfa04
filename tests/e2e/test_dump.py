"""dump: the stages, and the checkpoint that transformers reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.formats import FORMATS, quantize
from dlavm.graph.parts import joined
from dlavm.memory import validate
from dlavm.memory.csv import parse_csv
from dlavm.pack.artifact import Artifact
from dlavm.pack.unpack import read_weights
from dlavm.runtime.session import open_session
from dlavm.task import parse_program
from dlavm.verbs.dump import FORMATS as FORMS
from dlavm.verbs.floats import artifact_graph

Command = Callable[..., Any]


PRINTED = [(stage, form) for form, stages in FORMS.items() if form != "hf" for stage in stages]


@pytest.mark.parametrize(("stage", "form"), PRINTED)
def test_an_artifact_says_what_its_model_says(
    stage: str, form: str, dlavm: Command, stories: Path, stories_py: Path
) -> None:
    outcome = dlavm("dump", stories, "--stage", stage, "--format", form)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(outcome.out.splitlines()) > (6 if stage == "tiling" else 10)
    assert dlavm("dump", stories_py, "--stage", stage, "--format", form).out == outcome.out


def test_tilings_by_kind_of_linear(dlavm: Command, stories_py: Path) -> None:
    rows = [line.split() for line in dlavm("dump", stories_py, "--board", "nano", "--stage", "tiling").out.splitlines()]
    # 10 rows of 768 fit the 8192 elements of nano's buffer: 13 commands for 128 tokens, as often as weights are fetched
    down = next(row for row in rows if "down_proj" in row)
    assert down[down.index("256x768") :][:7] == ["256x768", "int4g128", "128", "10", "256", "768", "13"]
    assert down[-1] == "8"


@pytest.mark.parametrize(("stage", "form"), [("asm", "dot"), ("task", "json"), ("graph", "csv"), ("graph", "hf")])
def test_a_format_that_a_stage_has_not(stage: str, form: str, dlavm: Command, stories: Path) -> None:
    outcome = dlavm("dump", stories, "--stage", stage, "--format", form)
    assert (outcome.code, outcome.out) == (2, "")
    assert "--format: expected one of text" in outcome.err and repr(form) in outcome.err


def test_fold_is_for_the_drawing_of_a_graph(dlavm: Command, stories: Path) -> None:
    folded = dlavm("dump", stories, "--stage", "graph", "--format", "dot", "--fold")
    assert "6 layers, each like layer 0" in folded.out
    assert len(folded.out) < len(dlavm("dump", stories, "--stage", "graph", "--format", "dot").out) / 3
    assert dlavm("dump", stories, "--stage", "task", "--format", "dot", "--fold").code == 2


def test_the_graph_of_a_model_that_the_board_does_not_hold(dlavm: Command, stories_py: Path) -> None:
    options = ("--board", "nano", "--ctx", 1024, "--weights", "none")
    large = stories_py.with_name("qwen2.py:qwen2_72b")
    folded = dlavm("dump", large, *options, "--stage", "graph", "--format", "dot", "--fold")
    assert "78 layers, each like layer 0" in folded.out
    model = stories_py.with_name("qwen2.py:qwen2_7b")
    assert dlavm("dump", model, *options, "--stage", "memory").code == 0
    options += ("--target", "v3")
    shape = dlavm("build", model, *options, "--json")
    assert shape.code == 0 and "memory hbm of board nano: expected at most 134217728 bytes" in shape.json["notes"][0]
    refused = dlavm("check", model, *options)
    assert refused.code == 1 and "board nano: expected at most" in refused.out


def test_the_graph_as_json(dlavm: Command, stories: Path) -> None:
    graph = dlavm("dump", stories, "--stage", "graph", "--format", "json").json["graph"]
    assert [layer["like"] for layer in graph["layers"]] == [None, *["layer 0"] * 6, None]
    assert graph["trunk"][:2] == ["ids", "embedding"] and graph["trunk"][-1] == graph["outputs"]["logits"]
    names = {v["name"] for group in ("inputs", "params", "constants", "kv", "nodes") for v in graph[group]}
    assert all(set(node["operands"].values()) <= names for node in graph["nodes"])
    assert graph["inputs"] == [{"name": "ids", "dtype": "i32", "shape": ["token"]}]


def test_the_plan_of_the_activations_is_minimallocs(dlavm: Command, stories: Path) -> None:
    """Valid, and as high as the manifest says."""
    intervals, offsets = parse_csv(dlavm("dump", stories, "--stage", "memory", "--format", "csv").out)
    artifact = Artifact.open(stories)
    validate(intervals, offsets, artifact.target.space("activations").beat_row)
    assert max(offsets[i.name] + i.size for i in intervals) == artifact.manifest.memory.activation_peak_bytes
    assert {i.name for i in intervals} == {t.name for t in artifact.manifest.tensors if t.role == "activations"}


def test_the_memory_map_has_a_line_for_all_copies(dlavm: Command, stories: Path) -> None:
    lines = dlavm("dump", stories, "--stage", "memory").out.splitlines()
    keys = next(line for line in lines if line.endswith("layers.N.k")).split()
    caches = [t for t in Artifact.open(stories).manifest.tensors if t.role == "kv" and t.name.endswith("k")]
    assert (keys[2], keys[4]) == ("8", "kv")
    assert int(keys[3]) == caches[1].address - caches[0].address
    assert next(line for line in lines if line.startswith("kv ")).split()[-1] == "16"
    assert any(re.search(r"activations +\d+ to \d+ +layerN\.q_proj", line) for line in lines)


def test_tables_as_json(dlavm: Command, stories: Path, tmp_path: Path) -> None:
    rows = dlavm("dump", stories, "--stage", "memory", "--format", "json").json["memory"]
    assert {row["role"] for row in rows} >= {"weights", "kv", "activations", "tables", "output"}
    assert dlavm("dump", stories, "--stage", "weights", "--format", "json", "-o", tmp_path / "w.json").out == ""
    weights = json.loads((tmp_path / "w.json").read_text())["weights"]
    assert [row for row in rows if row["role"] == "weights"] == weights


def test_unpacked_weights_are_the_quantised_originals(stories: Path, stories_py: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    original = safetensors.load_file(stories_py.parent / "stories" / "model.safetensors")
    artifact = Artifact.open(stories)
    weights = read_weights(artifact)
    for param in artifact_graph(artifact).params:
        source = joined(param, original.__getitem__).astype(np.float32)
        is_kept = "norm" in param.name or "embed" in param.name
        expected = source if is_kept else quantize(source, FORMATS["int4g128"]).values()
        assert np.array_equal(weights.pop(param.name), expected), param.name
    assert not weights


@pytest.fixture(scope="module")
def checkpoint(dlavm: Command, stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf") / "stories"
    outcome = dlavm("dump", stories, "--stage", "weights", "--format", "hf", "-o", path)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    return path


def test_the_checkpoint_is_a_model_of_dlavm_too(dlavm: Command, stories: Path, checkpoint: Path) -> None:
    options = ("--prompt-ids", "0,430,263", "--engine", "reference", "--float", "--greedy", "--max-tokens", 8, "--json")
    assert dlavm("run", checkpoint, *options).json["tokens"] == dlavm("run", stories, *options).json["tokens"]


def test_a_checkpoint_goes_nowhere_where_something_is(dlavm: Command, stories: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    outcome = dlavm("dump", stories, "--stage", "weights", "--format", "hf", "-o", tmp_path)
    assert outcome.code == 2
    assert "mine.txt" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_transformers_agrees_with_the_accelerator(stories: Path, stories_py: Path, checkpoint: Path) -> None:
    """Teacher-forced over 12 x 64 positions: at least 99 % of the greedy choices, the others nearly ties."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    cases = json.loads((stories_py.parent / "stories" / "golden_greedy.json").read_text())["cases"]
    agreeing = positions = 0
    margins: list[float] = []
    with open_session(Artifact.open(stories)) as session:
        for case in cases:
            ids, first = [*case["prompt_ids"], *case["greedy_ids"][:-1]], len(case["prompt_ids"]) - 1
            session.reset()
            ours = session.prefill(ids, logits_all=True).logits[first:]
            with torch.no_grad():
                theirs = model(torch.tensor([ids])).logits[0, first:].numpy()
            same = ours.argmax(axis=1) == theirs.argmax(axis=1)
            top = np.sort(theirs[~same], axis=1)
            margins += list(top[:, -1] - top[:, -2])
            agreeing, positions = agreeing + int(same.sum()), positions + len(ids) - first
    assert positions == 12 * 64
    assert agreeing >= 0.99 * positions
    assert max(margins, default=0) < 0.05


STAGE_FILES = ["graph-00-input.txt", "graph-01-canonicalise.txt", "task-00-lowered.txt", "task-01-shared.txt",
               "task-02-rolled.txt", "task-03-simplified.txt", "task-04-scheduled.txt", "memory.csv",
               "asm.txt"]  # fmt: skip


@pytest.fixture
def dumped(dlavm: Command, stories_py: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What DLAVM_DUMP leaves of a compilation."""
    monkeypatch.setenv("DLAVM_DUMP", str(tmp_path / "stages"))
    assert dlavm("dump", stories_py, "--stage", "asm").code == 0
    monkeypatch.delenv("DLAVM_DUMP")
    return tmp_path / "stages"


def test_every_stage_leaves_its_text(dlavm: Command, stories: Path, dumped: Path) -> None:
    assert set(STAGE_FILES) <= {path.name for path in dumped.iterdir()}
    last = max(path for path in dumped.glob("graph-*.txt"))
    for file, stage in ((last, "graph"), (dumped / "task-04-scheduled.txt", "task"), (dumped / "asm.txt", "asm")):
        assert dlavm("diff", file, stories, "--stage", stage).code == 0
    assert (dumped / "memory.csv").read_text() == dlavm("dump", stories, "--stage", "memory", "--format", "csv").out
    spec = Artifact.open(stories).target
    sizes = [len(parse_program(path.read_text(), spec).body) for path in sorted(dumped.glob("task-*.txt"))]
    assert sizes[0] == sizes[1] > sizes[2] == sizes[3]  # layers become a loop in the third


def test_a_stage_that_cannot_be_written(
    dlavm: Command, stories_py: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("DLAVM_DUMP", str(tmp_path / "file"))
    outcome = dlavm("dump", stories_py, "--stage", "graph")
    assert outcome.code == 2
    assert "DLAVM_DUMP" in outcome.err and "graph-00-input.txt" in outcome.err
