"""Every module passes Verilator's lint with all warnings on; the lint itself notices a bad module."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.rtl import build, model
from dlavm.support.errors import CheckFailed, DlavmError
from dlavm.target import load_target

reason = build.missing_tools()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))


@pytest.mark.parametrize("module", build.modules())
def test_module_is_clean(module: str) -> None:
    assert build.lint(module) == ""


@pytest.mark.parametrize(("target", "board"), [
    ("v1", "nano"), ("v2", "nano"), ("v3", "nano"),
    *(pytest.param("v3", board, marks=pytest.mark.slow) for board in ("kv260", "vcu128", "u280", "v80")),
])
def test_core_is_clean(target: str, board: str, tmp_path: Path) -> None:
    """The whole core elaborates, at the full size of a board too, with all warnings on: what a target does without is
    neither built nor left over."""
    top = tmp_path / f"{model.TOP}.sv"
    top.write_text(model.top_text(load_target(target, board)))
    assert build.lint(model.TOP, [top]) == ""


def test_waivers_are_explained() -> None:
    """A waiver is allowed only under a comment that says why."""
    for path in build.rtl_dir().glob("*.sv"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if "lint_off" in line:
                assert lines[number - 1].strip().startswith("//"), f"{path.name}:{number + 1}"


def test_a_bad_module_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "bad.sv"
    bad.write_text("module bad (input logic [3:0] a_i, output logic [1:0] b_o);\n  assign b_o = a_i;\nendmodule\n")
    assert "WIDTHTRUNC" in build.lint("bad", [bad])


def test_unknown_module() -> None:
    with pytest.raises(DlavmError, match="got 'no_such_module'"):
        build.lint("no_such_module")


def test_bench_that_does_not_compile(tmp_path: Path) -> None:
    bad = tmp_path / "bad.sv"
    bad.write_text("module bad (input logic clk_i);\n  missing u_missing (.clk_i);\nendmodule\n")
    with pytest.raises(CheckFailed, match="bench bad does not compile"):
        build.build_bench("bad", [bad], tmp_path / "build")
