"""Several sequences on one device, and their caches as bytes: nothing of one reaches another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlavm.pack.artifact import Artifact
from dlavm.runtime.engine import open_engine
from dlavm.runtime.session import Session, open_session
from dlavm.support.errors import DlavmError
from tests.e2e.conftest import run_command

PROMPTS = [list(range(3, 40)), [430, 263], list(range(100, 164))]


@pytest.fixture(scope="module")
def artifact(stories: Path) -> Artifact:
    return Artifact.open(stories)


def greedy(session: Session, ids: list[int], count: int) -> list[int]:
    tokens = [int(session.prefill(ids).next_ids[-1])]
    while len(tokens) < count:
        tokens.append(int(session.step(tokens[-1:], 1).next_ids[-1]))
    return tokens


def test_sequences_that_take_turns(artifact: Artifact) -> None:
    """The first, the second and the last place of the memory, one token each in turn, as each alone."""
    alone = []
    for prompt in PROMPTS:
        with open_session(artifact) as session:
            alone.append(greedy(session, prompt, 6))
    places = (0, 1, artifact.manifest.sequences.count - 1)
    with open_engine("sim", artifact) as device:
        sessions = [Session(artifact, device, place) for place in places]
        answers = [greedy(s, prompt, 1) for s, prompt in zip(sessions, PROMPTS, strict=True)]
        for _ in range(5):
            for session, answer in zip(sessions, answers, strict=True):
                answer.append(int(session.step(answer[-1:], 1).next_ids[-1]))
    assert answers == alone


def test_a_state_goes_on_elsewhere(artifact: Artifact) -> None:
    """Saved, loaded at another place behind other tokens, the next logits are the same bits; so is the state."""
    with open_session(artifact) as session:
        session.prefill([7] * 90)
        session.rewind(90)
        session.prefill(PROMPTS[0])
        state, ids = session.save_state(), session.ids
        assert len(state) == session.state_bytes(len(ids))
        expected = session.step([9], 1).logits
        other = Session(artifact, session.device, 5)
        other.prefill([8] * 70)
        other.load_state(ids, state)
        assert other.save_state() == state
        np.testing.assert_array_equal(other.step([9], 1).logits.view(np.uint16), expected.view(np.uint16))
        assert session.state_bytes(0) == 0
        other.load_state([], b"")
        assert (other.kv_len, other.save_state()) == (0, b"")


def test_states_that_cannot_be(artifact: Artifact) -> None:
    with open_session(artifact) as session:
        session.prefill([5, 6])
        good = session.save_state()
        bad = [
            ([5], good[:-2], "expected [0-9]+ bytes for 1 tokens, got"),
            ([5], good + bytes(2), "bytes for 1 tokens"),
            ([5] * 40, good, "bytes for 40 tokens"),
            ([-1], good, "token 0: expected an id"),
            ([5], b"\x00\x7c" + good[2:], "finite"),
            ([5] * 2000, good, "expected at most"),
        ]
        for ids, state, message in bad:
            with pytest.raises(DlavmError, match=message):
                session.load_state(ids, state)
        assert session.ids == (5, 6)
    count = artifact.manifest.sequences.count
    for place in (-1, count):
        with open_engine("sim", artifact) as device, pytest.raises(DlavmError, match=f"expected 0..{count - 1}, got"):
            Session(artifact, device, place)


def test_layers_written_out_give_the_same_bits(artifact: Artifact, stories_py: Path, tmp_path: Path) -> None:
    outcome = run_command("build", stories_py, "--target", "v3", "--unroll", "-o", tmp_path / "unrolled", "--json")
    assert outcome.code == 0, outcome.err
    unrolled = Artifact.open(tmp_path / "unrolled")
    words = [a.manifest.programs["step"].words for a in (artifact, unrolled)]
    assert 3 * words[0] < words[1]
    results = []
    for one in (artifact, unrolled):
        with open_session(one) as session:
            logits = [session.prefill(PROMPTS[2], logits_all=True).logits, session.step([9], 1).logits]
            results.append((*(x.tobytes() for x in logits), session.save_state()))
    assert results[0] == results[1]
