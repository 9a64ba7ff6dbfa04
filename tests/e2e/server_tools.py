"""A server of the bundled model, clients that speak its protocol by hand, and what a session says alone."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session
from dlavm.support.paths import native_library
from dlavm.wire import CHAT, FrameReader, Message

PATIENCE_S = 60.0  # of a test, on a machine that others use too
HELLO = {"magic": CHAT.magic, "version": CHAT.version, "secret": "", "client": "test"}
GENERATE = {"keep": 0, "max_tokens": 8, "ignore_end": 1, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0,
            "counter": 0}  # fmt: skip


def build_host(source: Path, build: Path, target: str) -> Path:
    """Builds a program of the generated project; its path."""
    options = [f"-DDLAVM_LIBRARY={native_library()}", "-DDLAVM_WERROR=ON"]
    for command in (["cmake", "-S", str(source), "-B", str(build), *options],
                    ["cmake", "--build", str(build), "--target", target, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / target


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`; fails when patience is at its end."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


@dataclass
class Answer:
    """What came after a generate; `end` is done or error."""

    tokens: list[int]
    progress: list[tuple[int, int]]
    end: Message

    @property
    def reason(self) -> str:
        return CHAT.label("stop_reason", self.end["reason"])

    @property
    def kv_len(self) -> int:
        return int(self.end["kv_len"])


class Client:
    """One connection. Waiting for more than PATIENCE_S fails the test."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        self._reader = FrameReader(CHAT, "server")
        self._messages: list[Message] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Closes in a way that the server hears as an error."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def send(self, name: str, **fields: Any) -> None:
        self.socket.sendall(CHAT.encode(name, **fields))

    def receive(self) -> Message | None:
        """The next message, or None at the end of the connection."""
        while not self._messages:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                return None
            if not data:
                assert self._reader.idle, "the connection ended within a message"
                return None
            self._messages += self._reader.feed(data)
        return self._messages.pop(0)

    def expect(self, name: str) -> Message:
        message = self.receive()
        assert message is not None and message.name == name, f"expected {name}, got {message}"
        return message

    def refused(self, code: str, fatal: bool = False) -> Message:
        """An error of that code; behind a fatal one the connection ends."""
        message = self.expect("error")
        assert (CHAT.label("error", message["code"]), message["fatal"]) == (code, fatal), message["text"]
        assert message["text"] and "\n" not in message["text"]
        if fatal:
            assert self.receive() is None
        return message

    def hello(self, **fields: Any) -> Message:
        self.send("hello", **(HELLO | fields))
        return self.expect("welcome")

    def ask(self, name: str, answer: str, **fields: Any) -> Message:
        self.send(name, **fields)
        return self.expect(answer)

    def start(self, ids: Sequence[int], **fields: Any) -> None:
        self.send("generate", **(GENERATE | fields), ids=list(ids))

    def finish(self) -> Answer:
        """The rest of an answer."""
        answer = Answer([], [], Message("", 0, {}))
        while (message := self.receive()) is not None and message.name in ("token", "progress"):
            if message.name == "token":
                answer.tokens.append(message["id"])
            else:
                answer.progress.append((message["done"], message["total"]))
        assert message is not None and message.name in ("done", "error"), message
        answer.end = message
        return answer

    def generate(self, ids: Sequence[int], **fields: Any) -> Answer:
        self.start(ids, **fields)
        return self.finish()

    def save(self) -> tuple[int, bytes]:
        """kv_len and the state."""
        state = self.ask("save", "state")
        data = b""
        while len(data) < state["bytes"]:
            data += bytes(self.expect("data")["bytes"])
        assert len(data) == state["bytes"]
        return state["kv_len"], data

    def start_load(self, model_id: str, kv_len: int, state: bytes, piece: int = 1 << 20) -> None:
        self.send("load", model_id=model_id, kv_len=kv_len, bytes=len(state))
        for at in range(0, len(state), piece):
            self.send("data", bytes=state[at : at + piece])

    def stats(self) -> Message:
        return self.ask("stats", "statistics")


@dataclass
class Server:
    """A running server; a context manager that kills it. `descriptors` limits its open files."""

    program: Path
    artifact: Path
    log_file: Path
    options: tuple[object, ...] = ()
    descriptors: int | None = None
    process: subprocess.Popen[str] = field(init=False)
    port: int = field(init=False)

    def __enter__(self) -> Server:
        command = [self.program, "--artifact", self.artifact, "--listen", "127.0.0.1:0", *self.options]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=log,
                                            text=True, preexec_fn=self._limit)  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.log
        self.port = int(line.rsplit(":", 1)[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def _limit(self) -> None:
        if self.descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))

    @property
    def log(self) -> str:
        """What it wrote on standard error."""
        return self.log_file.read_text()

    def client(self, **hello: Any) -> Client:
        """A connection that was welcomed."""
        client = Client(self.port)
        client.hello(**hello)
        return client

    def is_quiet(self, witness: Client, conversations: int = 0) -> bool:
        """Whether the witness is the only connection, and as many caches are in use."""
        stats = witness.stats()
        return (stats["connections"], stats["conversations"]) == (1, conversations)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def alone(session: Session, ids: Sequence[int], count: int, sampler: Sampler, ends: Sequence[int] = ()) -> list[int]:
    """The tokens of an answer as a session gives them; the last one is not fed, as on a server."""
    tokens: list[int] = []
    result = session.prefill(ids)
    while True:
        tokens.append(sampler.sample(result.logits[-1]))
        if len(tokens) == count or tokens[-1] in ends or session.room == 0:
            return tokens
        result = session.step(tokens[-1:], 1)
