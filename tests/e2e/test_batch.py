"""Several sequences in one step: one fetch of the weights, and each gets the bits that it gets alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dlavm.pack.artifact import Artifact
from dlavm.runtime.batch import Batch
from dlavm.runtime.engine import open_engine
from dlavm.runtime.session import Session, open_session
from dlavm.support.errors import DlavmError
from tests.e2e.conftest import run_command

PROMPTS = [list(range(5 + 7 * i, 6 + 7 * i + length)) for i, length in enumerate((34, 1, 63, 31, 32, 2, 90, 5))]
STEPS = 4


@pytest.fixture(scope="module")
def artifact(stories_py: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("batch") / "nano"
    outcome = run_command("build", stories_py, "--target", "v3", "--board", "nano", "--ctx", "128", "-o", out)
    assert outcome.code == 0, outcome.err
    return Artifact.open(out)


@pytest.fixture(scope="module")
def alone(artifact: Artifact) -> list[list[bytes]]:
    """Logits and cache of each sequence on a device of its own."""
    found = []
    for prompt in PROMPTS:
        with open_session(artifact) as session:
            token = int(session.prefill(prompt).next_ids[-1])
            logits = []
            for _ in range(STEPS):
                result = session.step([token], 1)
                token = int(result.next_ids[-1])
                logits.append(result.logits.tobytes())
            found.append([*logits, session.save_state()])
    return found


def together(sessions: Sequence[Session], steps: int = STEPS) -> tuple[list[list[bytes]], int]:
    """The same in one batch, and the bytes that its last step read."""
    tokens = {s.sequence: int(s.prefill(p).next_ids[-1]) for s, p in zip(sessions, PROMPTS, strict=False)}
    batch, found, read = Batch(sessions), [list[bytes]() for _ in sessions], 0
    for _ in range(steps):
        result = batch.step(tokens)
        tokens = dict(zip(tokens, map(int, result.next_ids), strict=True))
        read = result.counters.bytes_read
        for row, logits in zip(found, result.logits, strict=True):
            row.append(logits.tobytes())
    for row, session in zip(found, sessions, strict=True):
        row.append(session.save_state())
    return found, read


@pytest.mark.parametrize("count", range(1, 9))
def test_each_gets_what_it_gets_alone(count: int, artifact: Artifact, alone: list[list[bytes]]) -> None:
    with open_engine("sim", artifact) as device:
        found, _ = together([Session(artifact, device, 2 * i + 1) for i in range(count)])
    assert found == alone[:count]


def test_on_the_reference(artifact: Artifact, alone: list[list[bytes]]) -> None:
    with open_engine("reference", artifact) as device:
        found, _ = together([Session(artifact, device, i) for i in range(2)], 1)
    assert [row[0] for row in found] == [row[0] for row in alone[:2]]


def test_weights_are_fetched_once(artifact: Artifact) -> None:
    reads = []
    for count in (1, 8):
        with open_engine("sim", artifact) as device:
            reads.append(together([Session(artifact, device, i) for i in range(count)])[1])
    weights = artifact.manifest.memory.weights_bytes
    assert reads[0] > 0.7 * weights  # of the embedding only a row
    assert reads[1] < reads[0] + 0.5 * weights  # activations and caches of seven more


def test_single_steps_in_between(artifact: Artifact, alone: list[list[bytes]]) -> None:
    """Batch and single steps in turns, on one device."""
    with open_engine("sim", artifact) as device:
        sessions = [Session(artifact, device, i) for i in range(3)]
        tokens = {s.sequence: int(s.prefill(p).next_ids[-1]) for s, p in zip(sessions, PROMPTS, strict=False)}
        batch = Batch(sessions)
        for step in range(STEPS):
            if step % 2:
                results = [session.step([tokens[session.sequence]], 1) for session in sessions]
                logits = [result.logits.tobytes() for result in results]
                following = [int(result.next_ids[0]) for result in results]
            else:
                result = batch.step(tokens)
                logits = [row.tobytes() for row in result.logits]
                following = [int(token) for token in result.next_ids]
            assert logits == [alone[i][step] for i in range(3)]
            tokens = dict(zip(tokens, following, strict=True))


def test_what_cannot_be(artifact: Artifact, stories_py: Path, tmp_path: Path) -> None:
    with open_engine("sim", artifact) as device:
        sessions = [Session(artifact, device, i) for i in range(2)]
        batch = Batch(sessions)
        for tokens, message in (
            ({}, "expected 1..8 of the sequences"),
            ({5: 1}, r"expected 1..8 of the sequences \[0, 1\], got \[5\]"),
            ({0: 1, 1: 9999}, "token 0: expected an id in"),
        ):
            with pytest.raises(DlavmError, match=message):
                batch.step(tokens)
        sessions[0].prefill([3] * 128)
        with pytest.raises(DlavmError, match="at most 0 tokens"):
            batch.step({0: 1, 1: 1})
        assert (sessions[0].kv_len, sessions[1].kv_len) == (128, 0)
        with pytest.raises(DlavmError, match="each with a sequence of its own"):
            Batch([sessions[0], Session(artifact, device, 0)])
    outcome = run_command("build", stories_py, "--target", "v1", "--board", "nano", "-o", tmp_path / "v1")
    assert outcome.code == 0, outcome.err
    with open_session(Artifact.open(tmp_path / "v1")) as session, pytest.raises(DlavmError, match="an entry 'batch'"):
        Batch([session])
