"""diff: each kind of change in its section, nothing for equal artifacts, exit codes, text files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dlavm import cli
from dlavm.verbs.diff import MAX_LINES, _section
from dlavm.view.differences import Change, _matched, changes

Build = Callable[..., Path]
Diff = Callable[..., tuple[int, str]]
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def story(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story model cut to three layers, its file and its weights."""
    folder = tmp_path_factory.mktemp("model")
    text = (repository / "models" / "stories.py").read_text()
    text = text.replace("KV_HEADS, HEAD_DIM = 8", "KV_HEADS, HEAD_DIM = 3")
    assert "HEAD_DIM = 3" in text
    (folder / "story.py").write_text(text)
    loaded = load_file(repository / "models" / "stories" / "model.safetensors")
    kept = {n: a for n, a in loaded.items() if ".layers." not in n or n.split(".")[2] in "012"}
    (folder / "stories").mkdir()
    save_file(kept, folder / "stories" / "model.safetensors")
    return folder / "story.py"


@pytest.fixture(scope="module")
def build(story: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    def run(*options: object, model: Path = story) -> Path:
        path = tmp_path_factory.mktemp("artifact") / "a"
        base = ["build", model, "--target", "v3", "--board", "nano", "--ctx", 64, "--chunk", 32, "-o", path, "--json"]
        assert cli.main([str(argument) for argument in (*base, *options)]) == 0
        return path

    return run


@pytest.fixture(scope="module")
def before(build: Build) -> Path:
    return build()


@pytest.fixture
def diff(capsys: pytest.CaptureFixture[str]) -> Diff:
    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main(["diff", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return code, out or err

    return run


def sections(diff: Diff, a: Path, b: Path) -> dict[str, dict[str, Any]]:
    """The sections that are not empty, changes by name."""
    code, out = diff(a, b, "--json")
    report = json.loads(out)
    assert code == (0 if report.pop("equal") else 1)
    assert (report.pop("a"), report.pop("b")) == (str(a), str(b))
    assert set(report) == {"build", "graph", "instructions", "memory", "weights", "files"}
    return {name: {change["name"]: change for change in found} for name, found in report.items() if found}


def test_equal_builds(diff: Diff, build: Build, before: Path) -> None:
    again = build()
    assert sections(diff, before, again) == {}
    assert diff(before, again) == (0, f"no difference: {before} and {again} are equal\n")
    assert diff(before, again, "--stage", "task") == (0, "")


def test_a_context(diff: Diff, build: Build, before: Path) -> None:
    found = sections(diff, before, build("--ctx", 32))
    assert found["build"]["model.ctx"] == {
        "name": "model.ctx", "change": "changed", "a": {"value": 64}, "b": {"value": 32}}  # fmt: skip
    assert found["graph"]["var kv_len"]["b"] == {"text": "in [0, 31]"}
    assert found["graph"]["kv %layers.1.k"]["a"] == {"text": "f16[4, 64, 32]"}
    assert found["memory"]["kv"]["a"]["bytes"] == 2 * found["memory"]["kv"]["b"]["bytes"]
    assert "weights" not in found and "program/step.bin" in found["files"]


def test_an_unrolled_program(diff: Diff, build: Build, before: Path) -> None:
    after = build("--unroll")
    found = sections(diff, before, after)
    assert set(found) == {"instructions", "memory", "files"}
    linear, whole = found["instructions"]["step LINEAR"], found["instructions"]["step all"]
    assert linear["b"]["commands"] > linear["a"]["commands"]
    assert whole["b"]["bytes"] == (after / "program" / "step.bin").stat().st_size
    assert {name for name in found["files"] if name.startswith("weights")} == set()
    code, out = diff(before, after)
    assert code == 1
    assert re.search(r"step LINEAR +changed +\d+ -> \d+ \(\+\d+\)", out)


def test_a_weight(diff: Diff, build: Build, before: Path, story: Path, tmp_path: Path) -> None:
    loaded = load_file(story.parent / "stories" / "model.safetensors")
    loaded[Q_PROJ] = np.ascontiguousarray(loaded[Q_PROJ][::-1])
    save_file(loaded, tmp_path / "model.safetensors")
    found = sections(diff, before, build("--weights", tmp_path))
    assert set(found) == {"weights", "files"}
    assert list(found["weights"]) == [Q_PROJ]
    change = found["weights"][Q_PROJ]
    assert change["a"].pop("sha256") != change["b"].pop("sha256")
    assert change["a"] == change["b"]
    assert all(name.startswith("weights/") or name == "host/model.hpp" for name in found["files"])


def test_weights_packed_for_another_board_are_the_same_numbers(diff: Diff, build: Build, before: Path) -> None:
    found = sections(diff, before, build("--board", "kv260"))
    assert found["build"]["board"]["b"] == {"value": "kv260"}
    assert all(c["a"]["sha256"] == c["b"]["sha256"] for c in found.get("weights", {}).values())


def test_a_model(diff: Diff, build: Build, before: Path, story: Path) -> None:
    changed = story.with_name("changed.py")
    changed.write_text(story.read_text().replace('fn="silu"', 'fn="gelu"'))
    after = build(model=changed)
    found = sections(diff, before, after)
    assert set(found["graph"]) == {"%layer0.act", "%layer1.act", "%layer2.act"}
    assert 'act="silu"' in found["graph"]["%layer0.act"]["a"]["text"]
    assert found["build"]["name"]["b"] == {"value": "changed"}
    assert "%layerN.act (2 times)" in diff(before, after)[1]
    code, out = diff(before, after, "--stage", "graph")
    assert code == 1 and out.startswith(f"--- {before}\n+++ {after}\n@@ ")
    assert len([line for line in out.splitlines() if line[0] in "-+"]) == 2 + 6


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_a_target(target: str, diff: Diff, build: Build, before: Path) -> None:
    found = sections(diff, before, build("--target", target))
    assert found["build"]["target"]["b"] == {"value": target}
    assert found["instructions"]["step all"]["a"]["bytes"] != found["instructions"]["step all"]["b"]["bytes"]
    assert diff(before, before, "--stage", "asm") == (0, "")


def test_text_files(diff: Diff, before: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_text("one\nthree\n")
    code, out = diff(tmp_path / "a.txt", tmp_path / "b.txt")
    assert code == 1 and out.splitlines()[2:] == ["@@ -1,2 +1,2 @@", " one", "-two", "+three"]
    assert diff(tmp_path / "a.txt", tmp_path / "a.txt") == (0, "")
    assert diff(before / "task.txt", before, "--stage", "task") == (0, "")  # a file beside an artifact
    assert json.loads(diff(tmp_path / "a.txt", tmp_path / "b.txt", "--json")[1])["equal"] is False


def test_bad_input(diff: Diff, before: Path, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    damaged = tmp_path / "damaged"
    shutil.copytree(before, damaged)
    (damaged / "task.txt").write_text("program other()\n")
    for arguments, words in [
        ((tmp_path / "nowhere", tmp_path / "binary"), "nowhere: expected an artifact or a text file"),
        ((tmp_path / "binary", tmp_path / "binary"), "no UTF-8"),
        ((tmp_path, tmp_path), "two artifacts or two text files"),
        ((before, tmp_path), "expected the manifest of an artifact"),
        ((before, damaged), "task.txt: expected SHA-256"),
        ((before, damaged, "--stage", "task"), "task.txt: expected SHA-256"),
        ((before, before, "--stage", "memory"), "--stage"),
    ]:
        code, out = diff(*arguments)
        assert code == 2 and words in out and out.count("\n") == 1, out


def test_a_renamed_node_is_one_change() -> None:
    node = {"text": "copy(%x) : f16[4]", "where": "a / copy"}
    other = {"text": "copy(%y) : f16[4]", "where": "b / copy"}
    found = _matched(changes({"%old": node, "%gone": other}, {"%new": node}))
    assert found == [Change("%old -> %new", node, node), Change("%gone", other, None)]
    twice = _matched(changes({"%old": node}, {"%new": node, "%newer": node}))
    assert [change.kind for change in twice] == ["removed", "added", "added"]  # which of the two, nobody knows


def test_changes_of_kinds() -> None:
    one, two = {"x": 1}, {"x": 2}
    found = changes({"same": one, "less": one, "other": one}, {"same": one, "other": two, "more": {}})
    assert [(c.name, c.kind) for c in found] == [("less", "removed"), ("other", "changed"), ("more", "added")]


def test_a_long_section_is_cut() -> None:
    many = [Change(f"file{'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}", None, {"bytes": i}) for i in range(60)]
    lines = _section("files", many).splitlines()
    assert lines[0] == "files: 60 added" and lines[-1] == f"... and {60 - MAX_LINES} more lines"
