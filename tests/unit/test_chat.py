"""The conversation and its line mode on a fake device; the terminal reader on a pipe of key presses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from dlavm.runtime import chat as chat_module
from dlavm.runtime import engine
from dlavm.runtime.chat import Conversation, Repl, chat, line_reader, prompt_reader
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
        self.talk = Conversation(self.session, tokenizer, Sampler(), max_tokens)
        self.out, self.err = io.StringIO(), io.StringIO()

    def say(self, *lines: str) -> str:
        """Everything written as answers to these lines."""
        start = self.out.tell()
        Repl(self.talk, self.out, self.err).run(line_reader(io.StringIO("".join(f"{line}\n" for line in lines))))
        return self.out.getvalue()[start:]


def test_turns_stay_in_the_cache(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.say("hi", "", "you") == "hi\nyou\n"
    # <s><user>hi<assistant> in one step, then "h" "i" one by one; the end token was sampled, not fed.
    assert desk.device.steps[:3] == [5, 1, 1]
    # The second turn adds </s><user>you<assistant>: 6 tokens.
    assert desk.device.steps[3:] == [6, 1, 1, 1]
    assert [m["content"] for m in desk.talk.messages] == ["hi", "hi", "you", "you"]


def test_a_conversation_that_does_not_extend_the_cache_is_prefilled_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.say("hi")
    desk.talk.messages[-1]["content"] = "no"
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
    assert desk.session.kv_len == 0 and desk.talk.messages == [] and desk.talk.last is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/dance", "expected one of /reset"),
        ("/reset now", "got '/reset now'"),
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
    assert [m["content"] for m in desk.talk.messages] == ["hello", "he", "you", "you"]


def test_a_full_context_is_said(tmp_path: Path) -> None:
    desk = Desk(tmp_path, next_of=lambda ids: 60, max_tokens=100)
    answer = desk.say("hi")
    assert len(answer) == CTX - 5 + 1 + 1
    assert "the context is full; /reset" in desk.err.getvalue()
    desk.err.truncate(0)
    assert desk.say("more") == ""
    assert "the context is full: expected at most 64 tokens" in desk.err.getvalue()
    assert len(desk.talk.messages) == 2
    assert desk.say("/reset", "x" * 200) == ""
    assert desk.talk.messages == []


def test_a_stopped_device_is_reported(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.device.fail_at = 0
    desk.say("hi")
    assert "illegal_opcode" in desk.err.getvalue()


class TestProgram:
    """`dlavm chat` with a pipe."""

    def artifact(self, folder: Path) -> Any:
        source = folder / "t"
        source.mkdir()
        (source / "tokenizer.json").write_text(byte_level())
        (source / "tokenizer_config.json").write_text(json.dumps({**CONFIG, "chat_template": TEMPLATE}))
        return write(folder / "a", tokenizer=source)

    def test_a_pipe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        artifact = self.artifact(tmp_path)
        monkeypatch.setattr(engine, "ENGINES", {"fake": lambda spec, threads: FakeDevice(artifact, parrot)})
        monkeypatch.setattr(sys, "stdin", io.StringIO("hi\nyou\n/set\n"))
        assert chat(artifact, "fake", temperature=0) == 0
        captured = capsys.readouterr()
        assert captured.out == "hi\nyou\n"
        assert f"max_tokens {CTX}" in captured.err

    def test_bytes_that_are_no_text(self) -> None:
        read = line_reader(io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8"))
        with pytest.raises(DlavmError, match="UTF-8"):
            read()

    def test_a_model_without_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(DlavmError, match="expected a tokenizer"):
            chat(write(tmp_path / "a"), "fake")

    def test_the_default_limit(self, tmp_path: Path) -> None:
        assert chat_module._default_limit(write(tmp_path / "a")) == CTX


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
