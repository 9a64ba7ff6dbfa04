"""The bundled model on the Verilated core behind every way in: verbs, both servers; and what goes wrong there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.pack.artifact import Artifact
from dlavm.rtl import build
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import ENTRY, Session, open_session
from dlavm.sim.native import NativeDevice
from dlavm.support.errors import DlavmError
from dlavm.target.isa import Instr, encode
from tests.e2e.conftest import built_server
from tests.e2e.server_tools import Server, alone
from tests.e2e.test_transports import device_server
from tests.unit.fake_board import FakeBoard
from tests.unit.transport_helpers import open_soon

Command = Callable[..., Any]
missing = build.missing_tools(("verilator",))
rtl = pytest.mark.skipif(missing is not None, reason=str(missing))
slow = pytest.mark.slow
PROMPT = [0, 430, 263]
PATIENCE_S = 1200.0  # a step takes seconds, on a busy machine a minute


@pytest.fixture(scope="module")
def small(stories_py: Path, tmp_path_factory: pytest.TempPathFactory, dlavm: Command) -> Artifact:
    """The bundled model for nano, with a short context."""
    path = tmp_path_factory.mktemp("rtl") / "small"
    outcome = dlavm("build", stories_py, "--target", "v3", "--board", "nano", "--ctx", 64, "--chunk", 8, "-o", path)
    assert outcome.code == 0, outcome.err
    return Artifact.open(path)


@pytest.fixture(scope="module")
def url(small: Artifact, dlavm: Command) -> str:
    """What `dlavm core` prints."""
    outcome = dlavm("core", small.path)
    assert outcome.code == 0, outcome.err
    return str(outcome.out.strip())


@pytest.fixture
def session(small: Artifact) -> Iterator[Session]:
    with open_session(small, "rtl") as session:
        yield session


def greedy(artifact: Artifact, count: int) -> list[int]:
    with open_session(artifact, "sim") as session:
        return alone(session, PROMPT, count, Sampler(seed=0))


# -- Verbs ------------------------------------------------------------------------------------------------------------


@slow
@rtl
def test_sixteen_tokens_are_the_simulators(small: Artifact, dlavm: Command) -> None:
    common = ("run", small.path, "--prompt-ids", ",".join(map(str, PROMPT)), "--max-tokens", 16, "--greedy",
              "--ignore-eos", "--json")  # fmt: skip
    reports = [dlavm(*common, "--engine", engine).json for engine in ("sim", "rtl")]
    assert len(reports[0]["tokens"]) == 16 and reports[0]["tokens"] == reports[1]["tokens"]
    assert reports[1]["engine"] == "rtl" and reports[1]["cycles"] > 16 * 100_000 and "cycles" not in reports[0]


@slow
@rtl
def test_verify_compares_every_byte(small: Artifact, dlavm: Command, tmp_path: Path) -> None:
    file = tmp_path / "waves.fst"
    outcome = dlavm("verify", small.path, "--engines", "sim,rtl", "--prompts", "2", "--tokens", 1, "--all-memory",
                    "--no-float", "--trace-waves", file, "--trace-cycles", "1000:1200", "--json")  # fmt: skip
    assert outcome.code == 0, outcome.out
    report = outcome.json
    assert report["engines"] == ["sim", "rtl"]
    memories = sum(m.capacity for m in small.target.board.memories.values())
    assert report["bytes_compared"] > report["steps"] * memories
    assert file.stat().st_size > 1000


@pytest.mark.parametrize("place", ["kv", "outside"])
def test_a_wrong_byte_is_named(place: str, small: Artifact, dlavm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that writes where it should not: in a tensor, and where the artifact has nothing."""
    from dlavm.runtime import engine

    tensor = next(t for t in small.manifest.tensors if t.role == "kv")
    last = max(m.base + m.capacity for m in small.target.board.memories.values())
    address = {"kv": tensor.address + tensor.bytes - 5, "outside": last - 3}[place]

    class Faulty(NativeDevice):
        def run(self, max_commands: int | None = None) -> int:
            self.mem_write(address, b"\xa5")
            return super().run(max_commands)

    monkeypatch.setattr(engine, "ENGINES", {**engine.ENGINES, "faulty": lambda spec, threads: Faulty(spec)})
    arguments = ("verify", small.path, "--engines", "sim,faulty", "--prompts", "1", "--tokens", 1, "--no-float")
    outcome = dlavm(*arguments, "--all-memory", "--json")
    assert outcome.code == 1
    problem = next(p for p in outcome.json["problems"] if "address" in p)
    assert problem["address"] == address and f"0x{address:x}" in problem["what"]
    assert ("nothing of the artifact" in problem["what"]) == (place == "outside")
    if place == "kv":
        assert tensor.name in problem["tensors"] and tensor.name in problem["what"]
    else:
        assert dlavm(*arguments).code == 0  # only --all-memory looks there


# -- Faults by name ---------------------------------------------------------------------------------------------------


def programs(artifact: Artifact) -> dict[str, list[int]]:
    """First commands of a stream, by the error that they end with."""
    spec = artifact.target
    copy = {"src": 0, "dst": 0x1000, "rows_o": 1, "rows_i": 1, "dim": 8}
    eltwise = encode(spec, Instr("ELTWISE", {"fn": 0, "b": 0, **copy}))
    field = spec.commands["ELTWISE"].by_name["fn"]
    eltwise[spec.header_words + field.word] |= (field.limit + 1) << field.lsb
    return {"illegal_opcode": [0x7F], "field_range": eltwise,
            "bad_address": encode(spec, Instr("COPY", {**copy, "src": 0x0FFFFFF0}))}


@rtl
def test_faults_by_name_and_then_a_step_as_any_other(small: Artifact, session: Session) -> None:
    device, manifest = session.device, small.manifest
    with open_session(small, "sim") as sim:
        expected = sim.step(PROMPT, 1)
    program = manifest.programs[manifest.entries[ENTRY].program]
    before = device.mem_read(program.address, 4 * program.words)
    for name, words in programs(small).items():
        device.mem_write(program.address, np.array(words, "<u4"))
        with pytest.raises(DlavmError, match=f"step of 3 tokens at 0: the device stopped: {name}: command at word 0"):
            session.step(PROMPT, 1)
        device.mem_write(program.address, before)
    device.set_option("fault", 3)  # of channel 0: the weights begin there
    with pytest.raises(DlavmError, match="the device stopped: bus: command at word"):
        session.step(PROMPT, 1)
    device.set_option("fault", "none")
    device.set_option("stalls", 1000)
    device.set_option("idle_cycles", 20000)
    with pytest.raises(DlavmError, match="the core hangs: no command and no beat of memory for 20... cycles"):
        session.step(PROMPT, 1)
    device.set_option("stalls", 0)
    result = session.step(PROMPT, 1)
    assert np.array_equal(result.logits.view(np.uint16), expected.logits.view(np.uint16))


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@slow
@rtl
def test_an_interrupted_step_leaves_the_session_usable(small: Artifact, session: Session) -> None:
    device = session.device
    with open_session(small, "sim") as sim:
        expected = sim.step(PROMPT, 1)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        session.step(PROMPT, 1)
    timer.join()
    assert session.kv_len == 0
    assert device.csr_read(small.target.registers["STATUS"].offset) == 0
    result = session.step(PROMPT, 1)
    assert np.array_equal(result.logits.view(np.uint16), expected.logits.view(np.uint16))


@slow
@rtl
def test_ctrl_c_ends_run(small: Artifact, url: str) -> None:
    command = [sys.executable, "-m", "dlavm", "run", str(small.path), "--engine", url, "--prompt-ids", "1,2,3,4,5,6,7",
               "--max-tokens", "50", "--ignore-eos", "--greedy"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)  # the first token: the next step runs
        process.send_signal(signal.SIGINT)
        before = time.monotonic()
        assert process.wait(PATIENCE_S) == 130
        assert time.monotonic() - before < 60


# -- Servers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(small: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_server(small.path, tmp_path_factory, "rtl-server-build")


@slow
@rtl
def test_the_generated_server_on_the_core(small: Artifact, url: str, program: Path, tmp_path: Path) -> None:
    options = ("--device", url, "--option", "latency=20")
    with Server(program, small.path, tmp_path / "log", options) as server, server.client() as client:
        client.socket.settimeout(PATIENCE_S)
        assert client.generate(PROMPT, max_tokens=3).tokens == greedy(small, 3)


@slow
@rtl
def test_the_core_of_another_machine(small: Artifact, url: str) -> None:
    with device_server("--device", url) as (_, place):
        with open_session(small, place) as session:
            assert session.device.info()["engine"] == "rtl"
            assert alone(session, PROMPT, 2, Sampler(seed=0)) == greedy(small, 2)
        with open_soon(small.target, place) as device:  # the server has its device back
            device.set_option("stalls", 1000)
            with pytest.raises(DlavmError, match="a Verilated core has latency"):
                device.set_option("trace", "/tmp/a file of this machine")


@slow
def test_a_server_whose_card_was_reset_goes_on(small: Artifact, program: Path, tmp_path: Path) -> None:
    """A reset forgets which program runs: the next step says so anew."""
    with FakeBoard(tmp_path, small.target, reach=7 << 20) as board:
        options = ("--device", board.url, "--option", "timeout_ms=2000")
        with Server(program, small.path, tmp_path / "log", options) as server, server.client() as client:
            client.socket.settimeout(PATIENCE_S)
            assert client.generate(PROMPT, max_tokens=1).tokens == greedy(small, 1)
            board.hang = True
            client.start(PROMPT)
            assert "did not finish within 2000 ms" in client.refused("device")["text"]
            board.hang, resets = False, board.resets
            board.set("PROGRAM", 0)  # as the reset of a card leaves it
            board.set("PROGRAM_WORDS", 0)
            assert resets >= 1
            assert client.generate(PROMPT, max_tokens=2).tokens == greedy(small, 2)


# -- Bad usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "message"), [
    (["--trace-waves", "w.fst"], "--trace-waves: expected the engine rtl, got 'sim'"),
    (["--trace-waves", "w.fst", "--engine", "tcp:localhost:1"], "expected the engine rtl, got 'tcp:localhost:1'"),
    (["--trace-cycles", "0:5"], "--trace-cycles: expected --trace-waves FILE.fst beside it"),
    (["--trace-waves", "/nonexistent/w.fst", "--engine", "rtl"], "a directory that exists, without '&'"),
    (["--trace-waves", "a&b.fst", "--engine", "rtl"], "a directory that exists, without '&', got 'a&b.fst'"),
    *((["--trace-waves", "w.fst", "--trace-cycles", value], f"expected A:B with A below B, got {value!r}")
      for value in ("5", "5:5", "6:5", "a:b", ":", "1:-4", "0:99999999999999999999")),
])  # fmt: skip
def test_bad_arguments(arguments: list[str], message: str, dlavm: Command, small: Artifact) -> None:
    outcome = dlavm("run", small.path, "--prompt-ids", "1", *arguments)
    assert (outcome.code, outcome.out) == (2, "") and message in outcome.err
    verify = [{"--engine": "--engines"}.get(word, word) for word in arguments]
    outcome = dlavm("verify", small.path, *verify)
    assert (outcome.code, outcome.out) == (2, "")
