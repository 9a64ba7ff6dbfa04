"""chat with the generated server: what it says is what the model says here, and it outlives the server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from dlavm.runtime.chat import Conversation
from dlavm.runtime.connection import Address, Patience, ServerLost
from dlavm.runtime.remote import RemoteBackend
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.tokens import folder_tokenizer
from tests.e2e.server_tools import PATIENCE_S, Server, until

Command = Callable[..., Any]
Start = Callable[..., Server]
TURNS = "Tell me a story about a dog and a ball.\nWhat did the cat say?\n/retry\n"
SAME = ("tokens", "text", "prompt_tokens", "kv_len", "stop_reason")
ENDLESS = ("--temperature", "3", "--max-tokens", "900")  # no end token within 900 is likely


@pytest.fixture
def start(server_program: Path, stories: Path, tmp_path: Path) -> Iterator[Start]:
    """`start("--conversations", 2)` is a running server with these options."""
    with contextlib.ExitStack() as stack:
        names = iter(range(9))

        def run(*options: object) -> Server:
            return stack.enter_context(Server(server_program, stories, tmp_path / f"log{next(names)}", options))

        yield run


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def test_the_server_says_what_the_model_says_here(
    dlavm: Command, stories: Path, start: Start, typed: Callable[[str], None], tmp_path: Path
) -> None:
    server = start()
    answers = []
    for partner in ((stories,), (address(server), "--tokenizer", stories)):
        typed(f"{TURNS}/save {tmp_path}/{len(answers)}.chat\n")
        outcome = dlavm("chat", *partner, "--max-tokens", 40, "--seed", 9, "--json")
        assert (outcome.code, outcome.err) == (0, "")
        lines = [json.loads(line) for line in outcome.out.splitlines()]
        answers.append([[answer[key] for key in SAME] for answer in lines[:-1]])
    assert answers[0] == answers[1]
    assert answers[0][1] != answers[0][2]
    assert (tmp_path / "0.chat").read_bytes() == (tmp_path / "1.chat").read_bytes()


def test_a_saved_chat_goes_on_anywhere(
    dlavm: Command, stories: Path, start: Start, typed: Callable[[str], None], tmp_path: Path
) -> None:
    first, second = TURNS.splitlines()[:2]
    there = (address(start()), "--tokenizer", stories)
    for number, partner in enumerate(((stories,), there)):
        typed(f"{first}\n/save {tmp_path}/{number}.chat\n{second}\n")
        outcome = dlavm("chat", *partner, "--max-tokens", 30)
        expected = outcome.out.splitlines()[-1]
        for other in ((stories,), there):
            typed(f"{second}\n/stats\n")
            outcome = dlavm("chat", *other, "--load", tmp_path / f"{number}.chat")
            assert outcome.out.splitlines()[-1] == expected
            assert f"last answer: {len_of_turn(outcome.err)} tokens in" in outcome.err
    assert len_of_turn(outcome.err) < 12  # the cache came with the file


def len_of_turn(said: str) -> int:
    return int(said.split("last answer: ")[1].split()[0])


def test_one_waits_for_the_other(
    dlavm: Command, stories: Path, start: Start, typed: Callable[[str], None]
) -> None:
    server = start("--conversations", 1, "--idle-timeout", 1)  # which tells how long to wait
    holder = server.client()
    holder.generate([0, 5, 6])
    typed(TURNS.splitlines()[0])
    outcome = dlavm("chat", address(server), "--tokenizer", stories, "--greedy", "--max-tokens", 12)
    assert outcome.out.startswith("Once upon a time, there was a big dog named Max")
    assert outcome.err.count("busy") == 1 and "trying again" in outcome.err


def test_the_secret(dlavm: Command, stories: Path, start: Start, typed: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("open barley\n")
    server = start("--secret-file", tmp_path / "secret")
    partner = (address(server), "--tokenizer", stories, "--max-tokens", 3)
    for options in ((), ("--secret-file", tmp_path / "wrong")):
        outcome = dlavm("chat", *partner, *options)
        assert outcome.code == 2 and outcome.err.count("\n") == 1
        assert "unauthorized" in outcome.err and "--secret-file FILE" in outcome.err
    typed("hi\n")
    assert dlavm("chat", *partner, "--secret-file", tmp_path / "secret").out.strip()


def test_another_tokenizer_is_refused(dlavm: Command, stories: Path, start: Start, tmp_path: Path) -> None:
    shutil.copytree(stories / "tokenizer", tmp_path / "t")
    with (tmp_path / "t" / "tokenizer.json").open("a") as file:
        file.write("\n")
    outcome = dlavm("chat", address(start()), "--tokenizer", tmp_path / "t")
    assert outcome.code == 2 and "expected tokenizer.json with SHA-256" in outcome.err


def test_a_server_that_hangs_and_wakes(stories: Path, start: Start) -> None:
    server = start()
    notes: list[str] = []
    patience = Patience(silence_s=1.5)
    with contextlib.closing(RemoteBackend(Address("127.0.0.1", server.port), notes.append, patience)) as backend:
        talk = Conversation(backend, folder_tokenizer(stories / "tokenizer"), Sampler(3.0, seed=1), 900)
        with contextlib.closing(talk.ask("Tell me a story")) as pieces:
            assert next(pieces)
            server.process.send_signal(signal.SIGSTOP)
            with pytest.raises(ServerLost, match="does not answer any more"):
                list(pieces)
        server.process.send_signal(signal.SIGCONT)
        talk.max_tokens = 5
        assert "".join(talk.ask("And then?"))
        assert len(talk.turns) == 2 and "again" in notes[0]


class Program:
    """`dlavm chat` in a process of its own, with what it wrote so far."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "dlavm", "chat", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=os.environ | {"PYTHONUNBUFFERED": "1"})  # fmt: skip
        self.out, self.err = self._follow(self.process.stdout), self._follow(self.process.stderr)

    def _follow(self, stream: IO[bytes] | None) -> Callable[[], str]:
        pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        seen = [""]

        def read() -> None:
            while stream and (piece := os.read(stream.fileno(), 1 << 16)):
                pieces.put(piece)

        def text() -> str:
            while not pieces.empty():
                seen[0] += pieces.get().decode(errors="replace")
            return seen[0]

        threading.Thread(target=read, daemon=True).start()
        return text

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    with contextlib.ExitStack() as stack:

        def run(*arguments: object) -> Program:
            made = Program(*arguments)
            stack.callback(made.process.kill)
            return made

        yield run


def test_a_server_that_is_killed_in_an_answer(stories: Path, start: Start, program: Callable[..., Program]) -> None:
    server = start()
    chat = program(address(server), "--tokenizer", stories, *ENDLESS)
    chat.say("Tell me a story about a dog and a ball.")
    until(chat.out)
    server.process.kill()
    killed = time.monotonic()
    until(lambda: "\n" in chat.err())
    assert time.monotonic() - killed < 5
    assert chat.err().startswith(f"the server at {address(server)} ") and chat.err().count("\n") == 1

    chat.say("And then?")
    until(lambda: chat.err().count("\n") == 2)
    assert "Connection refused" in chat.err()

    start("--listen", address(server))
    chat.say("/set max_tokens 8")
    before = len(chat.out())
    chat.say("And then?")
    until(lambda: len(chat.out()) > before and chat.out().endswith("\n"))
    assert f"connected to {address(server)} again" in chat.err()
    assert chat.end() == 0


def test_a_server_that_is_asked_to_end_in_an_answer(
    stories: Path, start: Start, program: Callable[..., Program]
) -> None:
    server = start()
    chat = program(address(server), "--tokenizer", stories, *ENDLESS)
    chat.say("Tell me a story about a dog and a ball.")
    until(chat.out)
    assert server.stop() == 0
    until(lambda: "going down" in chat.err() and chat.out().endswith("\n"))
    assert chat.end() == 0


@pytest.mark.parametrize("where", ["here", "server"])
def test_ctrl_c_stops_the_answer_alone(
    stories: Path, start: Start, program: Callable[..., Program], where: str
) -> None:
    partner = (address(start()), "--tokenizer", stories) if where == "server" else (stories,)
    chat = program(*partner, *ENDLESS)
    chat.say("Tell me a story about a dog and a ball.")
    until(chat.out)
    chat.process.send_signal(signal.SIGINT)
    until(lambda: "(stopped)" in chat.err() and chat.out().endswith("\n"))
    stopped = len(chat.out())
    chat.say("/set max_tokens 5")
    chat.say("And then?")
    until(lambda: len(chat.out()) > stopped and chat.out().endswith("\n"))
    chat.say("/stats")
    until(lambda: "last answer" in chat.err())
    assert len_of_turn(chat.err()) < 100 and "again" not in chat.err()  # the cache is still there
    assert chat.end() == 0
