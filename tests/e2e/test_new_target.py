"""A generation that is not there: one YAML file, and models compile and run on it with the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from tests.e2e.conftest import run_command

IDS = [0, 430, 263, *range(5, 60)]

# What each takes from which generation, and how it differs.
DELTAS = {
    "without-gather": """
extends: v3
doc: Like generation 3, but the host copies embedding rows and finds the largest logit; fewer registers.
capabilities: {add: [], remove: [gather, argmax]}
commands: {remove: [GATHER, ARGMAX]}
limits: {scalar_registers: 20, semaphores: 16}
""",
    "in-two-memories": """
extends: v3
doc: Like generation 3, with activations and tables in DDR.
roles: {activations: ddr, tables: ddr, program: ddr}
""",
    "one-token-a-fetch": """
extends: v3
doc: Like generation 3, but tokens do not share a fetch of the weights.
capabilities: {add: [], remove: [token_batch]}
""",
    "argmax-over-registers": """
extends: v1
doc: Like generation 1, with argmax on the device.
capabilities: {add: [argmax], remove: []}
commands: {add: [ARGMAX]}
""",
}


@pytest.fixture(scope="module")
def expected(stories: Path) -> bytes:
    with open_session(Artifact.open(stories)) as session:
        return session.prefill(IDS, logits_all=True).logits.tobytes() + session.step([9], 1).logits.tobytes()


@pytest.mark.parametrize("delta", DELTAS)
def test_one_file_makes_a_target(
    delta: str, expected: bytes, repository: Path, stories_py: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(repository / "targets", tmp_path / "targets", ignore=shutil.ignore_patterns("rtl", "generated"))
    (tmp_path / "targets" / "v4.yaml").write_text(DELTAS[delta])
    monkeypatch.setattr("dlavm.target.spec.data_root", lambda: tmp_path)
    outcome = run_command("build", stories_py, "--target", "v4", "--board", "nano", "-o", tmp_path / "a", "--json")
    assert outcome.code == 0, outcome.err
    artifact = Artifact.open(tmp_path / "a")
    assert artifact.manifest.target == "v4"
    with open_session(artifact) as session:
        got = session.prefill(IDS, logits_all=True).logits.tobytes() + session.step([9], 1).logits.tobytes()
    assert got == expected
