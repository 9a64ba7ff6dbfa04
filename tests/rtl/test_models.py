"""Small models on the Verilated core of every generation: after each step all memory and the logits equal the
simulator's. The bundled model is in test_stories.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from dlavm.pack.artifact import Artifact
from dlavm.rtl import build
from dlavm.verbs.lockstep import Lockstep
from tests.e2e.conftest import run_command

missing = build.missing_tools(("verilator",))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing is not None, reason=str(missing))]

PROMPT = (1, 403, 407, 261, 300)
STEPS = 8  # after the prompt
# Two layers of sizes that are no multiples of anything; five layers, 260 thousand parameters.
TINY, SMALL = "llama_tiny", "stories260K"
MODELS: Mapping[str, tuple[str, ...]] = {TINY: ("--weights", "random"), SMALL: ()}


def source(name: str, request: pytest.FixtureRequest) -> str:
    """What `dlavm build` takes. Skips where a model is not there."""
    if name == SMALL:
        path: Path = request.getfixturevalue("shared") / "models" / SMALL
        if not path.is_dir():
            pytest.skip(f"no directory {path}")
        return str(path)
    return f"{request.getfixturevalue('repository')}/models/llama.py:{name}"


@pytest.mark.parametrize("target", ["v1", "v2", "v3"])
@pytest.mark.parametrize("name", MODELS)
def test_prefill_and_decode(name: str, target: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    options = ("--target", target, "--board", "nano", "--ctx", "128", *MODELS[name])
    outcome = run_command("build", source(name, request), *options, "-o", tmp_path / "a")
    assert outcome.code == 0, outcome.err
    artifact = Artifact.open(tmp_path / "a")
    vocabulary = artifact.manifest.model.vocab_size
    ids = [token % vocabulary for token in PROMPT]
    with Lockstep(artifact, ["sim", "rtl"]) as lockstep:
        sim, rtl = (session.device for session in lockstep.sessions)
        for _ in range(1 + STEPS):
            result = lockstep.step("rtl", ids)
            ids = [int(np.argmax(result.logits[-1].astype(np.float32)))]
            want, got = sim.counters(), rtl.counters()
            assert (got.commands, got.bytes_read, got.bytes_written) == \
                (want.commands, want.bytes_read, want.bytes_written)
            assert got.cycles > 0
        assert lockstep.problems == []
        for memory in artifact.target.board.memories.values():
            for at in range(memory.base, memory.base + memory.capacity, 1 << 24):
                assert sim.mem_read(at, 1 << 24) == rtl.mem_read(at, 1 << 24), f"bytes from 0x{at:x} on"
