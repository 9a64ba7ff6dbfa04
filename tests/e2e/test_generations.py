"""One model source on three generations: every logit and every cached byte is the same, rolled or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import Session, open_session
from tests.e2e.conftest import run_command

IDS = [0, 430, 263, *range(5, 24)]
CONTROLS = {"v1": "registers", "v2": "patches", "v3": "scalars"}


def built(model: Path, out: Path, *options: object) -> Artifact:
    outcome = run_command("build", model, *options, "-o", out, "--json")
    assert outcome.code == 0, outcome.err
    return Artifact.open(out)


def conversation(session: Session) -> list[bytes]:
    """Logits of a prompt in pieces, of each of its tokens, of tokens one by one, and the cache in the end."""
    parts = [session.prefill(IDS[:5], logits_all=True), session.prefill(IDS[5:])]
    parts += [session.step([int(parts[-1].next_ids[-1])], 1) for _ in range(3)]
    session.rewind(9)
    parts += [session.prefill(IDS[2:20]), session.step([7], 1)]
    assert all(np.array_equal(part.next_ids, part.logits.argmax(axis=1)) for part in parts)
    return [*(part.logits.tobytes() for part in parts), session.save_state()]


@pytest.fixture(scope="module")
def expected(stories: Path) -> list[bytes]:
    with open_session(Artifact.open(stories)) as session:
        return conversation(session)


@pytest.mark.parametrize("options", [(), ("--unroll",), ("--board", "nano")], ids=["rolled", "unrolled", "nano"])
@pytest.mark.parametrize("target", CONTROLS)
def test_the_same_bits(
    target: str, options: tuple[str, ...], expected: list[bytes], stories_py: Path, tmp_path: Path
) -> None:
    artifact = built(stories_py, tmp_path / "a", "--target", target, *options)
    assert artifact.manifest.programs["step"].control == CONTROLS[target]
    with open_session(artifact) as session:
        assert conversation(session) == expected


@pytest.mark.parametrize("target", CONTROLS)
def test_the_reference_agrees(target: str, expected: list[bytes], stories_py: Path, tmp_path: Path) -> None:
    artifact = built(stories_py, tmp_path / "a", "--target", target, "--board", "nano", "--ctx", "64")
    with open_session(artifact, "reference") as session:
        result = session.prefill(IDS[:5], logits_all=True)
    assert result.logits.tobytes() == expected[0]


@pytest.mark.parametrize("target", CONTROLS)
def test_every_length_from_one_to_the_context(target: str, stories_py: Path, tmp_path: Path) -> None:
    """Around borders of chunks, tiles, cache blocks and the context itself; past it, one clear error."""
    artifact = built(stories_py, tmp_path / "a", "--target", target, "--ctx", "70", "--chunk", "9", "--board", "nano")
    ids = [(7 * i) % 4096 for i in range(70)]
    with open_session(artifact) as session:
        whole = session.prefill(ids, logits_all=True).logits
        for length in (1, 2, 8, 9, 10, 31, 32, 33, 63, 64, 65, 69, 70):
            session.reset()
            logits = session.prefill(ids[:length]).logits
            assert np.array_equal(logits[0].view(np.uint16), whole[length - 1].view(np.uint16)), length
        with pytest.raises(Exception, match="expected at most 0 tokens"):
            session.step([1], 1)


@pytest.mark.parametrize(("ctx", "chunk"), [(9, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("target", CONTROLS)
def test_arguments_that_can_have_one_value(
    target: str, ctx: int, chunk: int, stories: Path, stories_py: Path, tmp_path: Path
) -> None:
    """They are constants of the program: `token` in steps of one token, `kv_len` too in a context of one position."""
    options = ("--target", target, "--board", "nano", "--ctx", str(ctx), "--chunk", str(chunk))
    artifact = built(stories_py, tmp_path / "a", *options)
    ids = IDS[:ctx]
    with open_session(Artifact.open(stories)) as session:
        wanted = session.prefill(ids, logits_all=True).logits.tobytes()
    with open_session(artifact) as session:
        assert session.prefill(ids, logits_all=True).logits.tobytes() == wanted
        with pytest.raises(Exception, match="expected at most 0 tokens"):
            session.step([1], 1)


@pytest.mark.parametrize("prompts", [
    pytest.param(("--prompts", "1,13"), id="short"), pytest.param((), id="all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", ["v1", "v2"])
def test_verify(target: str, prompts: tuple[str, ...], stories_py: Path, tmp_path: Path) -> None:
    """Every byte between reference and simulator, and against the float model of the numbers in the artifact. The short
    prompt fills two chunks and a part of a third; it runs whole and cut."""
    built(stories_py, tmp_path / "a", "--target", target, "--board", "nano", "--ctx", "48", "--chunk", "6")
    outcome = run_command("verify", tmp_path / "a", "--tokens", "3", *prompts, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["ok"] and outcome.json["mismatches"] == 0 and outcome.json["max_logit_error"] < 0.1


def test_a_damaged_patch_table_is_named(stories_py: Path, tmp_path: Path) -> None:
    artifact = built(stories_py, tmp_path / "a", "--target", "v2")
    path = artifact.file(artifact.manifest.programs["decode"].patches)
    good = path.read_text()
    for bad in ("[", '[["kv_len"]]', '[["kv_len", ["x"]]]', '[["kv_len", [99999999]]]', '[["later", [3]]]'):
        path.write_text(bad)
        with pytest.raises(Exception, match="patches|later") as problem:
            open_session(artifact)
        assert "\n" not in str(problem.value)
    path.write_text(good)
    open_session(artifact).close()
