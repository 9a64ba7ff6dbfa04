"""The library of a Verilated core: its top module, its cache, and what happens where it does not compile."""

from __future__ import annotations

import re
from dataclasses import replace
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


@pytest.mark.parametrize(("target", "header_words", "scalars", "semaphores"), [
    ("v1", "0", "0", "0"), ("v2", "1", "0", "0"), ("v3", "2", "32", "32"),
])
def test_parameters_of_a_generation(target: str, header_words: str, scalars: str, semaphores: str) -> None:
    values = dict(re.findall(r"\.([A-Z_]+)\((.*)\)", model.top_text(load_target(target, "nano"))))
    assert (values["HEADER_WORDS"], values["SCALARS"], values["SEMAPHORES"]) == (header_words, scalars, semaphores)


def test_what_the_core_is_not_for() -> None:
    spec = load_target("v3", "nano")
    odd = replace(spec.board.memories["hbm"], base=16)
    board = replace(spec.board, memories={**spec.board.memories, "hbm": odd})
    with pytest.raises(DlavmError, match="expected hbm of nano in rows of 32 bytes, got 32 a beat"):
        model.top_text(replace(spec, board=board))


def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same sources, target and board are built once; a module of one's own makes another library."""
    built: list[str] = []

    def fake(spec: TargetSpec, directory: Path, extra: object, waves: bool) -> Path:
        built.append(spec.board.name + (" with waves" if waves else ""))
        (directory / "library").write_text(model.top_text(spec))
        return directory / "library"

    monkeypatch.setattr(model, "build", fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = model.library(NANO)
    assert model.library(NANO) == first and first.read_text() == model.top_text(NANO)
    other = tmp_path / "modules"
    other.mkdir()
    (other / "store_engine.sv").write_text("module store_engine; endmodule\n")
    assert model.library(NANO, [other]) != first
    assert model.library(load_target("v3", "kv260")) != first
    assert model.library(NANO, waves=True) not in (first, model.library(NANO, [other]))
    assert built == ["nano", "nano", "kv260", "nano with waves"] and not capsys.readouterr().err
    model.library(load_target("v3", "vcu128"))
    assert "8,192 lanes" in capsys.readouterr().err


def test_sources_that_do_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "store_engine.sv").write_text("module store_engine; this is no SystemVerilog; endmodule\n")
    for _ in range(2):  # nothing is left behind that the second call would take for a library
        with pytest.raises(DlavmError, match=r"expected the core of v3 on nano to compile, got[\s\S]*store_engine"):
            model.library(NANO, [tmp_path])
