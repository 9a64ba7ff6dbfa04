"""run, chat and bench with the bundled model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dlavm.runtime.session import Session, StepResult

Command = Callable[..., Any]
PROMPT = "Tell me a story about a dog and a ball."


def test_a_story_streams_and_a_summary_follows(dlavm: Command, stories: Path) -> None:
    outcome = dlavm("run", stories, "--prompt", PROMPT, "--greedy", "--max-tokens", 24)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("Once upon a time, there was a big dog named Max.")
    assert outcome.out.endswith("\n")
    assert outcome.err.count("\n") == 1
    assert all(word in outcome.err for word in ("sim", "14 prompt tokens", "24 tokens", "tok/s", "MB", "length"))


def test_json_keys(dlavm: Command, stories: Path) -> None:
    outcome = dlavm("run", stories, "--prompt", PROMPT, "--max-tokens", 4, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.json
    assert set(report) >= {"tokens", "text", "prompt_tokens", "ttft_s", "decode_tok_s", "engine", "stop_reason"}
    assert len(report["tokens"]) == 4
    assert (report["prompt_tokens"], report["engine"], report["stop_reason"]) == (14, "sim", "length")


def test_sampling_depends_on_the_seed_alone(dlavm: Command, stories: Path) -> None:
    def text(*more: object) -> str:
        options = ("--temperature", 1.2, "--top-p", 0.95, "--top-k", 50, "--max-tokens", 12)
        return str(dlavm("run", stories, "--prompt", PROMPT, *options, *more, "--json").json["text"])

    assert text() == text() == text("--seed", 0)
    assert text("--seed", 1) != text("--seed", 2)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_interrupt_keeps_what_was_said(
    form: tuple[str, ...], dlavm: Command, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def step(self: Session, ids: Sequence[int], head_rows: int) -> StepResult:
        steps.append(len(ids))
        if len(steps) == 5:
            raise KeyboardInterrupt
        return original(self, ids, head_rows)

    original = Session.step
    monkeypatch.setattr(Session, "step", step)
    outcome = dlavm("run", stories, "--prompt", PROMPT, "--greedy", *form)
    assert outcome.code == 130
    if form:
        assert (outcome.json["text"], outcome.json["stop_reason"]) == ("Once upon a time", "cancelled")
    else:
        assert outcome.out == "Once upon a time\n"
        assert "cancelled" in outcome.err


def test_both_engines_say_the_same(dlavm: Command, stories: Path) -> None:
    arguments = ("run", stories, "--prompt", "Once upon a time", "--raw", "--greedy", "--max-tokens", 6, "--json")
    reference = dlavm(*arguments, "--engine", "reference").json
    assert reference["tokens"] == dlavm(*arguments).json["tokens"]
    assert reference["prompt_tokens"] == 5


def test_stop_strings_and_eos(dlavm: Command, stories: Path) -> None:
    arguments = ("run", stories, "--prompt", PROMPT, "--greedy", "--json")
    report = dlavm(*arguments, "--stop", "Max", "--stop", "nothing like this").json
    assert (report["stop_reason"], report["text"]) == ("stop", "Once upon a time, there was a big dog named ")
    after_story = ("run", stories, "--prompt-ids", "0,2,1762,3,1", "--greedy", "--max-tokens", 3, "--json")
    assert dlavm(*after_story, "--ignore-eos").json["stop_reason"] == "length"


def test_float_of_an_artifact_and_of_a_model(dlavm: Command, stories: Path, stories_py: Path) -> None:
    options = ("--engine", "reference", "--float", "--prompt", PROMPT, "--greedy", "--max-tokens", 12, "--json")
    quantised = dlavm("run", stories, *options).json
    assert quantised["text"].startswith("Once upon a time, there was a big dog named Max")
    original = dlavm("run", stories_py, *options).json
    assert original["text"].startswith("Once upon a time, there was a dog named Max")
    golden = json.loads((stories_py.parent / "stories" / "golden_greedy.json").read_text())["cases"][0]
    assert golden["text"] == PROMPT
    assert original["tokens"] == golden["greedy_ids"][:12]


def test_golden_text_of_another_checkpoint(dlavm: Command, shared: Path) -> None:
    folder = shared / "models" / "stories260K"
    golden = json.loads((folder / "golden_greedy.json").read_text())
    tokens = len(golden["ids"]) - 1
    outcome = dlavm("run", folder, "--engine", "reference", "--float", "--prompt-ids", 1, "--greedy", "--ignore-eos",
                    "--max-tokens", tokens, "--json")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert [1, *outcome.json["tokens"]] == golden["ids"]


def test_bench_rows(dlavm: Command, stories: Path) -> None:
    keys = {"test", "engine", "tok_s", "tok_s_min", "tok_s_max", "cycles", "clock_mhz", "memory_share", "matrix_share",
            "control_share"}  # fmt: skip
    rows = dlavm("bench", stories, "-p", 16, "-n", 4, "-d", 8, "--repeat", 2, "-o", "json").json["rows"]
    assert [row["test"] for row in rows] == ["pp16 @ d8", "tg4 @ d8"]
    for row in rows:
        assert set(row) >= keys
        assert row["tok_s_min"] <= row["tok_s"] <= row["tok_s_max"]
        assert (row["engine"], row["cycles"], row["memory_share"]) == ("sim", None, None)
    assert rows[1]["bytes_per_token"] > rows[0]["bytes_per_token"] > 0


@pytest.mark.parametrize(("form", "first"), [("md", "| test "), ("csv", "test,engine,tok_s,")])
def test_bench_forms(form: str, first: str, dlavm: Command, stories: Path) -> None:
    out = dlavm("bench", stories, "-p", 0, "-n", 2, "--repeat", 1, "-o", form).out
    assert out.startswith(first)
    assert "tg2" in out
    assert "pp" not in out


def test_chat_over_a_pipe(dlavm: Command, stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PROMPT}\n/stats\n"))
    outcome = dlavm("chat", stories, "--greedy", "--max-tokens", 12)
    assert outcome.code == 0
    assert outcome.out.startswith("Once upon a time, there was a big dog named Max")
    assert "tokens in, 12 out" in outcome.err
    assert "MB each" in outcome.err


def test_stats_leave_out_what_the_reference_does_not_count(
    dlavm: Command, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n/stats\n"))
    outcome = dlavm("chat", stories, "--engine", "reference", "--greedy", "--max-tokens", 2)
    assert "2 out" in outcome.err and "tok/s" in outcome.err
    assert "MB" not in outcome.err
