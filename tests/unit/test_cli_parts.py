"""The parts of verbs that work without an engine."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dlavm.support.errors import DlavmError
from dlavm.verbs.bench import markdown
from dlavm.verbs.check import grouped
from dlavm.verbs.common import size, table
from dlavm.verbs.perplexity import documents, perplexity
from dlavm.verbs.verify import PPL_TOLERANCE, Agreement, _chunkings, _finite, summary, within


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\n<|endoftext|>\nc\n\nd\n", ["a\nb", "c\n\nd"]),
        ("a\nb\n\nc\n", ["a\nb", "c"]),
        ("a\nb\n", ["a", "b"]),
        ("one", ["one"]),
        (" \n\n", []),
    ],
)
def test_documents(text: str, expected: list[str]) -> None:
    assert documents(text) == expected


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    def logits(ids: list[int]) -> np.ndarray:
        return np.full((len(ids), 50), 7, np.float16)

    assert math.isclose(perplexity("x", [[0, 1, 2], [3, 4]], logits), 50, rel_tol=1e-12)


def test_perplexity_counts_tokens_not_documents() -> None:
    def logits(ids: list[int]) -> np.ndarray:
        rows = np.zeros((len(ids), 4))
        if len(ids) == 1:
            rows[:, 3] = math.log(5)  # probability 5/8
        return rows

    expected = math.exp((2 * math.log(4) + math.log(8 / 5)) / 3)
    assert math.isclose(perplexity("x", [[0, 1, 2], [0, 3]], logits), expected, rel_tol=1e-12)


def test_agreement() -> None:
    agreement = Agreement()
    wanted = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
    agreement.add(np.array([[1, 2, 3], [3, 4, 1]], np.float16), wanted)
    assert (agreement.positions, agreement.agreeing, agreement.max_logit_error) == (2, 1, 2.0)


@pytest.mark.parametrize(
    ("engine", "is_good"),
    [([10.0, 0.5], True), ([10.0, 0.51], False), ([math.nan, 0.0], False), ([math.inf, 0.0], False)],
)
def test_agreement_is_held_to_a_share_of_the_largest_logit(engine: list[float], is_good: bool) -> None:
    agreement = Agreement()
    agreement.add(np.array([engine], np.float16), np.array([[10, 0]], np.float32))
    assert (agreement.problem == "") == is_good
    assert is_good or "0.5 of the float model, got an error of" in agreement.problem


def test_agreement_with_a_float_model_that_is_not_finite() -> None:
    agreement = Agreement()
    agreement.add(np.array([[1, 2]], np.float16), np.array([[math.inf, 2]], np.float32))
    assert agreement.problem
    assert _finite({"a": agreement.max_logit_error, "b": {"c": math.nan, "d": 1.5}}) == {
        "a": None, "b": {"c": None, "d": 1.5}
    }  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 7, 32, 100])
@pytest.mark.parametrize("chunk", [1, 5, 128])
def test_chunkings_add_up(length: int, chunk: int) -> None:
    for chunks in _chunkings(length, chunk):
        assert sum(chunks) == length
        assert all(1 <= n <= chunk for n in chunks)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (8 << 30, "8.00 GiB"), (3 << 50, "3072.00 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_table_and_markdown() -> None:
    assert table(("a", "bb"), [("x", 10), ("yyy", 5)], right=(1,)) == "a    bb\n---  --\nx    10\nyyy   5"
    columns = ("tok_s", "tok_s_min", "tok_s_max", "ttft_s", "bytes_per_token", "cycles", "clock_mhz", "memory_share",
               "matrix_share", "control_share")  # fmt: skip
    row = {"test": "tg4", "engine": "sim", **dict.fromkeys(columns), "tok_s": 12.345}
    assert markdown([row]) == "| test | engine | tok_s |\n| ---- | ------ | ----- |\n| tg4  | sim    | 12.35 |"


def test_problems_of_one_kind_share_a_line() -> None:
    problems = [{"where": f"layer {i}", "what": "no", "hint": "h"} for i in range(5)]
    problems.append({"where": "x", "what": "else", "hint": ""})
    assert grouped(problems) == ["layer 0, layer 1, layer 2 and 2 more places: no (h)", "x: else"]


def test_sampling_contradiction(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from argparse import Namespace

    from dlavm.verbs.common import sampling_of

    with pytest.raises(DlavmError, match="--greedy"):
        sampling_of(Namespace(greedy=True, temperature=0.5, top_k=None, top_p=None, seed=0))


@pytest.mark.parametrize(("apart", "good"), [(0.9, True), (-0.9, True), (1.1, False), (-1.1, False)])
def test_a_perplexity_that_is_off_is_said_to_be(apart: float, good: bool) -> None:
    ppl = {"float": None, "quantised": 4.0, "engine": 4.0, "tokens": 100, "documents": 1,
           "engine_vs_quantised": apart * PPL_TOLERANCE}  # fmt: skip
    report = {"engines": ["sim"], "steps": 1, "bytes_compared": 1, "mismatches": 0, "problems": [], "positions": 0,
              "ok": good, "ppl": ppl}  # fmt: skip
    assert within(ppl) is good
    assert ("the engine expected within 0.1 %" in summary(report, 1.0)) is not good
