"""What a server must survive: bytes that are no messages, clients that stall or vanish. The others go on unharmed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.wire import CHAT
from tests.e2e.server_tools import GENERATE, HELLO, Client, Server, until

Start = Callable[..., Server]
CTX, VOCAB = 1024, 4096
PROMPT = [0, 430, 263]
GENERATE_3 = GENERATE | {"ids": PROMPT}
LOAD = {"model_id": "0" * 64, "kv_len": 3, "bytes": 131072}
EACH = [
    ("hello", HELLO), ("generate", GENERATE_3), ("cancel", {}), ("reset", {"keep": 0}), ("save", {}), ("load", LOAD),
    ("data", {"bytes": b"12345678"}), ("stats", {}), ("ping", {"nonce": 7}), ("goodbye", {}),
]  # fmt: skip


def frame(number: int, payload: bytes = b"", reserved: int = 0) -> bytes:
    return struct.pack("<IHH", len(payload), number, reserved) + payload


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[Client]:
    """A conversation that was begun before goes on afterwards as if nothing had been, and nobody is left but it."""
    with server.client() as before:
        expected = before.generate(PROMPT, max_tokens=40)
    with server.client() as witness:
        first = witness.generate(PROMPT, max_tokens=20)
        yield witness
        until(lambda: server.is_quiet(witness, conversations=1))
        second = witness.generate(first.tokens[-1:], keep=first.kv_len, max_tokens=20)
        assert first.tokens + second.tokens == expected.tokens
        until(lambda: server.is_quiet(witness, conversations=1))


def test_every_message_cut_at_every_byte(start: Start) -> None:
    server = start("--conversations", 4)
    with unharmed(server):
        for name, fields in EACH:
            whole = CHAT.encode(name, **fields)
            for cut in range(len(whole)):
                with Client(server.port) as client:
                    if name != "hello":
                        client.hello()
                    client.socket.sendall(whole[:cut])
                    if cut % 2:
                        client.reset()


def test_vanishing_at_every_point_of_a_talk(start: Start) -> None:
    """After each message of a conversation, in the middle of its answers, leaving politely or not."""
    server = start("--conversations", 3)
    with server.client() as giver, unharmed(server):
        giver.generate(PROMPT)
        kv_len, state = giver.save()
        talk = [("generate", GENERATE_3 | {"max_tokens": CTX}), ("save", {}), ("load", LOAD | {"kv_len": kv_len}),
                ("data", {"bytes": state[:1000]}), ("generate", GENERATE_3 | {"ids": [5] * 900})]  # fmt: skip
        giver.close()
        for name, fields in talk:
            for leave in (Client.close, Client.reset):
                for _ in range(3):
                    client = server.client()
                    if name == "data":
                        client.send("load", **LOAD | {"model_id": client_model(server), "kv_len": kv_len})
                    client.send(name, **fields)
                    if name == "generate":
                        client.receive()
                    leave(client)


def client_model(server: Server) -> str:
    with Client(server.port) as client:
        return str(client.hello()["model_id"])


@pytest.mark.parametrize("greeted", [False, True])
def test_random_bytes(greeted: bool, start: Start) -> None:
    server, rng = start("--message-timeout", 2), np.random.default_rng(5)
    with unharmed(server):
        for size in rng.integers(1, 3000, 60):
            with server.client() if greeted else Client(server.port) as client:
                with contextlib.suppress(ConnectionError):
                    client.socket.sendall(rng.bytes(int(size)))
                while (message := client.receive()) is not None:
                    assert message.name in ("error", "pong", "statistics", "farewell")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (struct.pack("<IHH", 1 << 31, 2, 0), "too_large"),
        (struct.pack("<IHH", (1 << 32) - 1, 2, 0), "too_large"),
        (struct.pack("<IHH", CHAT.max_message + 1, 10, 0), "too_large"),
        (frame(8, bytes(8), reserved=1), "malformed"),
        (frame(0), "malformed"),
        (frame(99), "malformed"),
        (frame(64), "malformed"),  # a message of the server
        (frame(8, bytes(7)), "malformed"),
        (frame(8, bytes(9)), "malformed"),
        (struct.pack("<IHH", 1000, 3, 0), "malformed"),  # a cancel has no payload: seen before it is there
        (frame(2, bytes(45) + struct.pack("<I", 1 << 30)), "malformed"),  # more ids than bytes
        (frame(6, struct.pack("<H", 4) + b"\xff\xfe\xfd\xfc" + bytes(12)), "malformed"),  # no UTF-8
        (frame(10, b"12"), "unexpected"),
        (frame(10), "unexpected"),
        (CHAT.encode("hello", **HELLO), "unexpected"),
    ],
    ids=range(15),
)
def test_bytes_that_end_the_connection(raw: bytes, code: str, start: Start) -> None:
    server = start()
    with unharmed(server), server.client() as client:
        client.send("ping", nonce=1)
        client.socket.sendall(raw)
        client.expect("pong")
        client.refused(code, fatal=True)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"),
        (CHAT.encode("hello", **HELLO | {"magic": 1}), "malformed"),
        (CHAT.encode("hello", **HELLO | {"version": 0}), "version"),
        (CHAT.encode("hello", **HELLO | {"client": "x" * 5000}), "too_large"),
        (struct.pack("<IHH", 5000, 1, 0), "too_large"),  # of a client that is not known yet
        *[(CHAT.encode(name, **fields), "unexpected") for name, fields in EACH[1:]],
    ],
    ids=range(14),
)
def test_bytes_that_are_no_greeting(raw: bytes, code: str, start: Start) -> None:
    server = start()
    with unharmed(server), Client(server.port) as client:
        client.socket.sendall(raw)
        client.refused(code, fatal=True)


@pytest.mark.parametrize("name", ["generate", "reset", "save", "load", "data"])
def test_a_request_during_an_answer(name: str, start: Start) -> None:
    server = start()
    with unharmed(server), server.client() as client:
        client.start(PROMPT, max_tokens=CTX)
        client.send(name, **dict(EACH)[name])
        while (message := client.receive()) is not None and message.name == "token":
            pass
        assert message is not None and CHAT.label("error", message["code"]) == "unexpected"
        assert message["fatal"] and client.receive() is None


def test_data_out_of_place(start: Start) -> None:
    server = start()
    with unharmed(server):
        model_id = client_model(server)
        for pieces, text in (((131072, 1), "data: expected a load that"), ((131073,), "1..131072 bytes, got 131073"),
                             ((131071, 2), "1..1 bytes, got 2"), ((0,), "1..131072 bytes, got 0")):
            with server.client() as client:
                client.send("load", **LOAD | {"model_id": model_id})
                for size in pieces:
                    client.send("data", bytes=bytes(size))
                while (message := client.receive()) is not None and message.name == "ok":
                    pass
                assert message is not None and text in message["text"] and message["fatal"]
        with server.client() as client:
            client.send("load", **LOAD | {"bytes": 1 << 62})
            client.refused("invalid", fatal=True)


def test_values_out_of_range(start: Start) -> None:
    """Each is refused, and the conversation is as before."""
    server = start()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"keep": 11}, "keep: expected 0..10, got 11"), ({"keep": 2**32 - 1}, "keep: expected 0..10"),
        ({"ids": []}, "tokens: expected at least one, got none"), ({"ids": [5, VOCAB]}, "token 1: expected an id in"),
        ({"ids": [5] * (CTX + 1)}, "tokens: expected at most 1024"), ({"keep": 9, "ids": [5] * 1016}, "at most 1015"),
        ({"ids": [5] * 200000}, "tokens: expected at most 1024"),
        ({"max_tokens": 0}, "max_tokens: expected at least 1, got 0"), ({"ignore_end": 2}, "ignore_end: expected"),
        ({"temperature": -0.1}, "temperature: expected"), ({"temperature": float("nan")}, "temperature: expected"),
        ({"temperature": float("inf")}, "temperature: expected"), ({"top_k": 2**31}, "top_k: expected"),
        ({"top_p": 0.0}, "top_p: expected"), ({"top_p": 1.1}, "top_p: expected"), ({"top_p": float("nan")}, "top_p"),
    ]  # fmt: skip
    with unharmed(server), server.client() as client, server.client() as other:
        first = client.generate(PROMPT)
        assert first.kv_len == 10
        for fields, text in wrong:
            client.start(**{"ids": [5]} | fields)
            message = client.refused("invalid")
            assert message["text"].startswith("generate: ") and text in message["text"]
        client.send("reset", keep=11)
        assert client.refused("invalid")["text"] == "reset: keep: expected 0..10, got 11"
        assert client.stats()["kv_len"] == 10
        following = client.generate(first.tokens[-1:], keep=10)
        assert first.tokens + following.tokens == other.generate(PROMPT, max_tokens=16).tokens


def test_slow_senders(start: Start) -> None:
    """Without a word, byte by byte, and in the middle of a load."""
    server = start("--message-timeout", 1)
    with unharmed(server), Client(server.port) as silent, Client(server.port) as slow, server.client() as late, \
                server.client() as loading, server.client() as halfway:  # fmt: skip
        late.socket.sendall(CHAT.encode("ping", nonce=1)[:-1])
        loading.send("load", **LOAD)
        loading.send("data", bytes=b"12")
        model_id = client_model(server)
        halfway.send("load", **LOAD | {"model_id": model_id})
        halfway.send("data", bytes=bytes(5))
        with contextlib.suppress(ConnectionError):
            for byte in CHAT.encode("hello", **HELLO):
                slow.socket.sendall(bytes([byte]))
                time.sleep(0.05)
        for client in (silent, slow, late, loading, halfway):
            assert "within 1000 ms" in client.refused("timeout", fatal=True)["text"]


def test_idle(start: Start) -> None:
    """Pings and statistics are no requests."""
    server = start("--idle-timeout", 1)
    with server.client() as quiet, server.client() as pinging:
        quiet.generate(PROMPT)
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                pinging.send("ping", nonce=1)
                pinging.send("stats")
                time.sleep(0.01)
        names = []
        while (message := pinging.receive()) is not None:
            names.append(message.name)
        assert {"pong", "statistics"} <= set(names) and names[-1] == "error"
        assert "request: expected within 1000 ms" in quiet.refused("timeout", fatal=True)["text"]
    with server.client() as witness:
        until(lambda: server.is_quiet(witness))
        assert witness.stats()["dropped"] == 2


def test_the_time_of_an_answer(start: Start) -> None:
    server = start("--answer-timeout", 0.05)
    with server.client() as client:
        answer = client.generate(PROMPT, max_tokens=CTX)
        assert answer.reason == "timeout" and answer.kv_len == max(0, len(PROMPT) + len(answer.tokens) - 1)


def test_clients_that_never_read(start: Start) -> None:
    server = start("--stall-timeout", 0.5)
    with unharmed(server):
        filler = server.client()
        full = filler.generate([5] * 900, max_tokens=1)
        with contextlib.ExitStack() as stack:
            deaf = [stack.enter_context(Client(server.port, receive_buffer=4096)) for _ in range(3)]
            for client in deaf:
                client.hello()
            deaf[0].start([5] * 900, max_tokens=1)
            assert len(deaf[0].finish().tokens) == 1
            deaf[0].send("save")  # 4 MB
            for client, request in ((deaf[1], CHAT.encode("stats")), (deaf[2], CHAT.encode("ping", nonce=1))):
                client.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    while True:
                        client.socket.send(request * 1000)
            until(lambda: server.log.count("output: reader: expected within 500 ms") == 3)
        assert filler.generate(full.tokens, keep=900, max_tokens=1).reason == "length"
        filler.close()


def connect_many(server: Server, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(count)]


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough open files for this process too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip("needs 3,000 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("limit", [128, 1100])
def test_a_thousand_connections(limit: int, start: Start) -> None:
    server = start("--max-connections", limit, "--quiet")
    with unharmed(server) as witness:
        sockets = connect_many(server, 1000)
        expected = min(limit, 1001)
        until(lambda: witness.stats()["connections"] == expected)
        assert len(witness.generate(PROMPT, keep=0, max_tokens=20).tokens) == 20
        for client in sockets:
            client.close()
        until(lambda: server.is_quiet(witness, conversations=1))
        witness.generate(PROMPT, keep=0, max_tokens=20)
        assert (witness.stats()["refused"] > 0) == (limit == 128)


def test_open_files_run_out(start: Start) -> None:
    """The server waits for one to be free, without being busy meanwhile."""
    server = start("--message-timeout", 30, descriptors=20)
    assert "the system allows 20 open files" in server.log
    with server.client() as client:
        client.generate(PROMPT)
        sockets = connect_many(server, 40)
        until(lambda: "accept: Too many open files" in server.log)
        before = cpu_seconds(server)
        time.sleep(1)
        assert cpu_seconds(server) - before < 0.5
        assert client.generate(PROMPT).reason == "length"
        for each in sockets:
            each.close()
        until(lambda: server.is_quiet(client, conversations=1))
        server.client().close()


def test_a_log_that_nobody_reads(server_program: Path, stories: Path, tmp_path: Path) -> None:
    """A pipe that is full, or a terminal that is paused, keeps no client waiting."""
    os.mkfifo(tmp_path / "log")
    pipe = os.open(tmp_path / "log", os.O_RDWR)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    with Server(server_program, stories, tmp_path / "log") as server, unharmed(server) as witness:
        for _ in range(100):
            server.client().close()
        until(lambda: server.is_quiet(witness, conversations=1))
        assert b" opened\n" in os.read(pipe, 4096)
    os.close(pipe)


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_conversations_come_and_go(start: Start) -> None:
    """Places are given back: each time by another end."""
    server = start("--conversations", 2)
    with server.client() as witness:
        for number in range(60):
            with server.client() as client:
                client.start(PROMPT, max_tokens=1 + number % 7)
                if number % 3 == 0:
                    client.finish()
                if number % 3 == 1:
                    client.receive()
                if number % 2:
                    client.reset()
            until(lambda: server.is_quiet(witness))
        assert witness.stats()["refused"] == 0
