"""`dlavm plan`: output, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlavm import cli
from dlavm.memory import validate
from dlavm.memory.csv import read_csv

HEADER = "id,lower,upper,size\n"
SIX = HEADER + "a,3,4,6\nb,2,4,3\nc,1,2,3\nd,2,3,3\ne,1,3,4\nf,1,4,5\n"  # 15 bytes are live at one time, and enough


@pytest.fixture
def six(tmp_path: Path) -> str:
    path = tmp_path / "six.csv"
    path.write_text(SIX)
    return str(path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["plan", *arguments])
    return code, *capsys.readouterr()


def test_text(six: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, six)
    assert (code, err) == (0, "")
    assert out.startswith("peak 15 bytes, 1.0000 of the lower bound 15: optimal, valid; ")
    assert out.count("\n") == 1


def test_json(six: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, six, "--json", "--align", "4", "--threads", "1")
    report = json.loads(out)
    assert code == 0 and report.pop("seconds") >= 0 and report.pop("nodes") >= 0
    assert report == {"peak": 17, "lower_bound": 17, "optimal": True, "status": "optimal", "end": "complete",
                      "valid": True}  # fmt: skip


def test_a_plan_goes_out_and_comes_back(six: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out.csv"
    assert call(capsys, six, "--capacity", "15", "-o", str(out))[0] == 0
    problem, offsets = read_csv(out)
    assert problem == read_csv(Path(six))[0]
    validate(problem, offsets, 1, 15)
    code, text, _ = call(capsys, str(out), "--validate-only", "--capacity", "15")
    assert (code, text) == (0, "peak 15 bytes, 1.0000 of the lower bound 15: optimal, valid\n")
    assert call(capsys, str(out))[0] == 0


def test_infeasible_is_proven_and_writes_nothing(six: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    code, text, err = call(capsys, six, "--capacity", "14", "--json", "-o", str(out))
    report = json.loads(text)
    assert code == 1 and not out.exists()
    assert report["status"] == "infeasible" and report["valid"] and report["lower_bound"] == 15
    assert err == (f"dlavm: error: {six}: expected a plan within 14 bytes, got {report['peak']} "
                   "(at least 15 are needed)\n")  # fmt: skip


def test_a_time_limit_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.unit.test_plan import perfect

    path = tmp_path / "hard.csv"
    path.write_text(HEADER + "".join(f"{i.name},{i.lower},{i.upper},{i.size}\n" for i in perfect(400, 1)))
    code, _, err = call(capsys, str(path), "--capacity", "1000", "--time-limit", "0.05")
    assert code == 1
    assert "(not proven: at least 1000 are needed, the search was out of time)" in err


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ((0, 2), "buffers b and a: expected no overlap"),
        ((0, 5), "buffer b: offset expected a multiple of 2, got 5"),
        ((0, 30), "buffer b: expected within 20 bytes, got bytes 30..34"),
    ],
)
def test_validate_only_refuses(
    offsets: tuple[int, int], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "placed.csv"
    path.write_text(f"id,lower,upper,size,offset\na,0,2,4,{offsets[0]}\nb,1,3,4,{offsets[1]}\n")
    code, out, err = call(capsys, str(path), "--validate-only", "--align", "2", "--capacity", "20")
    assert (code, out) == (1, "")
    assert err.startswith(f"dlavm: error: {path}: {message}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("", [], "line 1: expected the columns id,lower,upper,size"),
        (HEADER + "a,2,2,1\n", [], "line 2: expected lower < upper, got 2 and 2"),
        (HEADER + "a,0,1,99999999999999999999\n", [], "buffer a: expected size >= 0 and lower < upper, sizes"),
        (SIX, ["--validate-only"], "expected a column offset, got none"),
        (SIX, ["--validate-only", "-o", "x.csv"], "--validate-only: expected no --output"),
        (SIX, ["--align", "0"], "argument --align: expected an integer of at least 1, got '0'"),
        (SIX, ["--capacity", "-1"], "argument --capacity: expected"),
        (SIX, ["--time-limit", "0"], "argument --time-limit: expected seconds above 0, got '0'"),
        (SIX, ["--time-limit", "nan"], "argument --time-limit: expected seconds above 0, got 'nan'"),
    ],
)
def test_bad_input(
    content: str, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    code, out, err = call(capsys, str(path), *arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_a_missing_file_and_no_buffers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, str(tmp_path / "none.csv"))
    assert code == 2 and "expected a CSV file" in err
    (tmp_path / "empty.csv").write_text(HEADER)
    code, out, _ = call(capsys, str(tmp_path / "empty.csv"), "--json", "--capacity", "0")
    assert code == 0 and json.loads(out)["peak"] == 0
