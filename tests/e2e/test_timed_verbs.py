"""What the timed simulator says of a built artifact: bench and profile with the bundled model on nano."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dlavm.pack.manifest import Manifest
from dlavm.target.spec import load_board
from dlavm.verbs.bench import energy, markdown
from tests.e2e.conftest import Command
from tests.e2e.test_moe import built, mixture


@pytest.fixture(scope="module")
def small(stories_py: Path, tmp_path_factory: pytest.TempPathFactory, dlavm: Command) -> Path:
    path = tmp_path_factory.mktemp("timed") / "small"
    outcome = dlavm("build", stories_py, "--target", "v3", "--board", "nano", "--ctx", 64, "--chunk", 8, "-o", path)
    assert outcome.code == 0, outcome.err
    return path


def test_bench_counts_the_board_s_time(small: Path, dlavm: Command) -> None:
    rows = dlavm("bench", small, "--engine", "timed", "-p", 12, "-n", 2, "-d", 4, "-o", "json").json["rows"]
    assert [row["test"] for row in rows] == ["pp12 @ d4", "tg2 @ d4"]
    for row, tokens in zip(rows, (12, 2), strict=True):
        assert row["tok_s"] == pytest.approx(tokens / (row["cycles"] / 100e6))
        assert row["tok_s_min"] == row["tok_s"] == row["tok_s_max"]
        assert 0 < row["memory_share"] < 1 and 0 < row["matrix_share"] < 1 and 0 < row["control_share"] < 0.1
        assert "tok_j" not in row
    assert rows[1]["memory_share"] > rows[0]["memory_share"]
    assert rows[0]["ttft_s"] == pytest.approx(rows[0]["cycles"] / 100e6)


def test_bench_of_a_target_without_a_stream(stories_py: Path, dlavm: Command, tmp_path: Path) -> None:
    """Commands of a host leave no record, so that two of the shares are not known; the rest is as `cycles` says."""
    shape = ("--target", "v1", "--board", "nano", "--ctx", 64, "--chunk", 8)
    assert dlavm("build", stories_py, *shape, "-o", tmp_path / "v1").code == 0
    (row,) = dlavm("bench", tmp_path / "v1", "--engine", "timed", "-p", 3, "-n", 0, "-o", "json").json["rows"]
    prompt = dlavm("cycles", stories_py, *shape, "-p", 3, "--json").json["rows"][0]
    assert row["memory_share"] == pytest.approx(prompt["memory_share"], rel=1e-3)  # refreshes fall otherwise
    assert row["matrix_share"] is None and row["control_share"] is None


def test_run_tells_the_board_s_time(small: Path, dlavm: Command) -> None:
    answer = ("--prompt-ids", "0,430,263", "--max-tokens", 2, "--greedy")
    cycles = dlavm("run", small, "--engine", "timed", *answer, "--json").json["cycles"]
    told = dlavm("run", small, "--engine", "timed", *answer).err
    assert f", {cycles:,} cycles: {cycles / 100e3:.4g} ms of nano, stopped by length]" in told
    assert "cycles" not in dlavm("run", small, *answer).err


def test_bench_in_csv_has_no_column_of_energy(small: Path, dlavm: Command) -> None:
    out = dlavm("bench", small, "--engine", "timed", "-p", 0, "-n", 1, "-o", "csv").out
    (row,) = csv.DictReader(out.splitlines())
    assert row["test"] == "tg1" and float(row["control_share"]) > 0 and "tok_j" not in row


def test_tokens_a_joule_where_a_power_is_stated() -> None:
    board = load_board("nano")
    assert board.power_watts is None and energy(board, 500.0) == {}
    stated = replace(board, power_watts=20.0)
    assert energy(stated, 500.0) == {"tok_j": 25.0} and energy(stated, None) == {}
    row = {"test": "tg4", "engine": "timed", "tok_s": 500.0, "tok_j": 25.0}
    assert markdown([row]).splitlines()[0] == "| test | engine | tok_s | tok_j |"


def test_a_profile_of_an_artifact_is_that_of_its_model(
    small: Path, stories_py: Path, dlavm: Command, tmp_path: Path
) -> None:
    compiled = ("--board", "nano", "--ctx", 64, "--chunk", 8)
    built = dlavm("profile", small, "-d", 9, "--json", "--trace", tmp_path / "t.json").json
    assert built == dlavm("profile", stories_py, *compiled, "-d", 9, "--json").json
    assert built["limits"]["memory"] > built["cycles"] / 2
    names = {event["name"] for event in json.loads((tmp_path / "t.json").read_text())["traceEvents"]}
    assert "layer 7 / down_proj: LINEAR int4g128" in names


def test_a_profile_of_a_mixture(dlavm: Command, tmp_path: Path) -> None:
    """Its fences and loads from memory leave the engines without commands."""
    built(mixture(), tmp_path / "moe")
    report = dlavm("profile", tmp_path / "moe", "-n", 2, "-d", 5, "--by", "place", "--json").json
    rows = {row["name"]: row for row in report["rows"]}
    assert sum(row["cycles"] for row in rows.values()) == report["cycles"]
    assert rows["moe"]["commands"] > rows["attention"]["commands"]
    assert rows["between commands"]["limits"]["control"] == report["control"] > 0.01 * report["cycles"]


def test_a_profile_of_an_artifact_refuses_what_only_compiles(small: Path, dlavm: Command) -> None:
    outcome = dlavm("profile", small, "--quant", "mxfp4")
    assert outcome.code == 2 and "--quant: expected a MODEL beside it" in outcome.err
    outcome = dlavm("profile", small, "-n", 9)
    assert outcome.code == 2 and "expected a step of 1..8 tokens, got 9" in outcome.err


def test_an_artifact_without_places(small: Path, dlavm: Command, tmp_path: Path) -> None:
    """Of an artifact whose assembly has no comments the commands have their names."""
    copy = Path(shutil.copytree(small, tmp_path / "old"))
    lines = (copy / "asm.txt").read_text().splitlines()
    text = "\n".join(line.partition("  #")[0] for line in lines) + "\n"
    (copy / "asm.txt").write_text(text)
    manifest = Manifest.from_json((copy / "manifest.json").read_bytes())
    files = {**manifest.files, "asm.txt": sha256(text.encode()).hexdigest()}
    (copy / "manifest.json").write_text(replace(manifest, files=files).to_json())
    rows = dlavm("profile", copy, "--by", "place", "--json").json["rows"]
    assert {"LINEAR", "NORM", "SOFTMAX"} <= {row["name"] for row in rows}
