"""The fuzz targets of scripts/fuzz.py without libFuzzer: seeds, changes of them, messages cut at every byte."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT, DEVICE

MODULES = ("fuzz", "fuzz_seeds", "bench_table")
# How the device server answers: statuses of the C interface, core errors, and why it refuses.
DEVICE_REACHED = {"opened", "result", "data", "counted", "busy", "malformed", "core errors", "images mapped",
                  *(f"results {status}" for status in range(-5, 1))}  # fmt: skip


@pytest.fixture
def fuzz(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # processes may not be traced everywhere
    yield importlib.import_module("fuzz")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def compiler() -> str:
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("needs a C++ compiler")
    return found


def chat_reached() -> set[str]:
    """Every answer, every end, every error that there is a way to."""
    answers = {message.name for message in CHAT.messages.values() if "server" in message.senders}
    ends = {f"done {label}" for label in CHAT.enums["stop_reason"]}
    errors = {f"error {label}" for label in CHAT.enums["error"]} - {"error unsupported"}
    return answers | ends | errors | {"tokens of the witness"}


def compiled(fuzz: ModuleType, name: str, compiler: str, work: Path) -> tuple[object, Path]:
    target = fuzz.TARGETS[name](work)
    try:
        return target, fuzz.compile_target(target, compiler, ("-O0", *fuzz.SANITIZERS), work / name, True)
    except DlavmError as error:
        if "cannot find" in str(error):
            pytest.skip("the compiler has no sanitizer libraries")
        raise


def replay(fuzz: ModuleType, program: Path, mutations: int, inputs: list[Path]) -> dict[str, int]:
    done = subprocess.run([program, str(mutations), *inputs], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(fuzz.parse_reached(done.stdout))


def test_the_service(fuzz: ModuleType, compiler: str, tmp_path: Path) -> None:
    target, program = compiled(fuzz, "service", compiler, tmp_path)
    seeds = fuzz.write_seeds(target, tmp_path / "seeds")
    assert set(replay(fuzz, program, 3000, seeds)) == chat_reached()
    cuts = cut_chat(fuzz, tmp_path / "cuts")
    seen = replay(fuzz, program, 0, [path for path, _ in cuts])
    # Each client but those with half a hello is welcomed, and so is a witness that each of them leaves unharmed.
    assert seen["welcome"] == sum(count for _, count in cuts)
    assert seen["tokens of the witness"] >= 2 * len(cuts) and "error" not in seen


def cut_chat(fuzz: ModuleType, folder: Path) -> list[tuple[Path, int]]:
    """An input for each message, in which clients send a part of it, each one byte more; and how many are welcomed."""
    from fuzz_seeds import ASK, CHATS, HELLO, limits

    messages = {"hello": HELLO, "generate": ASK, "reset": {"keep": 0}, "data": {"bytes": b"12"}, "ping": {"nonce": 7},
                "load": {"model_id": "x" * 64, "kv_len": 3, "bytes": 8},
                **dict.fromkeys(("cancel", "save", "stats", "goodbye"), {})}  # fmt: skip
    assert set(messages) == {m.name for m in CHAT.messages.values() if "client" in m.senders}
    folder.mkdir()
    cuts = []
    for name, fields in messages.items():
        frame = CHAT.encode(name, **fields)
        first = name == "hello"
        come = CHATS.do("open") + (b"" if first else CHATS.do("hello"))
        if name == "data":
            come += CHATS.do("load", 0, 3)
        each = [come + CHATS.raw(frame[:cut]) + CHATS.do("turns", number=1) + CHATS.do("close")
                for cut in range(len(frame))]  # fmt: skip
        witness = CHATS.do("ask_witness", number=2 << 11) + CHATS.do("turns", number=99)
        path = folder / name
        path.write_bytes(limits() + witness + b"".join(each) + witness)
        cuts.append((path, 1 if first else 1 + len(each)))
    return cuts


def test_the_device_server(fuzz: ModuleType, compiler: str, tmp_path: Path) -> None:
    target, program = compiled(fuzz, "device-server", compiler, tmp_path)
    seeds = fuzz.write_seeds(target, tmp_path / "seeds")
    assert set(replay(fuzz, program, 1000, seeds)) == DEVICE_REACHED
    cuts = cut_device(tmp_path / "cuts")
    seen = replay(fuzz, program, 0, [path for path, _ in cuts])
    # Every client gets the device, and so does one behind the last.
    assert seen["opened"] == sum(count for _, count in cuts) and set(seen) == {"opened"}
    with pytest.raises(AssertionError, match="expected a readable file"):  # as findings are told
        replay(fuzz, program, 0, [tmp_path / "none"])


def cut_device(folder: Path) -> list[tuple[Path, int]]:
    """An input for each message and each way to leave behind a part of it; how many clients get the device."""
    from fuzz_seeds import DEVICES, OPEN

    messages = {"open": OPEN, "option": {"name": "threads", "value": "2"}, "read": {"address": 0, "count": 16},
                "write": {"address": 0, "bytes": b"1234"}, "map": {"address": 0, "channel": 0, "total": 16},
                "image": {"bytes": b"1234"}, "csr_read": {"offset": 0}, "csr_write": {"offset": 32, "value": 1},
                "run": {"max_commands": 1}, **dict.fromkeys(("counters", "info", "stop"), {})}  # fmt: skip
    assert set(messages) == {m.name for m in DEVICE.messages.values() if "client" in m.senders}
    folder.mkdir()
    cuts = []
    for name, fields in messages.items():
        frame, first = DEVICE.encode(name, **fields), name == "open"
        opened = DEVICES.do("open") + DEVICES.do("poll", 0, 4) + DEVICES.do("read")
        come = DEVICES.do("connect") + (b"" if first else opened)
        ways = {"reset": DEVICES.do("close", 0, 0, 1),
                "fin": DEVICES.do("shut") + DEVICES.do("poll", 0, 2) + DEVICES.do("close")}  # fmt: skip
        for way, leave in ways.items():
            each = [come + DEVICES.raw(frame[:cut]) + DEVICES.do("poll", 0, 2) + leave + DEVICES.do("poll", 0, 4)
                    for cut in range(len(frame))]  # fmt: skip
            path = folder / f"{name}-{way}"
            path.write_bytes(b"\0" + b"".join(each))
            cuts.append((path, 1 if first else 1 + len(each)))
    return cuts


def test_without_clang(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fuzz.shutil, "which", lambda name: None)
    assert fuzz.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fuzz: clang++: expected to be installed") and error.count("\n") == 1


def test_figures_of_a_log(fuzz: ModuleType) -> None:
    log = """#2	INITED cov: 12 ft: 13 corp: 4/5b exec/s: 0 rss: 30Mb
#512	NEW    cov: 2377 ft: 900 corp: 836/20Kb lim: 88 exec/s: 5 rss: 40Mb L: 9/88 MS: 1 EraseBytes-
stat::number_of_executed_units: 33289
stat::average_exec_per_sec:     545
stat::peak_rss_mb:              555
"""
    assert fuzz.final_stats(log) == {"executions": 33289, "executions_per_s": 545, "peak_mb": 555, "edges": 2377,
                                     "corpus": 836}  # fmt: skip
    assert fuzz.final_stats("")["executions"] == 0
