"""Every family three ways: transformers, our float graph, the accelerator's simulator."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.compile import Options
from dlavm.frontend import load_model
from dlavm.verbs.floats import FloatSession, model_session
from tests.e2e import families
from tests.e2e.families import CASES, VOCAB

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TOKENS = 24
PROMPT = [int(token) for token in np.random.default_rng(11).integers(0, VOCAB, 21)]
Checkpoint = Callable[[str], tuple[Path, Any]]
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Directory and model of transformers of a case, made once."""

    @cache
    def made(name: str) -> tuple[Path, Any]:
        directory = tmp_path_factory.mktemp(name)
        return directory, families.write(BY_NAME[name], directory)

    return made


def greedy(session: FloatSession) -> tuple[list[int], np.ndarray]:
    """The prompt and the tokens behind it; the logits of all of them but the last."""
    ids, parts = list(PROMPT), [session.logits(PROMPT)]
    for _ in range(TOKENS):
        ids.append(int(parts[-1][-1].argmax()))
        parts.append(session.logits(ids[-1:]))
    return ids, np.concatenate(parts)[:-1]


@pytest.mark.parametrize("name", BY_NAME)
def test_the_float_graph_gives_the_tokens_of_transformers(name: str, checkpoint: Checkpoint) -> None:
    directory, model = checkpoint(name)
    ids, ours = greedy(model_session(load_model(directory), Options(ctx=64, chunk=16)))
    with torch.no_grad():
        theirs = model(torch.tensor([ids[:-1]])).logits[0].numpy()
    largest = float(np.abs(theirs).max())
    assert largest > 1 and ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * largest)
    for row, token in zip(theirs[len(PROMPT) - 1 :], ids[len(PROMPT) :], strict=True):
        top = np.sort(row)[-2:]
        assert int(row.argmax()) == token or top[1] - top[0] < 1e-3
