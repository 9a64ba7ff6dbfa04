"""The command line itself: usage, exit codes, errors in one line, interrupts, the verbs that need no artifact."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlavm import cli
from dlavm.support.errors import CheckFailed, DlavmError
from dlavm.verbs import doctor


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error: a single line on stderr, and nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dlavm: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(doctor, "run", run)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out.startswith("dlavm ")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_every_verb_has_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main([verb, "--help"])
    out = capsys.readouterr().out
    assert done.value.code == 0
    assert "examples:" in out
    assert f"dlavm {verb}" in out
    assert max(map(len, out.splitlines())) <= 120


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert all(re.search(rf"^    {verb}\s", out, re.M) for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "VERB"),
        (["bild"], "bild"),
        (["build"], "MODEL"),
        (["build", "x.py"], "--target"),
        (["build", "x.py", "--target", "v3", "--curl"], "--curl"),
        (["build", "x.py", "--target", "v3", "--ctx", "0"], "'0'"),
        (["build", "x.py", "--target", "v3", "--ctx", "many"], "'many'"),
        (["run", "x"], "--prompt"),
        (["run", "x", "--prompt", "a", "--prompt-ids", "1"], "--prompt-ids"),
        (["run", "x", "--prompt-ids", "1,b"], "'b'"),
        (["run", "x", "--prompt-ids", "1", "--seed", "-1"], "'-1'"),
        (["dump", "x", "--stage", "dot"], "dot"),
        (["dump", "x", "--stage", "asm", "--format", "prototxt"], "prototxt"),
        (["verify", "x", "--prompts", "1,,2"], "''"),
        (["bench", "x", "-o", "xml"], "xml"),
        (["build", "x.py", "--target", "v3", "-o", ""], "-o/--output: expected at least one character"),
        (["dump", "x", "--stage", "asm", "-o", ""], "-o/--output: expected at least one character"),
        (["run", "x", "--prompt", "a", "--stop", ""], "--stop: expected at least one character"),
        (["verify", "x", "--golden", ""], "--golden: expected at least one character"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert word in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "models/stories.py", "--target", "v9"], ["'v9'", "v1, v2, v3"]),
        (["build", "models/stories.py", "--target", "v3", "--board", "moon"], ["'moon'", "vcu128"]),
        (["build", "nowhere.py", "--target", "v3"], ["'nowhere.py'"]),
        (["build", "models/stories.py", "--target", "v3", "--weights", "nowhere"], ["'nowhere'"]),
        (["build", "models/stories.py", "--target", "v3", "--quant", "int3"], ["int3", "int4g128"]),
        (["build", "models/stories.py", "--target", "v3", "--ctx", "9999999"], ["ctx", "9999999"]),
        (["run", "nowhere", "--prompt", "x"], ["nowhere", "manifest"]),
        (["run", "models/stories.py", "--prompt", "x"], ["dlavm build"]),
        (["run", "models/stories.py", "--prompt", "x", "--float"], ["--engine reference"]),
        (["run", "models/stories.py", "--float", "--engine", "reference", "--prompt-ids", "5000"], ["5000", "4095"]),
        (["chat", "127.0.0.1:1"], ["127.0.0.1:1", "Connection refused"]),
        (["dump", "models/stories.py", "--stage", "asm", "--format", "json"], ["--format", "'json'"]),
        (["dump", "models/stories.py", "--stage", "weights", "--format", "hf"], ["-o DIR"]),
        (["dump", "models/stories.py", "--stage", "weights", "--format", "hf", "-o", "x"], ["artifact"]),
        (["verify", "nowhere"], ["nowhere"]),
        (["bench", "nowhere"], ["nowhere"]),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    repository: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(repository)
    before = sorted((repository / "output").iterdir())
    assert cli.main(arguments) == 2
    line = one_line(capsys)
    assert all(word in line for word in words), line
    assert sorted((repository / "output").iterdir()) == before


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DlavmError("two\nlines"), 2, "dlavm: error: two lines\n"),
        (CheckFailed("no"), 1, "dlavm: error: no\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "dlavm: error: x: No such file\n"),
        (MemoryError(), 2, "dlavm: error: MemoryError\n"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, error)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == text


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, KeyError("x"))
    assert cli.main(["doctor"]) == 2
    assert "internal: KeyError" in one_line(capsys)


def test_a_traceback_with_debug_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, DlavmError("bad"))
    monkeypatch.setenv("DLAVM_DEBUG", "1")
    assert cli.main(["doctor"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("dlavm: error: bad\n")


def test_an_interrupt_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("argument", ["--help", "targets"])
def test_a_reader_that_leaves_is_no_error(argument: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dlavm", argument]
    # Without a buffer argparse itself drops what it cannot print, and --help ends with 0.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, env=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_doctor(capsys: pytest.CaptureFixture[str], read_json: Callable[[], Any]) -> None:
    code = cli.main(["doctor", "--json"])
    report = read_json()
    names = [finding["name"] for finding in report["findings"]]
    assert code == (0 if report["ok"] else 1)
    assert {"python", "numpy", "native library", "bundled model", "verilator", "DLAVM_SIMD"} <= set(names)
    assert cli.main(["doctor"]) == code
    assert "bundled model" in capsys.readouterr().out


def test_doctor_names_a_bad_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DLAVM_SIMD", "mmx")
    assert cli.main(["doctor"]) == 1
    assert "'mmx'" in capsys.readouterr().out


def test_targets(capsys: pytest.CaptureFixture[str], read_json: Callable[[], Any]) -> None:
    assert cli.main(["targets", "--json"]) == 0
    report = read_json()
    targets = {target["name"]: target for target in report["targets"]}
    assert targets["v3"]["can_build"]
    assert targets["v3"]["ops_without_rule"] == []
    assert all(target["can_build"] or target["problem"] for target in targets.values())
    boards = {board["name"]: board for board in report["boards"]}
    assert boards["vcu128"]["memories"][0]["channels"] == 32
    assert cli.main(["targets"]) == 0
    assert "vcu128" in capsys.readouterr().out


def test_check_good(repository: Path, read_json: Callable[[], Any]) -> None:
    assert cli.main(["check", str(repository / "models/stories.py"), "--target", "v3", "--json"]) == 0
    assert read_json() == {"ok": True, "problems": [], "notes": []}


def test_check_names_all_problems(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(repository / "models/stories.py"), "--target", "v1"]
    code = cli.main([*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (0 if report["ok"] else 1)
    if not report["ok"]:
        assert all(set(problem) == {"where", "what", "hint"} for problem in report["problems"])
        assert cli.main(arguments) == 1
        out = capsys.readouterr().out
        assert f"{len(report['problems'])} problems on v1, vcu128" in out
        assert len(out.splitlines()) < len(report["problems"])


@pytest.fixture
def read_json(capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """The one JSON object on stdout; stderr must be empty."""

    def read() -> Any:
        out, err = capsys.readouterr()
        assert err == ""
        return json.loads(out)

    return read


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m dlavm targets {closed}"
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_does_not_go_to_stdout_when_stderr_is_closed() -> None:
    command = f"{shlex.quote(sys.executable)} -m dlavm run nowhere --prompt x 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


MODEL = """print("loaded")
import dlavm.graph
def build(ctx, chunk):
    print("built")
    raise ValueError("no graph today")
"""


def test_check_as_json_of_a_model_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object with the line as the place, whether the file cannot be read (2) or its graph not be built (1)."""
    monkeypatch.chdir(tmp_path)
    for text, code, where in (("x = 1\ndef\n", 2, "m.py:2"), (MODEL, 1, "m.py:5")):
        Path("m.py").write_text(text)
        assert cli.main(["check", "./m.py", "--target", "v3", "--json"]) == code
        report = json.loads(capsys.readouterr().out)
        assert not report["ok"]
        assert [problem["where"] for problem in report["problems"]] == [where]
        assert set(report["problems"][0]) == {"where", "what", "hint"}
    assert cli.main(["check", "m.py", "--target", "v3"]) == 1
    assert capsys.readouterr().out.startswith("m.py:5: expected to run, got 'ValueError: no graph today'")


def test_what_a_model_file_prints_is_not_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.py"
    path.write_text(MODEL)
    cli.main(["check", str(path), "--target", "v3", "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)["problems"]
    assert err.startswith("loaded\nbuilt\n")


def test_check_names_the_option_for_missing_weights(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.py"
    path.write_text((repository / "models/stories.py").read_text().replace("WEIGHTS = ", "OTHER = "))
    assert cli.main(["check", str(path), "--target", "v3"]) == 1
    out = capsys.readouterr().out
    assert "no weights" in out and "--weights" in out


def test_check_says_whether_values_were_read(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(repository / "models/stories.py"), "--target", "v3"]
    assert cli.main(arguments) == 0
    assert "not read (--values)" in capsys.readouterr().out
    assert cli.main([*arguments, "--values"]) == 0
    assert "not read" not in capsys.readouterr().out
