"""The library of a Verilated core: its top module, its cache, and what happens where it does not compile."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dlavm.rtl import build, cache, model
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
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


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built, in a cache of one's own and in no time."""
    found: list[str] = []

    def fake(spec: TargetSpec, directory: Path, extra: object, waves: bool) -> Path:
        found.append(spec.board.name + (" with waves" if waves else ""))
        (directory / "library").write_text(model.top_text(spec))
        return directory / "library"

    monkeypatch.setattr(model, "build", fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def age(library: Path, days: float) -> None:
    """As if nobody had asked for it since."""
    for path in (*library.parent.iterdir(), library.parent):
        os.utime(path, (time.time() - 86400 * days,) * 2)


def test_built_once(built: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same sources, target and board are built once; a module of one's own makes another library."""
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


def test_another_verilator_builds_another_library(built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"\d+(\.\d+)+.*", build.verilator_version())
    first = model.library(NANO)
    monkeypatch.setattr(model, "verilator_version", lambda: "4.0")
    assert model.library(NANO) != first and built == ["nano", "nano"]


def test_what_nobody_uses_leaves_the_cache(built: list[str]) -> None:
    """With the next build, and not where somebody asked for it since."""
    used, unused, young = (model.library(load_target(target, "nano")) for target in ("v1", "v2", "v3"))
    age(young, cache.UNUSED_DAYS - 1)
    for library in (used, unused):
        age(library, cache.UNUSED_DAYS + 1)
    assert model.library(load_target("v1", "nano")) == used and unused.is_file() and len(built) == 3
    model.library(load_target("v3", "kv260"))
    assert used.is_file() and young.is_file() and not unused.parent.exists()
    assert model.library(load_target("v2", "nano")).read_text() and built[3:] == ["kv260", "nano"]


def test_nothing_leaves_the_cache_while_another_process_builds(built: list[str]) -> None:
    old = model.library(NANO)
    age(old, 2 * cache.UNUSED_DAYS)
    text = "import fcntl, sys; lock = open(sys.argv[1]); fcntl.flock(lock, fcntl.LOCK_SH); print(flush=True); input()"
    command = [sys.executable, "-c", text, str(old.parents[1] / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline()
        model.library(load_target("v1", "nano"))
        assert old.is_file()
        other.communicate("\n")
    model.library(load_target("v2", "nano"))
    assert not old.exists()


def test_a_cache_that_is_only_read(built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.library(NANO)
    age(first, 40)
    before = {path: path.stat().st_mtime for path in first.parents[1].rglob("*")}
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert model.library(NANO) == first and built == ["nano"]
    assert {path: path.stat().st_mtime for path in first.parents[1].rglob("*")} == before


def test_the_command_has_no_path_that_a_space_could_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verilator writes names into rules of make, and hands variables to a shell: each of them is one word there."""
    ran: list[tuple[list[str], Path]] = []

    def run(command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        ran.append((command, cwd))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(model.subprocess, "run", run)
    modules = tmp_path / "a b"
    modules.mkdir()
    model.build(NANO, tmp_path, [modules], waves=True)
    [(command, cwd)] = ran
    options = dict(zip(command, command[1:], strict=False))
    words = shlex.split(options["-MAKEFLAGS"])
    assert {"LDFLAGS=-shared -Wl,-Bsymbolic", "LDLIBS=-lz", "OPT_FAST=-O2"} <= set(words)
    assert all(re.match(r"[A-Z_]+=", word) for word in words)
    assert not any(str(place) in part for part in command for place in (data_root(), tmp_path))
    files = [part for part in command if part.endswith((".sv", ".cpp"))]
    assert len(files) > 10 and all((cwd / file).is_file() for file in files)
    assert (cwd / command[command.index("-y") + 1]).samefile(modules)
    included = [word.removeprefix("-I") for word in options["-CFLAGS"].split() if word.startswith("-I")]
    assert len(included) == 4 and all((cwd / path).is_dir() for path in included)


def test_the_runtime_of_verilator_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(directory: Path) -> Path:
        made.append(directory / "made")
        made[-1].write_text(f"number {len(made)}")
        return made[-1]

    monkeypatch.setattr(build, "_make_runtime", make)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a", "b", "a"):  # a bench may be built again in its directory
        (tmp_path / name).mkdir(exist_ok=True)
        build.link_runtime(tmp_path / name)
        assert (tmp_path / name / build.RUNTIME).read_text() == "number 1"
    monkeypatch.setattr(build, "verilator_version", lambda: "4.0")
    build.link_runtime(tmp_path / "a")
    assert (tmp_path / "a" / build.RUNTIME).read_text() == "number 2"
    assert (tmp_path / "b" / build.RUNTIME).read_text() == "number 1"


def test_a_runtime_that_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_RUNTIME_MAKEFILE", f"{build.RUNTIME}:\n\t@echo no compiler && false\n")
    for _ in range(2):
        with pytest.raises(DlavmError, match=r"expected Verilator's runtime to compile, got[\s\S]*no compiler"):
            build.link_runtime(tmp_path)
    assert not (tmp_path / build.RUNTIME).exists()


def test_sources_that_do_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model, "link_runtime", lambda directory: None)  # it does not come so far
    modules = tmp_path / "a b"
    modules.mkdir()
    (modules / "store_engine.sv").write_text("module store_engine; this is no SystemVerilog; endmodule\n")
    for _ in range(2):  # nothing is left behind that the second call would take for a library
        with pytest.raises(DlavmError, match=r"expected the core of v3 on nano to compile, got[\s\S]*store_engine"):
            model.library(NANO, [modules])
