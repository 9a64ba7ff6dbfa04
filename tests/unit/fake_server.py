"""A chat server in threads, whose logits are those of FakeDevice; it can be told to misbehave."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dlavm.runtime.chat import Conversation
from dlavm.runtime.connection import Address, Patience
from dlavm.runtime.remote import RemoteBackend
from dlavm.runtime.sampling import Sampler
from dlavm.wire import CHAT, FrameReader, Message, WireError
from tests.unit.fake_runtime import CTX, VOCAB, follow, logits_for
from tests.unit.test_chat import TOKENIZER

MODEL_ID, TOKENIZER_ID = "a" * 64, "b" * 64
WELCOME = {
    "version": CHAT.version, "server": "fake 1", "model": "tiny", "target": "v3 nano", "target_hash": "c" * 64,
    "model_id": MODEL_ID, "tokenizer_id": TOKENIZER_ID, "vocab_size": VOCAB, "context": CTX, "chunk": 16,
    "conversations": 2, "max_tokens": 1000, "max_message": 256, "end_tokens": [1],
}  # fmt: skip
QUICK = Patience(connect_s=2, ping_s=0.05, silence_s=0.6, busy_s=5)
Next = Callable[[Sequence[int]], int]
Hook = Callable[["Talk", Message], bool]  # True: the message is dealt with


class FakeServer:
    """Listens on a port of 127.0.0.1 from `with` on.

    `hooks`: by message name, called before what it would do itself. `at_token`: called with the talk and the number of
    tokens sent, before each token; it may raise Stop. `hold_at`: after so many tokens an answer gets no further, as if
    a step of the device took forever. `received`: every message of all connections but pings.
    """

    def __init__(
        self, next_of: Next = follow, port: int = 0, tls: ssl.SSLContext | None = None, **welcome: Any
    ) -> None:
        self.next_of = next_of
        self.welcome = {**WELCOME, **welcome}
        self.hooks: dict[str, Hook] = {}
        self.at_token: Callable[[Talk, int], object] = lambda talk, count: None
        self.hold_at = -1
        self.received: list[Message] = []
        self.pings = 0
        self.talks: list[Talk] = []
        self.tls = tls
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    @property
    def names(self) -> list[str]:
        return [message.name for message in self.received]

    def last(self, name: str) -> Message:
        return [message for message in self.received if message.name == name][-1]

    def kill(self) -> None:
        """Every socket closes, as when the process dies."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for talk in self.talks:
            talk.kill()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        # A socket that was closed has no number; what is no message ends the connection, as it should.
        with contextlib.suppress(OSError, ValueError, WireError):
            talk = Talk(self, self.tls.wrap_socket(sock, server_side=True) if self.tls else sock)
            self.talks.append(talk)
            talk.serve()


class Stop(Exception):  # noqa: N818 - no error
    """Ends a step of an answer."""


class Talk:
    """One connection. `is_deaf`: reads and says nothing any more."""

    def __init__(self, server: FakeServer, sock: socket.socket) -> None:
        self.server = server
        self.socket = sock
        self.cached: list[int] = []
        self.is_deaf = False
        self._answer: _Answer | None = None
        self._loading: tuple[int, bytearray, int] | None = None  # bytes to come, bytes, kv_len

    def kill(self) -> None:
        # With unread bytes or this option the other side sees a reset, without them an end.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset_connection(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, name: str, **fields: Any) -> None:
        self.socket.sendall(CHAT.encode(name, **fields))

    def error(self, code: str, text: str = "no", fatal: int = 0, retry_ms: int = 0) -> None:
        self.send("error", code=CHAT.enums["error"][code], fatal=fatal, retry_ms=retry_ms, text=text)
        if fatal:
            self.kill()

    def fail(self, code: str, text: str, fatal: int = 0) -> None:
        """The answer ends in an error."""
        self._answer = None
        self.error(code, text, fatal)
        raise Stop

    def freeze(self) -> None:
        """The process hangs: its sockets stay open, nothing comes."""
        self.is_deaf = True
        raise Stop

    def serve(self) -> None:
        reader = FrameReader(CHAT, sender="client")
        while True:
            answer = self._answer if self._answer and len(self._answer.ids) != self.server.hold_at else None
            if self.is_deaf:
                time.sleep(0.02)
                self.socket.getpeername()  # raises when the socket is closed
            elif select.select([self.socket], [], [], 0 if answer else 0.02)[0]:
                data = self.socket.recv(65536)
                if not data:
                    return
                for message in reader.feed(data):
                    self._handle(message)
            elif answer:
                with contextlib.suppress(Stop):
                    self._step(answer)

    def _handle(self, message: Message) -> None:
        if message.name == "ping":
            self.server.pings += 1
            self.send("pong", nonce=message["nonce"])
            return
        self.server.received.append(message)
        hook = self.server.hooks.get(message.name)
        if not (hook and hook(self, message)):
            getattr(self, f"_on_{message.name}")(message)

    def _on_hello(self, message: Message) -> None:
        self.send("welcome", **self.server.welcome)

    def _on_generate(self, message: Message) -> None:
        del self.cached[message["keep"] :]
        self._answer = _Answer(message)

    def _on_cancel(self, message: Message) -> None:
        if self._answer:
            self._done(self._answer, "cancelled")

    def _on_reset(self, message: Message) -> None:
        del self.cached[message["keep"] :]
        self.send("ok", kv_len=len(self.cached))

    def _on_save(self, message: Message) -> None:
        state = struct.pack(f"<{len(self.cached)}I", *self.cached)
        self.send("state", kv_len=len(self.cached), bytes=len(state))
        for start in range(0, len(state), 10):
            self.send("data", bytes=state[start : start + 10])

    def _on_load(self, message: Message) -> None:
        self._loading = (message["bytes"], bytearray(), message["kv_len"])

    def _on_data(self, message: Message) -> None:
        if self._loading is None:
            raise WireError("data: expected load before, got none")
        total, data, kv_len = self._loading
        data += message["bytes"]
        if len(data) == total:
            if total != 4 * kv_len:
                self.error("invalid", f"expected {4 * kv_len} bytes, got {total}")
                return
            self.cached = list(struct.unpack(f"<{kv_len}I", data))
            self.send("ok", kv_len=kv_len)

    def _on_stats(self, message: Message) -> None:
        self.send("statistics", uptime_ms=5000, connections=1, conversations=1, answering=0, kv_len=len(self.cached),
                  tokens_in=11, tokens_out=22, device_us=0, refused=0, dropped=0)  # fmt: skip

    def _on_goodbye(self, message: Message) -> None:
        self.send("farewell", text="bye")
        self.kill()

    def _step(self, answer: _Answer) -> None:
        if answer.left:
            count = min(self.server.welcome["chunk"], len(answer.left))
            self.cached += answer.left[:count]
            del answer.left[:count]
            if answer.left:
                total = answer.prompt_tokens
                self.send("progress", done=total - len(answer.left), total=total)
                return
        else:
            self.cached.append(answer.ids[-1])
        self.server.at_token(self, len(answer.ids))
        token = answer.sampler.sample(logits_for(self.server.next_of(self.cached)))
        answer.ids.append(token)
        self.send("token", id=token)
        if token == 1:
            self._done(answer, "eos")
        elif len(answer.ids) == answer.max_tokens:
            self._done(answer, "length")
        elif len(self.cached) == CTX:
            self._done(answer, "context")

    def _done(self, answer: _Answer, reason: str) -> None:
        self._answer = None
        self.done(answer.prompt_tokens, len(answer.ids), answer.sampler.counter, reason)

    def done(self, prompt_tokens: int, tokens: int, counter: int, reason: str) -> None:
        self.send("done", reason=CHAT.enums["stop_reason"][reason], prompt_tokens=prompt_tokens, tokens=tokens,
                  kv_len=len(self.cached), counter=counter, prefill_us=2000, decode_us=1000 * (tokens - 1),
                  bytes_read=500 * (tokens - 1), cycles=0)  # fmt: skip


class _Answer:
    def __init__(self, request: Message) -> None:
        self.left = list(request["ids"])
        self.prompt_tokens = len(self.left)
        self.max_tokens = request["max_tokens"]
        self.ids: list[int] = []
        self.sampler = Sampler(*(request[name] for name in ("temperature", "top_k", "top_p", "seed", "counter")))


class Caller:
    """A conversation with a server, and the notes that a person would see."""

    def __init__(self, server: FakeServer, patience: Patience = QUICK, **options: Any) -> None:
        self.notes: list[str] = []
        self.backend = RemoteBackend(server.address, self.notes.append, patience)
        self.talk = Conversation(self.backend, TOKENIZER, Sampler(seed=5), **{"max_tokens": 50, **options})

    def say(self, text: str) -> str:
        with contextlib.closing(self.talk.ask(text)) as pieces:
            return "".join(pieces)

    @property
    def texts(self) -> list[str]:
        return [text for turn in self.talk.turns for text in (turn.text, turn.answer)]
