"""The bundled model on devices elsewhere: the same tokens by every transport; servers and clients that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from dlavm.sim.device import DeviceError
from dlavm.sim.native import NativeDevice
from dlavm.target.spec import load_target
from tests.unit.fake_board import FakeBoard
from tests.unit.native_helpers import nano, run, start
from tests.unit.transport_helpers import endless, open_soon

Command = Callable[..., Any]
PROMPT = [0, 430, 263, *range(5, 25)]
PATIENCE_S = 60  # of a test, on a machine that others use too
SPEC = nano()


@pytest.fixture(scope="module")
def small(stories_py: Path, tmp_path_factory: pytest.TempPathFactory, dlavm: Command) -> Artifact:
    """The bundled model for nano, with a short context."""
    path = tmp_path_factory.mktemp("transports") / "small"
    outcome = dlavm("build", stories_py, "--target", "v3", "--board", "nano", "--ctx", 64, "--chunk", 8, "-o", path)
    assert outcome.code == 0, outcome.err
    return Artifact.open(path)


@pytest.fixture(scope="module")
def expected(small: Artifact) -> list[int]:
    return greedy(small, "sim", 12)


def greedy(artifact: Artifact, engine: str, count: int) -> list[int]:
    with open_session(artifact, engine) as session:
        ids = [int(session.prefill(PROMPT).next_ids[0])]
        while len(ids) < count:
            ids.append(int(session.step(ids[-1:], 1).next_ids[0]))
        return ids


@contextmanager
def device_server(*options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`dlavm device-server` at a free port: the process and the URL of its clients."""
    command = [sys.executable, "-m", "dlavm", "device-server", "--listen", "127.0.0.1:0", "--json", *map(str, options)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            report = ""
            while not report.rstrip().endswith("}"):
                report += process.stdout.readline() or pytest.fail(f"device-server: {report!r}")
            yield process, f"tcp:127.0.0.1:{json.loads(report)['port']}"
        finally:
            process.kill()


def test_the_same_tokens_by_xdma(small: Artifact, expected: list[int], tmp_path: Path) -> None:
    with FakeBoard(tmp_path, small.target, reach=7 << 20) as board:
        assert greedy(small, board.url, 4) == expected[:4]


def test_the_same_tokens_by_tcp(small: Artifact, expected: list[int], dlavm: Command) -> None:
    with device_server() as (_, url):
        assert greedy(small, url, len(expected)) == expected
        open_soon(SPEC, url).close()
        outcome = dlavm("run", small.path, "--engine", url, "--prompt-ids", ",".join(map(str, PROMPT)), "--max-tokens",
                        len(expected), "--greedy", "--ignore-eos", "--threads", 1, "--json")  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert outcome.json["tokens"] == expected
        assert outcome.json["engine"] == url


def test_engines_elsewhere_are_verified(small: Artifact, dlavm: Command) -> None:
    with device_server() as (_, url):
        engines = ("--engines", f"sim,{url}")
        outcome = dlavm("verify", small.path, *engines, "--no-float", "--prompts", "1,9", "--tokens", 2)
        assert outcome.code == 0, outcome.out + outcome.err


def test_unknown_engines(small: Artifact, dlavm: Command) -> None:
    outcome = dlavm("run", small.path, "--engine", "usb:1", "--prompt-ids", "1")
    assert outcome.code == 2
    assert "one of sim, timed, reference, rtl, rtl:/path/libdlavm_rtl.so, tcp:HOST:PORT, xdma:/dev/xdma0" in outcome.err
    outcome = dlavm("run", small.path, "--engine", "xdma:/nonexistent/card", "--prompt-ids", "1")
    assert outcome.code == 2 and "/nonexistent/card_h2c_0: No such file" in outcome.err


def test_a_server_killed_in_a_run() -> None:
    with device_server() as (process, url), NativeDevice(SPEC, url) as device:
        start(device, SPEC, endless(SPEC))
        errors: list[str] = []

        def until_killed() -> None:
            with pytest.raises(DeviceError) as caught:
                device.run()
            errors.append(str(caught.value))

        runner = threading.Thread(target=until_killed)
        runner.start()
        process.send_signal(signal.SIGKILL)
        runner.join(PATIENCE_S)
        assert errors and f"{url}: the connection is lost" in errors[0]
        with pytest.raises(DeviceError) as caught:
            device.csr_read(0)
        assert str(caught.value) == errors[0]


CLIENT = """
import sys
from dlavm.sim.native import NativeDevice
from tests.e2e.test_transports import SPEC, endless, start
device = NativeDevice(SPEC, sys.argv[1])
start(device, SPEC, endless(SPEC))
print("running", flush=True)
device.run()
"""


def test_a_client_killed_in_a_run(repository: Path) -> None:
    with device_server() as (_, url):
        command = [sys.executable, "-c", CLIENT, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "running\n"
            with pytest.raises(DeviceError, match="busy"):
                NativeDevice(SPEC, url)
            client.kill()
        with open_soon(SPEC, url) as device:
            assert run(device, SPEC, []) == 1


class TestVerb:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signals_end_it_well(self, number: signal.Signals) -> None:
        with device_server() as (process, url), NativeDevice(SPEC, url) as device:
            start(device, SPEC, endless(SPEC))
            runner = threading.Thread(target=lambda: pytest.raises(DeviceError, device.run))
            runner.start()
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == 0
            runner.join(PATIENCE_S)
            assert process.stderr is not None
            assert "opened sim:" in process.stderr.read()

    def test_secret_and_limits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        secret = tmp_path / "secret"
        secret.write_text("swordfish")
        with device_server("--secret-file", secret, "--max-memory", 1) as (_, url):
            with pytest.raises(DeviceError, match="secret"):
                NativeDevice(SPEC, url)
            monkeypatch.setenv("DLAVM_DEVICE_SECRET_FILE", str(secret))
            NativeDevice(SPEC, url).close()
            with pytest.raises(DeviceError, match="at most 1073741824 bytes"):
                NativeDevice(load_target("v3", "vcu128"), url)

    def test_one_line_when_ready(self) -> None:
        command = [sys.executable, "-m", "dlavm", "device-server", "--listen", "0.0.0.0:0"]
        pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line.startswith("sim: at 0.0.0.0:") and int(line.rpartition(":")[2]) > 0
            assert "no --secret-file" in process.stderr.readline()
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            assert process.stdout.read() == ""

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            (["--listen", "nowhere"], "expected HOST:PORT"),
            (["--listen", "127.0.0.1:http"], "expected HOST:PORT"),
            (["--device", "gpu:"], "sim:, timed:, rtl:, tcp:, xdma:"),
            (["--secret-file", "/nonexistent"], "/nonexistent"),
            (["--max-memory", "0"], "'0'"),
        ],
    )
    def test_bad_usage(self, options: list[str], word: str, dlavm: Command) -> None:
        outcome = dlavm("device-server", *options)
        assert outcome.code == 2 and outcome.err.count("\n") == 1 and word in outcome.err
