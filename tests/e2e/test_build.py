"""build and check with the bundled model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

KEYS = {
    "artifact", "target", "board", "target_hash", "program_bytes", "weights_bytes", "activation_peak_bytes",
    "activation_lower_bound_bytes", "activation_memory", "kv_bytes", "compile_s", "pack_s", "peak_rss_bytes",
    "quantised", "notes",
}  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_report_has_the_keys_of_the_contract(dlavm: Command, stories_py: Path, tmp_path: Path) -> None:
    options = ("--target", "v3", "--board", "nano", "--ctx", 256, "-o", tmp_path / "a")
    outcome = dlavm("build", stories_py, *options, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.json
    assert set(report) >= KEYS
    assert (report["target"], report["board"]) == ("v3", "nano")
    assert report["activation_peak_bytes"] == report["activation_lower_bound_bytes"]
    assert report["activation_memory"] == "hbm"
    assert (tmp_path / "a" / "manifest.json").is_file()


@pytest.mark.parametrize(("chunk", "memory"), [(128, "onchip"), (256, "hbm")])
def test_activations_too_large_for_the_chip_are_said_to_lie_in_hbm(
    chunk: int, memory: str, dlavm: Command, repository: Path
) -> None:
    path = repository / "models" / "llama.py:llama2_7b"
    model = (path, "--target", "v3", "--weights", "none", "--chunk", chunk, "--json")
    notes, report = dlavm("check", *model).json["notes"], dlavm("build", *model).json
    assert report["activation_memory"] == memory
    expected = ["more than the 9437184 of onchip: they lie in hbm"] * (memory == "hbm")
    for said in ([note["what"] for note in notes], report["notes"]):
        assert len(said) == len(expected) and all(part in what for part, what in zip(expected, said, strict=True))


def test_two_builds_are_byte_identical(dlavm: Command, stories: Path, stories_py: Path, tmp_path: Path) -> None:
    outcome = dlavm("build", stories_py, "--target", "v3", "-o", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert "the lower bound, in onchip\n" in outcome.out
    assert files(tmp_path / "again") == files(stories)


def test_a_checkpoint_directory_gives_the_same_weights(
    dlavm: Command, stories: Path, stories_py: Path, tmp_path: Path
) -> None:
    outcome = dlavm("build", stories_py.with_suffix(""), "--target", "v3", "-o", tmp_path / "hf", "--json")
    assert outcome.code == 0, outcome.err
    ours = dlavm("run", tmp_path / "hf", "--prompt-ids", "0,430,263", "--greedy", "--max-tokens", 8, "--json").json
    theirs = dlavm("run", stories, "--prompt-ids", "0,430,263", "--greedy", "--max-tokens", 8, "--json").json
    assert ours["tokens"] == theirs["tokens"]


def test_the_default_place_is_output(
    dlavm: Command, stories_py: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dlavm("build", stories_py, "--target", "v3", "--board", "nano", "--ctx", 64).code == 0
    assert (tmp_path / "output" / "stories" / "manifest.json").is_file()


def test_check_on_every_board(dlavm: Command, stories_py: Path) -> None:
    for board in ("nano", "kv260", "u280", "v80"):
        outcome = dlavm("check", stories_py, "--target", "v3", "--board", board)
        assert (outcome.code, outcome.err) == (0, ""), outcome.out
