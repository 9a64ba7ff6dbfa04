"""The conversation and its line mode on a fake device; the terminal reader on a pipe of key presses."""

from __future__ import annotations

import contextlib
import io
import json
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from dlavm.runtime.backend import LocalBackend
from dlavm.runtime.chat import Conversation, Repl, Script, history, line_reader, prompt_reader, repl, status
from dlavm.runtime.chat.terminal import CommandCompleter
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session
from dlavm.runtime.tokens import Tokenizer
from dlavm.support.errors import DlavmError
from tests.unit.fake_runtime import CTX, FakeDevice, write
from tests.unit.test_tokens import CONFIG, TEMPLATE, byte_level

USER, ASSISTANT, EOS = 2, 3, 1
TOKENIZER = Tokenizer(byte_level(), CONFIG, TEMPLATE)


def parrot(ids: Sequence[int]) -> int:
    """After the assistant's mark: the user's last turn again, then the end token."""
    said = list(ids)
    mark = len(said) - said[::-1].index(ASSISTANT)
    turn = said[len(said) - said[::-1].index(USER) : mark - 1]
    place = len(said) - mark
    return turn[place] if place < len(turn) else EOS


class Desk:
    """A conversation with what it wrote."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer = TOKENIZER, next_of: Callable[[Sequence[int]], int] = parrot,
        max_tokens: int = 50,
    ) -> None:  # fmt: skip
        artifact = write(folder / "a")
        self.device = FakeDevice(artifact, next_of)
        self.session = Session(artifact, self.device)
        self.talk = Conversation(LocalBackend(self.session, "fake"), tokenizer, Sampler(), max_tokens)
        self.out, self.err = io.StringIO(), io.StringIO()

    def say(self, *lines: str) -> str:
        """Everything written as answers to these lines."""
        start = self.out.tell()
        Repl(self.talk, self.out, self.err).run(line_reader(io.StringIO("".join(f"{line}\n" for line in lines))))
        return self.out.getvalue()[start:]

    def script(self, *lines: str) -> tuple[list[dict[str, Any]], bool]:
        """The objects of --json for these lines, and whether all was good."""
        out = io.StringIO()
        is_good = Script(self.talk, out).run(line_reader(io.StringIO("".join(f"{line}\n" for line in lines))))
        return [json.loads(line) for line in out.getvalue().splitlines()], is_good

    @property
    def texts(self) -> list[str]:
        return [text for turn in self.talk.turns for text in (turn.text, turn.answer)]


def test_turns_stay_in_the_cache(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.say("hi", "", "you") == "hi\nyou\n"
    # <s><user>hi<assistant> in one step, then "h" "i" one by one; the end token was sampled, not fed.
    assert desk.device.steps[:3] == [5, 1, 1]
    # The second turn adds </s><user>you<assistant>: 6 tokens.
    assert desk.device.steps[3:] == [6, 1, 1, 1]
    assert desk.texts == ["hi", "hi", "you", "you"]


def test_a_conversation_that_does_not_extend_the_cache_is_prefilled_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.say("hi")
    desk.talk.turns[-1] = replace(desk.talk.turns[-1], answer="no")
    steps = len(desk.device.steps)
    assert desk.say("you") == "you\n"
    assert desk.device.steps[steps] == 5 + 8 - 5  # all after <s><user>hi<assistant>
    assert desk.session.ids[:7] == tuple(TOKENIZER.chat_ids([{"role": "user", "content": "hi"}]) +
                                         TOKENIZER.encode("no", special=False))  # fmt: skip


def test_without_a_template_the_texts_are_one_document(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Tokenizer(byte_level(), CONFIG), lambda ids: 50, max_tokens=2)
    desk.say("hi", "yo")
    assert desk.device.steps == [3, 1, 3, 1]
    assert len(desk.session.ids) == 8


def test_commands(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.say("/stats", "hi", "/stats", "/help", "/set temperature 0.5", "/set seed 3", "/set max_tokens 1", "/set")
    said = desk.err.getvalue()
    assert "context: 0 of 64" in said and "context: 7 of 64" in said
    assert "5 tokens in, 3 out (eos)" in said and "/reset" in said
    assert "temperature 0.5, top_k 0, top_p 1.0, seed 3, max_tokens 1" in said
    desk.say("/reset")
    assert desk.session.kv_len == 0 and desk.talk.turns == [] and desk.talk.last is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/dance", "expected one of /reset"),
        ("/reset now", "got '/reset now'"),
        ("/save", "/save: expected FILE"),
        ("/load", "/load: expected FILE"),
        ("/retry now", "got '/retry now'"),
        ("/set temperature", "and a value"),
        ("/set color red", "and a value"),
        ("/set top_k many", "expected a number"),
        ("/set temperature -1", "temperature: expected"),
        ("/set temperature nan", "temperature: expected"),
        ("/set max_tokens 0", "max_tokens: expected at least 1"),
    ],
)
def test_bad_commands_do_not_end_the_conversation(tmp_path: Path, line: str, message: str) -> None:
    desk = Desk(tmp_path)
    assert desk.say(line, "hi") == "hi\n"
    assert message in desk.err.getvalue()
    assert desk.talk.sampler.temperature == 0


def test_quit_and_end_of_input(tmp_path: Path) -> None:
    assert Desk(tmp_path).say("/quit", "hi") == ""


def test_an_interrupt_keeps_the_half_answer(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.device.interrupt_at = 2
    assert desk.say("hello", "you") == "he\nyou\n"
    assert "(stopped)" in desk.err.getvalue()
    assert desk.texts == ["hello", "he", "you", "you"]


def test_an_interrupt_before_the_answer_undoes_the_turn(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.device.interrupt_at = 0
    assert desk.say("hello", "you") == "\nyou\n"
    assert desk.texts == ["you", "you"]


def test_a_full_context_is_said(tmp_path: Path) -> None:
    desk = Desk(tmp_path, next_of=lambda ids: 60, max_tokens=100)
    answer = desk.say("hi")
    assert len(answer) == CTX - 5 + 1 + 1
    assert "the context is full; /reset" in desk.err.getvalue()
    desk.err.truncate(0)
    assert desk.say("more") == ""
    assert "the context is full: expected at most 64 tokens" in desk.err.getvalue()
    assert len(desk.talk.turns) == 1
    assert desk.say("/reset", "x" * 200) == ""
    assert desk.talk.turns == []


def test_a_stopped_device_is_reported(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.device.fail_at = 0
    desk.say("hi")
    assert "illegal_opcode" in desk.err.getvalue()
    assert desk.texts == []


def test_a_device_that_stops_in_an_answer_leaves_half_of_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.device.fail_at = 2
    assert desk.say("hello") == "he\n"
    assert desk.texts == ["hello", "he"]


def test_retry_answers_the_last_turn_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, next_of=lambda ids: 60 + len(ids), max_tokens=3)
    desk.talk.set("temperature", 100.0)
    desk.talk.set("seed", 1)
    first, _ = desk.script("hi")
    steps = len(desk.device.steps)
    second, _ = desk.script("/retry")
    assert first[0]["tokens"] != second[0]["tokens"]
    assert desk.device.steps[steps:] == [1, 1, 1]  # all but the last token of the prompt were there
    assert len(desk.talk.turns) == 1 and desk.talk.turns[0].text == "hi"


def test_retry_without_a_turn_and_one_that_fails(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.say("/retry") == ""
    assert "retry: expected a turn" in desk.err.getvalue()
    desk.say("hi")
    desk.device.fail_at = len(desk.device.steps)
    desk.say("/retry")
    assert desk.texts == ["hi", "hi"]


def test_retry_of_a_running_document(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Tokenizer(byte_level(), CONFIG), lambda ids: 50, max_tokens=2)
    desk.say("hi", "yo")
    ids = [*desk.talk.turns[0].ids, *desk.talk.turns[1].ids]
    desk.say("/retry")
    assert [*desk.talk.turns[0].ids, *desk.talk.turns[1].ids] == ids
    assert desk.session.ids == tuple(ids[:-1])


def test_the_system_message(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.say("/system", "/system be brief", "/system")
    assert desk.err.getvalue() == "no system message\nbe brief\n"
    turn = {"role": "user", "content": "hi"}
    desk.say("hi")
    with_system = TOKENIZER.chat_ids([{"role": "system", "content": "be brief"}, turn])
    assert desk.session.ids[: len(with_system)] == tuple(with_system)
    desk.say("/system -", "/reset", "hi")
    assert desk.session.ids[:5] == tuple(TOKENIZER.chat_ids([turn]))


def test_a_system_message_needs_a_template(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Tokenizer(byte_level(), CONFIG))
    desk.say("/system be brief")
    assert "expected a model with a chat template" in desk.err.getvalue()
    with pytest.raises(DlavmError, match="chat template"):
        Conversation(LocalBackend(desk.session, "fake"), desk.talk.tokenizer, Sampler(), 1, "be brief")


def test_a_long_prompt_is_fed_in_steps_that_are_shown(tmp_path: Path) -> None:
    desk = Desk(tmp_path, next_of=lambda ids: EOS)
    seen: list[tuple[int, int]] = []
    assert list(desk.talk.ask("x" * 37, lambda done, total: seen.append((done, total)))) == []
    assert seen == [(16, 40), (32, 40)]
    assert desk.device.steps == [16, 16, 8]


def test_the_bar_of_a_long_prompt_ends_before_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    seen: list[object] = []

    class Bar:
        def advance(self, n: int = 1) -> None:
            seen.append(n)

    @contextlib.contextmanager
    def progress(label: str, total: int | None = None) -> Iterator[Bar]:
        seen.append((label, total))
        yield Bar()
        seen.append(desk.out.getvalue())

    monkeypatch.setattr(repl, "progress", progress)
    desk.say("hi")
    assert seen == []
    desk.say("/reset", "x" * 37)
    assert seen == [("reading", 40), 16, 16, "hi\n"]


class TestScript:
    def test_an_object_a_line(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        said, is_good = desk.script("hi", "", "/set seed 3", "/set")
        assert is_good and len(said) == 3
        assert (said[0]["text"], said[0]["prompt_tokens"], said[0]["stop_reason"]) == ("hi", 5, "eos")
        assert (said[0]["engine"], said[0]["model"], said[0]["kv_len"], said[0]["context"]) == ("fake", "tiny", 7, CTX)
        assert said[1] == {"command": "/set seed 3", "text": ""}
        assert "seed 3" in said[2]["text"]

    def test_an_error_is_an_object_and_the_next_line_goes_on(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        said, is_good = desk.script("x" * 200, "/dance", "hi", "/quit", "hi")
        assert not is_good and len(said) == 3
        assert list(said[0]) == ["error"] and "the context is full" in said[0]["error"]
        assert "expected one of /reset" in said[1]["error"] and said[2]["text"] == "hi"

    def test_retry_is_an_answer(self, tmp_path: Path) -> None:
        said, _ = Desk(tmp_path).script("hi", "/retry")
        assert [answer["text"] for answer in said] == ["hi", "hi"]

    def test_an_interrupt_reports_the_half_answer_and_ends(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.device.interrupt_at = 2
        out = io.StringIO()
        with pytest.raises(KeyboardInterrupt):
            Script(desk.talk, out).run(line_reader(io.StringIO("hello\n")))
        assert json.loads(out.getvalue())["stop_reason"] == "cancelled"


def test_bytes_that_are_no_text() -> None:
    read = line_reader(io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8"))
    with pytest.raises(DlavmError, match="UTF-8"):
        read()


def test_keys_of_the_terminal() -> None:
    with create_pipe_input() as keys:
        read = prompt_reader(keys, DummyOutput())
        keys.send_text("one\x1b\rtwo\r")
        assert read() == "one\ntwo"
        keys.send_text("\x1b[A\r")
        assert read() == "one\ntwo"
        keys.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            read()
        keys.send_text("\x04")
        with pytest.raises(EOFError):
            read()


def test_the_status_line(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert status(desk.talk) == "tiny on fake · 0/64 tokens"
    desk.say("hi")
    assert status(desk.talk).startswith("tiny on fake · 7/64 tokens · ") and status(desk.talk).endswith(" tok/s")


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("/s", ["/set", "/stats", "/system", "/save"]),
        ("/ret", ["/retry"]),
        ("/set te", ["temperature"]),
        ("/save {folder}/yes", ["terday.chat"]),
        ("/load {folder}/", ["yesterday.chat"]),
        ("/reset ", []),
        ("hello", []),
        ("hello /s", []),
    ],
)
def test_completion(tmp_path: Path, typed: str, found: list[str]) -> None:
    (tmp_path / "yesterday.chat").touch()
    document = Document(typed.format(folder=tmp_path))
    completions = CommandCompleter().get_completions(document, CompleteEvent())
    assert sorted(c.text for c in completions) == sorted(found)


class TestHistory:
    def test_it_is_kept_across_runs_for_the_owner_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "state" / "history"
        monkeypatch.setenv("DLAVM_HISTORY", str(path))
        for line, before in (("one", None), ("two", "one")):
            with create_pipe_input() as keys:
                read = prompt_reader(keys, DummyOutput(), history(pytest.fail))
                if before:
                    keys.send_text("\x1b[A\r")
                    assert read() == before
                keys.send_text(f"{line}\r")
                assert read() == line
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DLAVM_HISTORY", "off")
        monkeypatch.chdir(tmp_path)
        history(pytest.fail).append_string("secret")
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_cannot_be_written_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("DLAVM_HISTORY", str(tmp_path / "file" / "history"))
        said: list[str] = []
        history(said.append).append_string("one")
        assert len(said) == 1 and "expected a file for the history" in said[0]

    def test_a_disk_that_fails_later_costs_the_history_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DLAVM_HISTORY", str(tmp_path / "history"))
        kept = history(pytest.fail)
        (tmp_path / "history").unlink()
        (tmp_path / "history").mkdir()
        kept.append_string("one")
        assert kept.get_strings() == ["one"]
