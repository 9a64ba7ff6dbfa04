"""Conversations with an MXINT8 cache, saved and loaded: by a session, by chat, by the generated server."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.pack.artifact import Artifact
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import open_session
from tests.e2e.conftest import Command, built_server
from tests.e2e.server_tools import Server, alone

PROMPT = [0, *(7 + 31 * i % 4000 for i in range(149))]
ASKED = ("Tell me a story about a dog and a ball.", "What did the cat say?")


@pytest.fixture(scope="module")
def artifact(dlavm: Command, stories_py: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with an MXINT8 cache."""
    path = tmp_path_factory.mktemp("kv") / "stories"
    outcome = dlavm("build", stories_py, "--target", "v3", "--kv", "mxint8", "-o", path)
    assert outcome.code == 0, outcome.err
    return path


@pytest.fixture(scope="module")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = built_server(artifact, tmp_path_factory, "kv-server-build")
    with Server(program, artifact, tmp_path_factory.mktemp("log") / "log") as running:
        yield running


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_state_of_the_server_is_that_of_a_session(artifact: Path, server: Server) -> None:
    """It is half as long as one of an fp16 cache, moves to another connection, and may be any bytes."""
    with open_session(Artifact.open(artifact)) as session, server.client() as giver, server.client() as taker:
        first = alone(session, PROMPT, 10, Sampler(seed=0))
        assert giver.generate(PROMPT, max_tokens=10).tokens == first
        kv_len, state = giver.save()
        assert (kv_len, state) == (session.kv_len, session.save_state())
        dims = [(kv.heads, kv.block_bytes) for kv in session.artifact.manifest.kv]
        assert len(state) == sum(heads * -(-kv_len // 32) * block for heads, block in dims)
        model_id = session.artifact.manifest.model_id
        taker.generate(PROMPT[:70])  # what it had is replaced
        taker.start_load(model_id, kv_len, state, piece=9999)  # odd: rows are cut
        assert taker.expect("ok")["kv_len"] == kv_len
        assert taker.save() == (kv_len, state)
        expected = alone(session, first[-1:], 30, Sampler(seed=0))
        for client in (taker, giver):
            assert client.generate(first[-1:], keep=kv_len, max_tokens=30).tokens == expected
        taker.start_load(model_id, kv_len, state[:-1])
        taker.refused("invalid")
        noise = np.random.default_rng(3).bytes(len(state))
        ids = [*PROMPT, *first[:-1]]
        taker.start_load(model_id, kv_len, noise)
        assert taker.expect("ok")["kv_len"] == kv_len
        session.load_state(ids, noise)
        assert taker.save() == (kv_len, session.save_state())
        assert taker.generate([9], keep=kv_len).tokens == alone(session, [9], 8, Sampler(seed=0))


def test_a_saved_chat_goes_on_anywhere(
    dlavm: Command, artifact: Path, server: Server, typed: Callable[[str], None], tmp_path: Path
) -> None:
    partners: list[tuple[Any, ...]] = [(artifact,), (f"127.0.0.1:{server.port}", "--tokenizer", artifact)]
    for number, partner in enumerate(partners):
        typed(f"{ASKED[0]}\n/save {tmp_path}/{number}.chat\n{ASKED[1]}\n")
        expected = dlavm("chat", *partner, "--max-tokens", 30).out.splitlines()[-1]
        for other in partners:
            typed(f"something else\n/load {tmp_path}/{number}.chat\n{ASKED[1]}\n/stats\n")
            outcome = dlavm("chat", *other, "--max-tokens", 30)
            assert outcome.out.splitlines()[-1] == expected
            assert int(outcome.err.split("last answer: ")[1].split()[0]) < 12  # the cache came with the file
    assert (tmp_path / "0.chat").read_bytes() == (tmp_path / "1.chat").read_bytes()


def test_a_chat_of_another_cache_is_refused(
    dlavm: Command, artifact: Path, stories: Path, typed: Callable[[str], None], tmp_path: Path
) -> None:
    """The bytes of an fp16 cache mean nothing to this one: the model is another one."""
    typed(f"{ASKED[0]}\n/save {tmp_path}/x.chat\n")
    assert dlavm("chat", stories, "--max-tokens", 4).code == 0
    outcome = dlavm("chat", artifact, "--load", tmp_path / "x.chat")
    assert outcome.code == 2 and outcome.err.count("\n") == 1, outcome.err
