"""The client of a server: turns, cancelling, waiting for a busy server."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlavm.runtime.backend import LocalBackend
from dlavm.runtime.chat import Conversation
from dlavm.runtime.connection import Patience, ServerRefused
from dlavm.runtime.interrupts import held_interrupts
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session
from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT, Message
from tests.unit.fake_runtime import FakeDevice, follow, write
from tests.unit.fake_server import Caller, FakeServer, Talk
from tests.unit.test_chat import TOKENIZER, parrot


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(parrot) as running:
        yield running


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, whatever the runner of the tests has set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c(after: float) -> None:
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestTurns:
    def test_only_what_is_new_is_sent(self, server: FakeServer) -> None:
        caller = Caller(server)
        assert [caller.say("hi"), caller.say("you")] == ["hi", "you"]
        assert [(m["keep"], len(m["ids"])) for m in server.received if m.name == "generate"] == [(0, 5), (7, 6)]
        last = caller.talk.last
        assert last is not None
        assert (last.prompt_tokens, len(last.tokens), last.stop_reason) == (6, 4, "eos")
        assert (last.ttft_s, last.decode_tok_s, last.bytes_read_per_token) == (0.002, 1000.0, 500.0)
        assert list(caller.backend.ids) == server.talks[0].cached

    def test_it_says_what_the_model_says_here(self, tmp_path: Path) -> None:
        artifact = write(tmp_path / "a")
        here = LocalBackend(Session(artifact, FakeDevice(artifact)), "fake")
        local = Conversation(here, TOKENIZER, Sampler(seed=5), 9)
        with FakeServer(follow) as server:
            caller = Caller(server, max_tokens=9)
            for talk in (local, caller.talk):
                talk.set("temperature", 3.0)
                talk.set("top_p", 0.9)
                for text in ("one", "two"):
                    list(talk.ask(text))
        assert local.last and caller.talk.last and caller.talk.last.tokens == local.last.tokens
        assert caller.talk.sampler == local.sampler and local.sampler.counter == 18
        assert caller.texts == [text for turn in local.turns for text in (turn.text, turn.answer)]

    def test_progress_of_a_long_prompt(self, server: FakeServer) -> None:
        seen: list[tuple[int, int]] = []
        caller = Caller(server)
        with contextlib.closing(caller.talk.ask("x" * 37, lambda *now: seen.append(now))) as pieces:
            next(pieces)
        assert seen == [(16, 40), (32, 40)]

    def test_reasons_to_end(self) -> None:
        with FakeServer(lambda ids: 60) as server:
            caller = Caller(server, max_tokens=3)
            caller.say("hi")
            assert caller.talk.last and caller.talk.last.stop_reason == "length"
            caller.talk.max_tokens = 100
            caller.say("hi")
            assert caller.talk.last.stop_reason == "context" and len(caller.backend.ids) == 64
            with pytest.raises(DlavmError, match="the context is full"):
                caller.say("hi")

    def test_the_servers_limit_on_tokens(self) -> None:
        with FakeServer(lambda ids: 60, max_tokens=4) as server:
            caller = Caller(server)
            caller.say("hi")
            assert caller.talk.last and (caller.talk.last.stop_reason, len(caller.talk.last.tokens)) == ("length", 4)

    def test_reset_stats_and_goodbye(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        assert "up 5 s, 1 connections, 1 of 2 caches in use" in caller.backend.stats()
        caller.talk.reset()
        assert server.last("reset")["keep"] == 0 and caller.backend.ids == ()
        assert caller.say("you") == "you"
        assert server.last("generate")["keep"] == 0
        caller.backend.close()
        wait_for(lambda: "goodbye" in server.names)

    def test_bytes_may_come_one_by_one(self, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        def drip(self: Talk, name: str, **fields: Any) -> None:
            for byte in CHAT.encode(name, **fields):
                self.socket.sendall(bytes([byte]))

        monkeypatch.setattr(Talk, "send", drip)
        assert Caller(server).say("hi") == "hi"

    def test_a_prompt_longer_than_a_message(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.backend._connection.limit = 64  # type: ignore[union-attr]
        with pytest.raises(DlavmError, match="generate: expected at most 64 bytes"):
            caller.say("x" * 30)
        assert caller.talk.turns == []


class TestCancel:
    def test_closing_cancels_and_waits_for_the_end(self) -> None:
        with FakeServer(lambda ids: 60) as server:
            server.hold_at = 3
            caller = Caller(server)
            with contextlib.closing(caller.talk.ask("hi")) as pieces:
                shown = next(pieces) + next(pieces)
            assert server.names[-1] == "cancel"
            assert caller.talk.last and caller.talk.last.stop_reason == "cancelled"
            assert caller.texts == ["hi", shown] and len(caller.talk.last.tokens) == 2
            assert list(caller.backend.ids) == server.talks[0].cached
            server.hold_at = -1
            caller.say("more")
            assert len(server.talks) == 1 and server.last("generate")["keep"] > 0 and caller.notes == []

    @pytest.mark.usefixtures("interruptible")
    def test_ctrl_c_while_waiting_for_a_token(self, server: FakeServer) -> None:
        server.hold_at = 2
        caller = Caller(server)
        press_ctrl_c(0.4)
        shown = []
        with pytest.raises(KeyboardInterrupt), contextlib.closing(caller.talk.ask("hello")) as pieces:
            shown += pieces
        assert caller.texts == ["hello", "he"]
        assert caller.talk.last and caller.talk.last.stop_reason == "cancelled"
        server.hold_at = -1
        assert caller.say("you") == "you"
        assert len(server.talks) == 1 and caller.notes == []

    @pytest.mark.usefixtures("interruptible")
    def test_a_second_ctrl_c_leaves_the_connection(self, server: FakeServer) -> None:
        server.hold_at = 1
        server.hooks["cancel"] = lambda *_: True  # the end does not come
        caller = Caller(server)
        press_ctrl_c(0.3)
        press_ctrl_c(0.8)
        with pytest.raises(KeyboardInterrupt), contextlib.closing(caller.talk.ask("hello")) as pieces:
            list(pieces)
        assert caller.texts == ["hello", "h"]
        server.hold_at = -1
        assert caller.say("you") == "you"
        assert len(caller.notes) == 1 and "again, where the cache is empty now" in caller.notes[0]

    @pytest.mark.usefixtures("interruptible")
    def test_held_interrupts_come_at_the_end(self) -> None:
        done = []

        def work() -> None:
            with held_interrupts():
                with held_interrupts():
                    signal.raise_signal(signal.SIGINT)
                    done.append("inner")
                done.append("outer")

        with pytest.raises(KeyboardInterrupt):
            work()
        assert done == ["inner", "outer"]
        with held_interrupts():
            pass  # nothing is left of it
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class TestBusy:
    def busy(self, server: FakeServer, message: str, times: int, retry_ms: int = 20, fatal: int = 0) -> None:
        left = [times]

        def refuse(talk: Talk, request: Message) -> bool:
            left[0] -= 1
            if left[0] >= 0:
                talk.error("busy", "every cache is taken", fatal, retry_ms)
            return left[0] >= 0

        server.hooks[message] = refuse

    @pytest.mark.parametrize(("message", "fatal"), [("generate", 0), ("generate", 1)])
    def test_an_answer_waits_its_turn(self, server: FakeServer, message: str, fatal: int) -> None:
        caller = Caller(server)
        self.busy(server, message, 3, fatal=fatal)
        assert caller.say("hi") == "hi"
        waiting = [note for note in caller.notes if "busy: every cache is taken; trying again" in note]
        assert len(waiting) == 1 and "Ctrl-C" in waiting[0]
        assert server.names.count("generate") == 4

    def test_a_connection_waits_its_turn(self, server: FakeServer) -> None:
        self.busy(server, "hello", 2, fatal=1)
        assert Caller(server).say("hi") == "hi"
        assert server.names.count("hello") == 3

    def test_patience_ends(self, server: FakeServer) -> None:
        caller = Caller(server, Patience(busy_s=0.3, ping_s=0.05))
        self.busy(server, "generate", 1000, retry_ms=100)
        with pytest.raises(ServerRefused, match="busy: every cache is taken"):
            caller.say("hi")
        assert 2 <= server.names.count("generate") <= 5
        assert caller.talk.turns == []

    @pytest.mark.usefixtures("interruptible")
    def test_ctrl_c_ends_the_waiting(self, server: FakeServer) -> None:
        caller = Caller(server, Patience(busy_s=100))
        self.busy(server, "generate", 1, retry_ms=60000)
        press_ctrl_c(0.3)
        with pytest.raises(KeyboardInterrupt), contextlib.closing(caller.talk.ask("hi")) as pieces:
            list(pieces)
        assert caller.say("you") == "you"
