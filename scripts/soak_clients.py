"""Clients of scripts/soak.py: honest ones, whose tokens are known before, and all kinds of others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlavm.runtime.backend import LocalBackend
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session
from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT, FrameReader, Message

PATIENCE_S = 120.0  # of an honest client, on a machine that does other work too
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0, "seed": 0}, {"temperature": 0.8, "seed": 7},
    {"temperature": 1.3, "top_k": 40, "seed": 1 << 63}, {"temperature": 1.0, "top_p": 0.9, "seed": 3},
)  # fmt: skip
FIRST, NEXT, LONG = 20, 12, 200  # tokens of an answer at most


class WrongError(DlavmError):
    """The server did what it must not do."""


@dataclass(frozen=True)
class Talk:
    """A prompt with its answer, then two second turns in each other's place; what a session alone says to them."""

    sampling: dict[str, Any]
    prompt: list[int]
    turns: tuple[list[int], list[int]]
    answers: tuple[list[int], list[int], list[int]]

    @property
    def kv_len(self) -> int:
        """Cached tokens behind the first answer, whose last token is not fed."""
        return len(self.prompt) + len(self.answers[0]) - 1


def made_up(count: int, salt: int) -> list[int]:
    return [0, *(7 + (31 * i + 101 * salt) % 4000 for i in range(count - 1))]


def alone(backend: LocalBackend, ids: Sequence[int], sampler: Sampler, most: int) -> list[int]:
    """The answer to `ids`."""
    source = backend.generate(ids, sampler, most)
    while next(source, None) is not None:
        pass
    return source.ids


def write_talks(session: Session, count: int) -> tuple[list[Talk], list[int]]:
    """`count` talks, each alone in the session, and a long greedy answer to the prompt of the first one."""
    backend = LocalBackend(session, "sim")
    talks: list[Talk] = []
    for number in range(count):
        sampling, prompt = SAMPLINGS[number % len(SAMPLINGS)], made_up(2 + 24 * number, number)
        turns = (made_up(5, 50 + number), made_up(9, 80 + number))
        sampler = Sampler(**sampling)
        first = alone(backend, prompt, sampler, FIRST)
        second, third = (alone(backend, [*prompt, *first, *turn], sampler, NEXT) for turn in turns)
        talks.append(Talk(sampling, prompt, turns, (first, second, third)))
    return talks, alone(backend, talks[0].prompt, Sampler(**SAMPLINGS[0]), LONG + NEXT)


@dataclass
class Crowd:
    """What all clients share: where the server is, what is right, and what happened. `long`: greedy answer to the
    first talk's prompt. `stall_s`: how long a client leaves an answer unread at most."""

    port: int
    model_id: str
    talks: Sequence[Talk]
    long: list[int]
    stall_s: float = 8.0
    seen: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._frames = FrameReader(CHAT, "server")
        self._messages: list[Message] = []

    def send(self, name: str, **fields: Any) -> None:
        self.writer.write(CHAT.encode(name, **fields))

    async def receive(self) -> Message | None:
        """The next message, or None at the end of the connection."""
        while not self._messages:
            try:
                data = await asyncio.wait_for(self._reader.read(1 << 16), PATIENCE_S)
            except ConnectionError:
                return None
            if not data:
                return None
            self._messages += self._frames.feed(data)
        return self._messages.pop(0)

    async def expect(self, name: str) -> Message:
        message = await self.receive()
        if message is None or message.name != name:
            raise WrongError(f"expected {name}, got {describe(message)}")
        return message

    def reset(self) -> None:
        """Leaves in a way that the server hears as an error."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def describe(message: Message | None) -> str:
    if message is None:
        return "the end of the connection"
    return f"error {message['text']!r}" if message.name == "error" else message.name


@contextlib.asynccontextmanager
async def connected(crowd: Crowd, receive_buffer: int = 0) -> AsyncIterator[Client]:
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", crowd.port))
    reader, writer = await asyncio.open_connection(sock=raw)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), 5)


class BusyError(Exception):
    """The server has no connection or cache left, as it says."""

    def __init__(self, crowd: Crowd, message: Message) -> None:
        super().__init__(message["text"])
        crowd.seen["busy"] += 1
        self.retry_s = message["retry_ms"] / 1000


def refused(crowd: Crowd, message: Message | None, expected: str) -> Exception:
    """Busy, or what is wrong."""
    if message is not None and message.name == "error" and CHAT.label("error", message["code"]) == "busy":
        return BusyError(crowd, message)
    return WrongError(f"expected {expected}, got {describe(message)}")


@contextlib.asynccontextmanager
async def welcomed(crowd: Crowd, receive_buffer: int = 0) -> AsyncIterator[Client]:
    async with connected(crowd, receive_buffer) as client:
        client.send("hello", magic=CHAT.magic, version=CHAT.version, secret="", client="soak")
        message = await client.receive()
        if message is None or message.name != "welcome":
            raise refused(crowd, message, "welcome")
        yield client


def ask(client: Client, ids: Sequence[int], keep: int, most: int, sampling: dict[str, Any], counter: int = 0) -> None:
    fields = {"top_k": 0, "top_p": 1.0} | sampling
    client.send("generate", keep=keep, ids=list(ids), max_tokens=most, ignore_end=0, counter=counter, **fields)


async def finish(crowd: Crowd, client: Client) -> tuple[list[int], Message]:
    """Tokens up to done, and that. Raises BusyError, WrongError."""
    tokens: list[int] = []
    while (message := await client.receive()) is not None and message.name in ("token", "progress"):
        if message.name == "token":
            tokens.append(message["id"])
    if message is None or message.name != "done":
        raise refused(crowd, message, "done")
    return tokens, message


async def turn(crowd: Crowd, client: Client, ids: Sequence[int], keep: int, expected: Sequence[int],
               sampling: dict[str, Any], counter: int) -> Message:
    """A turn whose tokens are known."""
    ask(client, ids, keep, FIRST if keep == 0 else NEXT, sampling, counter)
    tokens, done = await finish(crowd, client)
    if tokens != expected:
        raise WrongError(f"expected the tokens of a session alone, {expected}, got {tokens}")
    crowd.seen["tokens checked"] += len(tokens)
    return done


async def second_turns(crowd: Crowd, client: Client, talk: Talk, counter: int) -> None:
    for ids, expected in zip(talk.turns, talk.answers[1:], strict=True):
        done = await turn(crowd, client, [*talk.answers[0][-1:], *ids], talk.kv_len, expected, talk.sampling, counter)
        counter = done["counter"]


async def converse(crowd: Crowd, rng: random.Random) -> None:
    talk = rng.choice(crowd.talks)
    async with welcomed(crowd) as client:
        done = await turn(crowd, client, talk.prompt, 0, talk.answers[0], talk.sampling, 0)
        await second_turns(crowd, client, talk, done["counter"])
        client.send("goodbye")
        await client.expect("farewell")
    crowd.seen["conversations"] += 1


async def move(crowd: Crowd, rng: random.Random) -> None:
    """A conversation that is saved, and goes on in another connection."""
    talk = rng.choice(crowd.talks)
    async with welcomed(crowd) as client:
        done = await turn(crowd, client, talk.prompt, 0, talk.answers[0], talk.sampling, 0)
        client.send("save")
        size, state = (await client.expect("state"))["bytes"], b""
        while len(state) < size:
            state += bytes((await client.expect("data"))["bytes"])
    async with welcomed(crowd) as client:
        client.send("load", model_id=crowd.model_id, kv_len=talk.kv_len, bytes=size)
        for at in range(0, size, 99_999):
            client.send("data", bytes=state[at : at + 99_999])
            await client.writer.drain()
        message = await client.receive()
        if message is None or message.name != "ok":
            raise refused(crowd, message, "ok")
        await second_turns(crowd, client, talk, done["counter"])
    crowd.seen["states moved"] += 1


async def cancel(crowd: Crowd, rng: random.Random) -> None:
    """A long answer is ended somewhere, and goes on as if it had not been."""
    prompt = crowd.talks[0].prompt
    async with welcomed(crowd) as client:
        ask(client, prompt, 0, LONG, SAMPLINGS[0])
        tokens: list[int] = []
        for _ in range(rng.randrange(1, 9)):
            message = await client.receive()
            if message is None or message.name != "token":
                raise refused(crowd, message, "token")
            tokens.append(message["id"])
        client.send("cancel")
        rest, done = await finish(crowd, client)
        tokens += rest
        if CHAT.label("stop_reason", done["reason"]) == "cancelled":
            ask(client, tokens[-1:], done["kv_len"], NEXT, SAMPLINGS[0])
            tokens += (await finish(crowd, client))[0]
    if tokens != crowd.long[: len(tokens)]:
        raise WrongError("expected the tokens of an answer that was not cancelled, got others")
    crowd.seen["cancels"] += 1


async def fill(client: Client, crowd: Crowd, tokens: int) -> None:
    """Takes a cache, with as many tokens in it."""
    ask(client, made_up(tokens, 1), 0, 1, SAMPLINGS[0])
    await finish(crowd, client)


async def stall(crowd: Crowd, rng: random.Random) -> None:
    """Asks for a state of a megabyte and never reads it; the server ends that, or the client leaves before."""
    async with welcomed(crowd, receive_buffer=4096) as client:
        await fill(client, crowd, 300)
        client.writer.transport.pause_reading()
        client.send("save")
        await asyncio.sleep(rng.uniform(0.5, crowd.stall_s))
        client.reset()
    crowd.seen["stalls"] += 1


async def vanish(crowd: Crowd, rng: random.Random) -> None:
    """Leaves in the middle of a long prompt or an answer: by a reset, or by a close."""
    async with welcomed(crowd) as client:
        ask(client, made_up(rng.choice((3, 400)), 2), 0, LONG, SAMPLINGS[1])
        for _ in range(rng.randrange(4)):
            await client.receive()
        if rng.random() < 0.5:
            client.reset()
    crowd.seen["vanished"] += 1


async def fall_silent(crowd: Crowd, rng: random.Random) -> None:
    """Keeps its cache and says nothing more, until the server closes."""
    async with welcomed(crowd) as client:
        await fill(client, crowd, rng.choice((5, 200)))
        if rng.random() < 0.5:
            client.writer.write(CHAT.encode("ping", nonce=1)[: rng.randrange(1, 15)])  # half a message
        while (message := await client.receive()) is not None:
            if message.name != "error" or CHAT.label("error", message["code"]) != "timeout":
                raise WrongError(f"expected error timeout, got {describe(message)}")
    crowd.seen["silent"] += 1


async def send_garbage(crowd: Crowd, rng: random.Random) -> None:
    """Bytes that are no messages, before or behind a greeting; the server closes."""
    kinds = (rng.randbytes(rng.randrange(1, 3000)), struct.pack("<IHH", 1 << 31, 2, 0), b"GET / HTTP/1.1\r\n\r\n",
             CHAT.encode("ping", nonce=1)[:-1] + b"\xff" * 40, struct.pack("<IHH", 40, 2, 0) + bytes(40))  # fmt: skip
    async with (welcomed if rng.random() < 0.5 else connected)(crowd) as client:
        client.writer.write(rng.choice(kinds))
        client.writer.write_eof()
        while await client.receive() is not None:
            pass
    crowd.seen["garbage"] += 1


async def come_and_go(crowd: Crowd, rng: random.Random) -> None:
    for _ in range(10):
        async with connected(crowd) as client:
            if rng.random() < 0.5:
                client.send("hello", magic=CHAT.magic, version=CHAT.version, secret="", client="")
            if rng.random() < 0.5:
                client.reset()
        crowd.seen["came and went"] += 1


Behaviour = Callable[[Crowd, random.Random], Awaitable[None]]
HONEST: tuple[Behaviour, ...] = (converse, move, cancel)
BEHAVIOURS: dict[Behaviour, int] = {
    converse: 8, move: 3, cancel: 4, stall: 2, vanish: 4, fall_silent: 1, send_garbage: 4, come_and_go: 2,
}  # fmt: skip


async def live(crowd: Crowd, seed: int, over: Callable[[], bool]) -> None:
    """One client after the other; the first thing that is wrong is noted and does not end it."""
    rng = random.Random(seed)
    while not over():
        behave = rng.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))[0]
        try:
            await behave(crowd, rng)
        except BusyError as busy:
            await asyncio.sleep(min(busy.retry_s, 1) * rng.random())
        except (WrongError, TimeoutError) as error:
            crowd.failures.append(f"{behave.__name__}: {error or 'waited in vain'}")
        except ConnectionError as error:
            if behave in HONEST:
                crowd.failures.append(f"{behave.__name__}: {error}")
