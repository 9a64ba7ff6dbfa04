"""Servers that die, hang, or say what they should not: it is noticed, said, and the next turn connects again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlavm.runtime.connection import Patience, ServerLost, ServerRefused
from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT
from tests.unit.fake_runtime import VOCAB, follow
from tests.unit.fake_server import QUICK, Caller, FakeServer, Stop, Talk
from tests.unit.test_chat import parrot

TIMES = ("prefill_us", "decode_us", "bytes_read", "cycles")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(parrot) as running:
        yield running


class TestLoss:
    def lose(self, caller: Caller, text: str = "hello") -> str:
        """What came before the error, which is one line that names the server."""
        shown: list[str] = []
        with pytest.raises(ServerLost) as caught, contextlib.closing(caller.talk.ask(text)) as pieces:
            shown.extend(pieces)
        self.message = str(caught.value)
        assert self.message.startswith(f"the server at {caller.backend.place} ") and "\n" not in self.message
        return "".join(shown)

    def test_silence(self, server: FakeServer) -> None:
        server.at_token = lambda talk, count: talk.freeze() if count == 2 else None
        caller = Caller(server)
        begin = time.monotonic()
        assert self.lose(caller) == "he"
        assert QUICK.silence_s <= time.monotonic() - begin < QUICK.silence_s + 4
        assert "does not answer any more" in self.message
        assert caller.texts == ["hello", "he"]

    def test_a_long_step_is_no_silence(self, server: FakeServer) -> None:
        server.hold_at = 1
        caller = Caller(server)
        threading.Timer(2.5 * QUICK.silence_s, lambda: setattr(server, "hold_at", -1)).start()
        assert caller.say("hello") == "hello"
        assert server.pings >= 3

    @pytest.mark.parametrize("end", [Talk.kill, Talk.reset_connection])
    def test_an_end_is_noticed_at_once(self, server: FakeServer, end: Callable[[Talk], None]) -> None:
        server.at_token = lambda talk, count: end(talk) if count == 2 else None
        caller = Caller(server, Patience())  # whose silence would take 5 s
        begin = time.monotonic()
        assert self.lose(caller) in ("", "h", "he")  # a reset takes what was not read yet with it
        assert time.monotonic() - begin < 4
        assert "the connection" in self.message

    def test_the_next_turn_connects_again(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        server.at_token = lambda talk, count: talk.kill() if count == 2 else None
        self.lose(caller)
        server.at_token = lambda talk, count: None
        assert caller.say("you") == "you"
        assert caller.texts == ["hi", "hi", "hello", "he", "you", "you"]
        assert server.last("generate")["keep"] == 0
        assert caller.notes == [f"connected to {caller.backend.place} again, where the cache is empty now (the server "
                                "closed the connection)"]  # fmt: skip

    def test_a_restarted_server(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        server.kill()
        with pytest.raises(DlavmError, match="Connection refused"):
            caller.say("you")
        assert caller.texts == ["hi", "hi"]
        with FakeServer(parrot, server.port) as again:
            assert caller.say("you") == "you"
            assert again.last("generate")["keep"] == 0 and len(caller.notes) == 1

    def test_a_restarted_server_with_another_model(self, server: FakeServer) -> None:
        caller = Caller(server)
        server.kill()
        with FakeServer(parrot, server.port, model_id="d" * 64, model="other"):
            with pytest.raises(DlavmError, match=r"expected the model tiny \(a{12}\) as before, got other \(d{12}\)"):
                caller.say("you")
            with pytest.raises(DlavmError, match="expected the model tiny"):
                caller.say("you")

    def test_a_farewell_while_idle_is_told(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        server.talks[0].send("farewell", text="idle for 600 s\x1b[31m")
        server.talks[0].kill()
        assert caller.say("you") == "you"
        assert "closed the connection: idle for 600 s [31m)" in caller.notes[0]

    def test_a_server_that_goes_down(self, server: FakeServer) -> None:
        def leave(talk: Talk, count: int) -> None:
            if count == 2:
                talk.done(5, 2, 0, "shutdown")
                talk.send("farewell", text="going down")
                raise Stop

        server.at_token = leave
        caller = Caller(server)
        assert caller.say("hello") == "he"
        assert caller.talk.last and caller.talk.last.stop_reason == "shutdown"
        assert caller.texts == ["hello", "he"]
        server.at_token = lambda talk, count: None
        assert caller.say("you") == "you"
        assert "(the server went down)" in caller.notes[0]

    def test_an_end_behind_other_messages_is_seen_before_the_next_turn(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        for nonce in range(3):
            server.talks[0].send("pong", nonce=nonce)
            time.sleep(0.02)
        server.talks[0].kill()
        assert caller.say("you") == "you"
        assert len(caller.notes) == 1

    def test_the_draws_go_on_after_a_loss(self) -> None:
        with FakeServer(follow) as server:
            server.at_token = lambda talk, count: talk.kill() if count == 3 else None
            caller = Caller(server)
            caller.talk.set("temperature", 1.0)
            self.lose(caller)
            assert caller.talk.sampler.counter == 3

    def test_what_needs_no_server_works_without_one(self, server: FakeServer, tmp_path: Path) -> None:
        caller = Caller(server)
        caller.say("hi")
        server.kill()
        assert "not connected" in caller.backend.stats()
        caller.talk.save(tmp_path / "x.chat")
        caller.talk.reset()
        with FakeServer(parrot, server.port):
            caller.talk.load(tmp_path / "x.chat")
            assert caller.texts == ["hi", "hi"] and caller.say("you") == "you"


def send_raw(content: bytes) -> Callable[[Talk, int], None]:
    return lambda talk, count: talk.socket.sendall(content) if count == 2 else None


def sending(name: str, **fields: Any) -> Callable[[Talk, int], None]:
    return send_raw(CHAT.encode(name, **fields))


class TestNonsense:
    """What a server sends that it should not: the connection ends, and the next turn has a new one."""

    DONE = {"reason": 1, "prompt_tokens": 8, "counter": 0} | dict.fromkeys(TIMES, 0)

    @pytest.mark.parametrize(
        ("misbehave", "match"),
        [
            (send_raw(b"\xff" * 20), "sent what is no message: chat: header"),
            (send_raw(b"\x00\x00\x00\x80\x42\x00\x00\x00"), "sent what is no message: chat: expected at most"),
            (send_raw(CHAT.encode("ping", nonce=1)), "sent what is no message: .*from the server"),
            (sending("token", id=VOCAB), f"expected a token in 0..{VOCAB - 1}, got {VOCAB}"),
            (sending("ok", kv_len=0), "is out of step: expected progress or token or done, got 'ok'"),
            (sending("done", tokens=7, kv_len=8, **DONE), "expected 2 tokens"),
            (sending("done", tokens=2, kv_len=99, **DONE), "expected 2 tokens and 0..10 of them cached, got 2 and 99"),
        ],
    )
    def test_in_an_answer(self, server: FakeServer, misbehave: Callable[[Talk, int], None], match: str) -> None:
        server.at_token = misbehave
        caller = Caller(server)
        with pytest.raises(ServerLost, match=match):
            caller.say("hello")
        server.at_token = lambda talk, count: None
        assert caller.say("you") == "you"

    def test_more_tokens_than_asked_for(self, server: FakeServer) -> None:
        server.at_token = lambda talk, count: [talk.send("token", id=60) for _ in range(5)]
        caller = Caller(server, max_tokens=2)
        with pytest.raises(ServerLost, match="expected done, got 'token'"):
            caller.say("hello")

    def test_an_unasked_message_between_turns(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        server.talks[0].send("ok", kv_len=1)
        assert caller.say("you") == "you"
        assert "out of step: expected no message, got 'ok'" in caller.notes[0]

    @pytest.mark.parametrize(
        ("code", "fatal", "keeps"), [("device", 0, True), ("invalid", 0, True), ("timeout", 1, False)]
    )
    def test_an_error_in_an_answer(self, server: FakeServer, code: str, fatal: int, keeps: bool) -> None:
        caller = Caller(server)
        caller.say("hi")

        def fail(talk: Talk, count: int) -> None:
            if count == 2:
                talk.fail(code, "it broke\n\x07", fatal)

        server.at_token = fail
        with pytest.raises(ServerRefused, match=f"{code}: it broke$"):
            caller.say("hello")
        assert caller.texts == ["hi", "hi", "hello", "he"]
        server.at_token = lambda talk, count: None
        assert caller.say("you") == "you"
        assert server.last("generate")["keep"] == 0
        assert (len(server.talks) == 1) == keeps
