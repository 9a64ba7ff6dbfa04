"""The bundled model on the Verilated core: after each step all memory and the logits equal the simulator's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dlavm.pack.artifact import Artifact
from dlavm.rtl import build
from dlavm.support.paths import data_root
from dlavm.verbs.lockstep import Lockstep
from tests.e2e.conftest import run_command

missing = build.missing_tools(("verilator",))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing is not None, reason=str(missing))]

PROMPT, STEPS = (1, 403, 407, 261, 300), 3


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("stories") / "nano"
    model = data_root() / "models" / "stories.py"
    outcome = run_command("build", model, "--target", "v3", "--board", "nano", "--ctx", "128", "-o", out)
    assert outcome.code == 0, outcome.err
    return Artifact.open(out)


def test_prefill_and_decode(artifact: Artifact) -> None:
    ids = list(PROMPT)
    with Lockstep(artifact, ["sim", "rtl"]) as lockstep:
        for _ in range(1 + STEPS):
            result = lockstep.step("rtl", ids)
            ids = [int(np.argmax(result.logits[-1].astype(np.float32)))]
        assert lockstep.problems == []
        sim, rtl = (session.device for session in lockstep.sessions)
        assert rtl.counters().cycles > 0
        want, got = sim.counters(), rtl.counters()
        assert (got.commands, got.bytes_read, got.bytes_written) == (want.commands, want.bytes_read, want.bytes_written)
        for memory in artifact.target.board.memories.values():
            for at in range(memory.base, memory.base + memory.capacity, 1 << 24):
                assert sim.mem_read(at, 1 << 24) == rtl.mem_read(at, 1 << 24), f"bytes from 0x{at:x} on"


def test_run_tells_what_the_channels_did(artifact: Artifact) -> None:
    """`run --json`: cycles of every channel add up, weights come over the two of hbm in equal parts."""
    prompt = ("--prompt-ids", "1,403", "--max-tokens", "2")
    outcome = run_command("run", artifact.path, "--engine", "rtl", *prompt, "--json")
    assert outcome.code == 0, outcome.err
    step = json.loads(outcome.out)["last_step"]
    first, second, third = step["channels"]
    for channel in step["channels"]:
        assert channel["busy"] + channel["stalled"] + channel["idle"] == step["cycles"]
    assert first["read"] == second["read"] > 2_000_000 and third["read"] == 0
    assert step["engines"]["load"] == 0 < step["engines"]["store"] < step["engines"]["matrix"] < step["cycles"]


def test_bench_tells_the_board_s_speed_however_the_core_is_named(artifact: Artifact) -> None:
    url = run_command("core", artifact.path).out.strip()
    for engine in ("rtl", url):
        outcome = run_command("bench", artifact.path, "--engine", engine, "-p", 0, "-n", 1, "-o", "json")
        (row,) = outcome.json["rows"]
        assert row["tok_s"] == pytest.approx(1e8 / row["cycles"]), engine
