"""The library of a Verilated core: its top module, its cache, and what happens where it does not compile."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlavm.rtl import build, model
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec, load_target

NANO = load_target("v3", "nano")
missing = build.missing_tools(("verilator",))
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))


def test_parameters_of_a_board() -> None:
    text = model.top_text(NANO)
    values = dict(re.findall(r"\.([A-Z_]+)\((.*)\)", text))
    assert values["ID"] == f"32'h{NANO.hash[:8]}"
    assert (values["UNITS"], values["PORT_BYTES"], values["CHANNELS"]) == ("2", "16", "3")
    assert values["BASE"] == "{40'h800000000, 40'h0}"  # the last space first, as concatenations have it
    assert int(values["OPCODES"].split("h")[1], 16) == sum(1 << opcode for opcode in NANO.opcodes)


@pytest.mark.parametrize(("target", "board", "message"), [
    ("v1", "nano", "expected a target with a stream and scalars, got v1"),
    ("v2", "nano", "expected a target with a stream and scalars, got v2"),
])
def test_what_the_core_is_not_for(target: str, board: str, message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        model.top_text(load_target(target, board))


def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sources, target and board are built once; a module of one's own makes another library."""
    built: list[str] = []

    def fake(spec: TargetSpec, top: str, directory: Path, extra: object) -> Path:
        built.append(spec.board.name)
        (directory / "library").write_text(top)
        return directory / "library"

    monkeypatch.setattr(model, "_build", fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = model.library(NANO)
    assert model.library(NANO) == first and first.read_text() == model.top_text(NANO)
    other = tmp_path / "modules"
    other.mkdir()
    (other / "store_engine.sv").write_text("module store_engine; endmodule\n")
    assert model.library(NANO, [other]) != first
    assert model.library(load_target("v3", "kv260")) != first
    assert built == ["nano", "nano", "kv260"]


def test_sources_that_do_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "store_engine.sv").write_text("module store_engine; this is no SystemVerilog; endmodule\n")
    for _ in range(2):  # nothing is left behind that the second call would take for a library
        with pytest.raises(DlavmError, match=r"expected the core of v3 on nano to compile, got[\s\S]*store_engine"):
            model.library(NANO, [tmp_path])
