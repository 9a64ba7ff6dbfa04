"""The tour of scripts/learn.py: every chapter runs, shows what the library says, and fails where a claim does."""

from __future__ import annotations

import importlib
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHAPTERS = 10
FACTS = (
    '%add = linear(%embedding, %proj.weight, aux=%embedding) {aux_mode="add"}',
    "for t in (token + 31) // 32",
    "LOOP rd=",
    "checked: simulator and reference agree on every byte",
)


@pytest.fixture
def command(repository: Path) -> list[str]:
    return [sys.executable, str(repository / "scripts" / "learn.py")]


@pytest.fixture
def learn(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module of its own, with nothing kept from an earlier test."""
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    for name in ("learn", "learn_pages"):
        sys.modules.pop(name, None)
    yield importlib.import_module("learn")
    for name in ("learn", "learn_pages"):
        sys.modules.pop(name, None)


def test_the_whole_tour(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")
    headings = [line for line in run.stdout.splitlines() if line.split(".")[0].isdigit()]
    assert [int(line.split(".")[0]) for line in headings] == list(range(1, CHAPTERS + 1))
    for fact in FACTS:
        assert fact in run.stdout
    assert run.stdout.count("  checked: ") >= 2 * CHAPTERS - 3
    assert max(map(len, run.stdout.splitlines())) <= 120
    assert "Enter" not in run.stdout


def test_list(command: list[str]) -> None:
    run = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True, timeout=60)
    assert [int(line.split(".")[0]) for line in run.stdout.splitlines()] == list(range(1, CHAPTERS + 1))


@pytest.mark.parametrize("number", range(1, CHAPTERS + 1))
def test_each_chapter_stands_alone(number: int, learn: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert learn.main("tour", learn.CHAPTERS, ["--chapter", str(number)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"\n{number}. ") and "checked: " in out and f"\n{number + 1}. " not in out


@pytest.mark.parametrize("arguments", [["--chapter", "0"], ["--chapter", str(CHAPTERS + 1)], ["--chapter", "x"], ["7"]])
def test_bad_usage(arguments: list[str], learn: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        learn.main("tour", learn.CHAPTERS, arguments)
    assert error.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_a_claim_that_does_not_hold(learn: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> None:
        """Arithmetic"""
        learn.claim("two is three", 2 == 3)

    assert learn.main("tour", [wrong, learn.a_graph], []) == 1
    out, err = capsys.readouterr()
    assert err == "learn: expected that two is three, got the opposite\n"
    assert "A graph" not in out


def test_an_engine_that_disagrees(
    learn: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong(learn.ReferenceDevice):  # type: ignore[misc,name-defined]
        def mem_read(self, address: int, count: int) -> Any:
            raw = bytearray(super().mem_read(address, count))
            raw[-1] ^= 1
            return bytes(raw)

    monkeypatch.setattr(learn, "ReferenceDevice", Wrong)
    assert learn.main("tour", learn.CHAPTERS, ["--chapter", "9"]) == 1
    assert "simulator and reference agree" in capsys.readouterr().err


def test_weights_that_do_not_arrive(
    learn: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(learn, "write_constants", lambda device: None)
    for chapter in ("8", "9"):
        assert learn.main("tour", learn.CHAPTERS, ["--chapter", chapter]) == 1
    assert "the byte of chapter 7" in capsys.readouterr().err


def on_a_terminal(command: list[str], typed: bytes) -> tuple[int, str]:
    """Exit code and what a terminal shows, typed keys among it."""
    master, slave = pty.openpty()
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        watchdog = threading.Timer(60, process.kill)  # should it wait for more than was typed
        watchdog.start()
        os.write(master, typed)
        shown = b""
        while piece := _read(master):
            shown += piece
        watchdog.cancel()
    os.close(master)
    return process.returncode, shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so where the other end is closed
        return b""


def test_a_terminal_waits_between_chapters(command: list[str]) -> None:
    code, shown = on_a_terminal(command, b"\n" * (CHAPTERS - 1))
    assert (code, shown.count("Enter for the next chapter")) == (0, CHAPTERS - 1)
    assert f"\n{CHAPTERS}. " in shown


def test_the_end_of_input_ends_the_tour(command: list[str]) -> None:
    code, shown = on_a_terminal(command, b"\n\x04")
    assert (code, shown.count("Enter for the next chapter")) == (0, 2)


def test_no_pause_on_a_terminal(command: list[str]) -> None:
    code, shown = on_a_terminal([*command, "--no-pause"], b"")
    assert (code, shown.count("Enter")) == (0, 0)


def test_a_reader_that_leaves(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
