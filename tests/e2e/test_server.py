"""The server of the bundled model: the same tokens as a session gives alone, turns, caches that run out, ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from dlavm import __version__
from dlavm.pack.artifact import Artifact
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session, open_session
from dlavm.wire import CHAT
from tests.e2e.server_tools import Client, Server, alone, until
from tests.e2e.test_transports import device_server

Start = Callable[..., Server]
CTX, CHUNK, EOS = 1024, 128, 1
OPTION = re.compile(r"--[a-z][a-z-]+")
PROMPT = [0, 430, 263]


@pytest.fixture(scope="module")
def session(stories: Path) -> Iterator[Session]:
    with open_session(Artifact.open(stories), threads=1) as session:
        yield session


@pytest.fixture
def fresh(session: Session) -> Session:
    session.reset()
    return session


def made_up(count: int, salt: int) -> list[int]:
    return [0, *(7 + (31 * i + 101 * salt) % 4000 for i in range(count - 1))]


def chat(client: Client, number: int, sampling: dict[str, Any], meet: Barrier) -> list[list[int]]:
    """Three answers: to a prompt, to a second turn, and to another second turn in its place."""
    prompt, more, other = made_up(2 + 40 * number, number), made_up(5, 50 + number), made_up(9, 80 + number)
    meet.wait()
    first = client.generate(prompt, max_tokens=20, **sampling)
    assert first.progress == ([(n, len(prompt)) for n in [*range(CHUNK, len(prompt), CHUNK), len(prompt)]]
                              if len(prompt) > CHUNK else [])  # fmt: skip
    assert first.kv_len == len(prompt) + len(first.tokens) - 1
    assert (first.end["prompt_tokens"], first.end["tokens"]) == (len(prompt), len(first.tokens))
    tail = first.tokens[-1:]
    second = client.generate([*tail, *more], keep=first.kv_len, max_tokens=12,
                             **sampling | {"counter": first.end["counter"]})
    third = client.generate([*tail, *other], keep=first.kv_len, max_tokens=12,
                            **sampling | {"counter": second.end["counter"]})
    assert third.end["counter"] == (sum(len(a.tokens) for a in (first, second, third)) if sampling else 0)
    return [first.tokens, second.tokens, third.tokens]


def chat_alone(session: Session, number: int, sampling: dict[str, Any]) -> list[list[int]]:
    prompt, more, other = made_up(2 + 40 * number, number), made_up(5, 50 + number), made_up(9, 80 + number)
    sampler = Sampler(**sampling) if sampling else Sampler(seed=0)
    session.reset()
    first = alone(session, prompt, 20, sampler)
    answers = [first]
    for turn in (more, other):
        session.rewind(session.kv_len - len(prompt) - len(first) + 1)
        answers.append(alone(session, [*first[-1:], *turn], 12, sampler))
    return answers


def test_eight_clients_at_once_get_the_tokens_of_a_session_alone(start: Start, session: Session) -> None:
    kinds: list[dict[str, Any]] = [
        {}, {"temperature": 0.8, "seed": 7}, {"temperature": 1.3, "top_k": 40, "seed": 2**63},
        {"temperature": 1.0, "top_p": 0.9, "seed": 3},
    ]  # fmt: skip
    server, meet = start("--option", "threads=1"), Barrier(8)
    samplings = [kinds[number % len(kinds)] for number in range(8)]

    def one(number: int) -> list[list[int]]:
        with server.client() as client:
            return chat(client, number, samplings[number], meet)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(8)))
    assert answers == [chat_alone(session, number, samplings[number]) for number in range(8)]
    with server.client() as witness:
        until(lambda: server.is_quiet(witness))
        stats = witness.stats()
    assert stats["tokens_out"] == sum(len(tokens) for three in answers for tokens in three)
    assert stats["tokens_in"] > 8 * 40 and stats["device_us"] > 0 and stats["dropped"] == stats["refused"] == 0


def test_a_device_on_another_machine(start: Start, fresh: Session) -> None:
    """The same tokens and states over tcp:; when the device is gone, clients are told and the server lives."""
    prompt = made_up(140, 4)
    expected = alone(fresh, prompt, 10, Sampler(seed=0))
    with device_server() as (device, url):
        server = start("--device", url)
        with server.client() as client, server.client() as other:
            answer = client.generate(prompt, max_tokens=10)
            assert answer.tokens == expected
            assert client.save() == (fresh.kv_len, fresh.save_state())
            device.kill()
            for each in (client, other):
                each.start(PROMPT)
                each.refused("device")
            assert client.stats()["conversations"] == 0
            until(lambda: server.log.count(f"server: device: ids: {url}: the connection is lost") == 2)
        assert server.stop() == 0


def test_turns_are_taken_by_token(start: Start) -> None:
    """A short answer comes to its end while a long one is given."""
    server = start()
    with server.client() as long, server.client() as short:
        long.start(PROMPT, max_tokens=CTX)
        long.expect("token")
        assert len(short.generate(PROMPT, max_tokens=3).tokens) == 3
        long.send("cancel")
        assert long.finish().reason == "cancelled"


def test_welcome(start: Start, stories: Path) -> None:
    manifest = Artifact.open(stories).manifest
    server = start("--max-tokens", 100, "--conversations", 3)
    with Client(server.port) as client:
        welcome = client.hello(version=99)
    assert (welcome["version"], welcome["server"]) == (1, f"dlavm-server {__version__}")
    assert (welcome["model"], welcome["target"]) == ("stories", "v3 on vcu128")
    assert (welcome["target_hash"], welcome["model_id"]) == (manifest.target_hash, manifest.model_id)
    assert welcome["tokenizer_id"] == manifest.files["tokenizer/tokenizer.json"]
    assert (welcome["vocab_size"], welcome["context"], welcome["chunk"]) == (4096, CTX, CHUNK)
    assert (welcome["conversations"], welcome["max_tokens"]) == (3, 100)
    assert (welcome["max_message"], welcome["end_tokens"]) == (CHAT.max_message, [EOS])


def test_ends_of_answers(start: Start, fresh: Session) -> None:
    server = start("--max-tokens", 300)
    story = [0, 430, 263, 790]
    with server.client() as client:
        expected = alone(fresh, story, 300, Sampler(seed=0), ends=[EOS])
        answer = client.generate(story, ignore_end=0, max_tokens=CTX)
        assert answer.tokens == expected
        assert answer.reason == ("eos" if expected[-1] == EOS else "length")
        past = client.generate(story, ignore_end=1, max_tokens=CTX)
        assert (past.reason, len(past.tokens)) == ("length", 300)  # the server's limit
        assert past.tokens[: len(expected)] == expected
        full = client.generate(made_up(CTX - 4, 1), max_tokens=50)
        assert (full.reason, full.kv_len, len(full.tokens)) == ("context", CTX, 5)
        assert full.end["bytes_read"] > 0 and full.end["prefill_us"] > 0 and full.end["decode_us"] > 0
        client.start([full.tokens[-1]], keep=CTX)
        assert "at most 0" in client.refused("invalid")["text"]


def test_a_state_moves_to_another_connection(start: Start, fresh: Session) -> None:
    server, prompt = start(), made_up(150, 3)
    first = alone(fresh, prompt, 10, Sampler(seed=0))
    model_id = fresh.artifact.manifest.model_id
    with server.client() as giver, server.client() as taker:
        assert giver.save() == (0, b"")
        assert giver.generate(prompt, max_tokens=10).tokens == first
        kv_len, state = giver.save()
        assert (kv_len, state) == (fresh.kv_len, fresh.save_state())
        taker.generate(made_up(70, 9))  # what it had is replaced
        taker.start_load(model_id, kv_len, state, piece=9999)  # odd: numbers are cut
        assert taker.expect("ok")["kv_len"] == kv_len
        assert taker.save() == (kv_len, state)
        expected = alone(fresh, first[-1:], 30, Sampler(seed=0))
        for client in (taker, giver):
            assert client.generate(first[-1:], keep=kv_len, max_tokens=30).tokens == expected
        taker.start_load(model_id, 0, b"")
        assert taker.expect("ok")["kv_len"] == taker.stats()["kv_len"] == 0


def test_a_load_that_is_refused_leaves_the_cache(start: Start, fresh: Session) -> None:
    server, model_id = start(), fresh.artifact.manifest.model_id
    size = fresh.state_bytes(40)
    expected = alone(fresh, PROMPT, 8, Sampler(seed=0))
    with server.client() as client:
        assert client.generate(PROMPT).tokens == expected
        kv_len, state = client.save()
        for wrong in ((model_id[::-1], 40, bytes(size)), (model_id, CTX + 1, bytes(size)), (model_id, 20, bytes(size)),
                      ("", 40, bytes(10)), (model_id, 40, b"")):
            client.start_load(*wrong, piece=1000)
            client.refused("invalid")
            assert client.stats()["kv_len"] == kv_len
        assert client.save() == (kv_len, state)
        client.start_load(model_id, kv_len, state[:-2] + b"\xff\x7f")  # the last number is not finite
        assert "finite" in client.refused("invalid", fatal=True)["text"]
    with server.client() as witness:
        until(lambda: server.is_quiet(witness))


def test_cancel(start: Start, fresh: Session) -> None:
    server = start()
    with server.client() as client:
        client.send("cancel")  # there is nothing
        client.start(PROMPT, max_tokens=CTX)
        first = client.expect("token")["id"]
        client.send("cancel")
        client.send("cancel")  # once is enough
        answer = client.finish()
        tokens = [first, *answer.tokens]
        assert (answer.reason, answer.end["tokens"]) == ("cancelled", len(tokens))
        assert answer.kv_len == len(PROMPT) + len(tokens) - 1
        assert tokens == alone(fresh, PROMPT, len(tokens), Sampler(seed=0))
        following = client.generate(tokens[-1:], keep=answer.kv_len)
        assert following.tokens == alone(fresh, tokens[-1:], 8, Sampler(seed=0))
        client.start(made_up(900, 5), max_tokens=CTX)
        done = client.expect("progress")["done"]
        client.send("cancel")
        answer = client.finish()
        assert answer.reason == "cancelled" and done <= answer.kv_len
        assert answer.end["prompt_tokens"] == min(answer.kv_len, 900)


def test_ping_and_stats_during_an_answer(start: Start) -> None:
    server = start()
    with server.client() as client, server.client() as witness:
        client.start(PROMPT, max_tokens=CTX)
        client.expect("token")
        client.send("ping", nonce=2**64 - 1)
        client.send("stats")
        names = []
        while len(names) < 2:
            message = client.receive()
            assert message is not None
            if message.name != "token":
                names.append((message.name, message.fields.get("nonce", message.fields.get("answering"))))
        assert names == [("pong", 2**64 - 1), ("statistics", 1)]
        assert witness.stats()["answering"] == 1
        client.send("goodbye")
        while (message := client.receive()) is not None:
            last = message
        assert last.name == "farewell"
        until(lambda: server.is_quiet(witness))


def test_caches_run_out(start: Start, session: Session) -> None:
    server = start("--conversations", 2, "--idle-timeout", 30)
    with server.client() as one, server.client() as two, server.client() as three:
        one.generate(PROMPT)
        two.generate(PROMPT)
        three.start(PROMPT)
        assert 500 <= three.refused("busy")["retry_ms"] <= 10000
        three.start_load(session.artifact.manifest.model_id, 1, bytes(session.state_bytes(1)), piece=1000)
        three.refused("busy")
        assert three.ask("reset", "ok", keep=0)["kv_len"] == 0
        assert three.stats()["refused"] == 2
        assert one.ask("reset", "ok", keep=2)["kv_len"] == 2  # it keeps its cache
        three.start(PROMPT)
        three.refused("busy")
        one.ask("reset", "ok", keep=0)
        assert three.generate(PROMPT).reason == "length"
        one.start(PROMPT)
        one.refused("busy")
        two.close()
        until(lambda: one.stats()["conversations"] == 1)
        assert one.generate(PROMPT).reason == "length"


def test_connections_run_out(start: Start) -> None:
    server = start("--max-connections", 2)
    with server.client() as one, server.client() as two, Client(server.port) as three:
        assert three.refused("busy", fatal=True)["retry_ms"] >= 500
        assert one.stats()["connections"] == 2
        two.close()
        until(lambda: one.stats()["connections"] == 1)
        server.client().close()
        assert one.stats()["refused"] == 1


def test_a_secret(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("open sesame ü\n")
    file.chmod(0o644)
    server = start("--secret-file", file)
    assert f"warning: --secret-file {file}: others can read it" in server.log
    server.client(secret="open sesame ü").close()
    for wrong in ("", "open sesame", "open sesame ü\n", "open sesame ü" * 2, "x" * 3000):
        assert unauthorized(server, wrong).endswith("of the server, got " + ("another one" if wrong else "none"))
    file.chmod(0o600)
    assert "warning" not in start("--secret-file", file).log
    assert unauthorized(start(), "open sesame").endswith("expected none, got one")


def unauthorized(server: Server, secret: str) -> str:
    with Client(server.port) as client:
        client.send("hello", magic=CHAT.magic, version=1, client="x", secret=secret)
        return str(client.refused("unauthorized", fatal=True)["text"])


def test_shutdown(start: Start, fresh: Session) -> None:
    """Answers end with the token that is being computed, everyone is told, and what was begun is answered."""
    server = start()
    with server.client() as answering, server.client() as idle, Client(server.port) as silent:
        answering.start(PROMPT, max_tokens=CTX)
        first = answering.expect("token")["id"]
        server.process.terminate()
        answer = answering.finish()
        tokens = [first, *answer.tokens]
        assert (answer.reason, answer.end["tokens"]) == ("shutdown", len(tokens))
        assert tokens == alone(fresh, PROMPT, len(tokens), Sampler(seed=0))
        for client in (answering, idle):
            client.expect("farewell")
            assert client.receive() is None
        assert silent.expect("error")["code"] == CHAT.enums["error"]["shutdown"]
    assert server.process.wait(60) == 0
    with pytest.raises(ConnectionError):
        Client(server.port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(start: Start, number: signal.Signals) -> None:
    assert start().stop(number) == 0
    server = start()
    with server.client() as client:  # does not leave: the server waits for two seconds
        server.process.send_signal(number)
        client.expect("farewell")
        assert server.stop(number) == 128 + number


def test_a_client_notices_a_server_that_was_killed(start: Start) -> None:
    server = start()
    with server.client() as client:
        client.start(PROMPT, max_tokens=CTX)
        client.expect("token")
        server.process.kill()
        began = time.monotonic()
        while client.receive() is not None:
            pass
        assert time.monotonic() - began < 5


def test_log(start: Start) -> None:
    server = start()
    with server.client(client="evil\nname\x1b[31m" + "x" * 100) as client:
        name = "{}:{}".format(*client.socket.getsockname())
        client.generate(PROMPT)
        client.send("goodbye")
        client.expect("farewell")
        assert client.receive() is None
    until(lambda: "closed" in server.log)
    shown = "evil?name?[31m" + "x" * 46
    assert server.log == f"{name} opened\n{name} closed: goodbye ({shown}, 1 requests, 8 tokens)\n"
    quiet = start("--quiet")
    quiet.client().close()
    assert quiet.stop() == 0 and quiet.log == ""


def test_addresses(start: Start, server_program: Path, stories: Path) -> None:
    server = start()
    taken = run(server_program, "--artifact", stories, "--listen", f"127.0.0.1:{server.port}")
    assert (taken.returncode, taken.stdout, taken.stderr.count("\n")) == (2, "", 1)
    assert taken.stderr.startswith(f"server: --listen 127.0.0.1:{server.port}: expected a free address of this machine")
    everyone = start("--listen", "0.0.0.0:0")
    everyone.client().close()
    assert f"warning: --listen 0.0.0.0:{everyone.port}: anyone who reaches it may use it" in everyone.log
    if socket.has_ipv6:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return
        assert "warning" not in start("--listen", "[::1]:0").log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fast",), "expected an option that --help lists, got '--fast'"),
        (("8123",), "expected an option that --help lists, got '8123'"),
        (("--listen",), "--listen: expected a value, got none"),
        (("--listen", "8123"), "--listen: expected HOST:PORT or [IPV6]:PORT, got '8123'"),
        (("--listen", "::1:8123"), "--listen: expected HOST:PORT or [IPV6]:PORT, got '::1:8123'"),
        (("--listen", "127.0.0.1:65536"), "--listen: expected HOST:PORT or [IPV6]:PORT, got '127.0.0.1:65536'"),
        (("--listen", "192.0.2.1:0"), "--listen 192.0.2.1:0: expected a free address of this machine, got "),
        (("--max-connections", "0"), "--max-connections: expected an integer in 1..65536, got '0'"),
        (("--conversations", "100000"), "--conversations: expected an integer in 1.."),
        (("--max-tokens", str(CTX + 1)), f"--max-tokens: expected an integer in 1..{CTX}, got '{CTX + 1}'"),
        (("--idle-timeout", "-1"), "--idle-timeout: expected seconds in 0..1000000, got '-1'"),
        (("--stall-timeout", "1e9"), "--stall-timeout: expected seconds in 0..1000000, got '1e9'"),
        (("--message-timeout", "1s"), "--message-timeout: expected seconds in 0..1000000, got '1s'"),
        (("--answer-timeout", ""), "--answer-timeout: expected seconds in 0..1000000, got ''"),
        (("--option", "threads"), "--option: expected NAME=VALUE, got 'threads'"),
        (("--option", "volume=11"), "device option volume: "),
        (("--device", "pcie"), "device 'pcie': "),
        (("--artifact", "/nowhere"), "/nowhere/"),
        (("--secret-file", "/nowhere"), "--secret-file /nowhere: expected a readable file, got No such file"),
        (("--secret-file", "/"), "--secret-file /: expected "),
        (("--secret-file", "/dev/null"), "--secret-file /dev/null: expected a secret, got none"),
        (("--secret-file", "/dev/zero"), "--secret-file /dev/zero: expected at most 1024 bytes, got more"),
    ],
)  # fmt: skip
def test_bad_options(arguments: tuple[str, ...], message: str, server_program: Path, stories: Path) -> None:
    done = run(server_program, "--artifact", stories, "--listen", "127.0.0.1:0", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"server: {message}") and done.stderr.count("\n") == 1


def test_help_and_the_unit(server_program: Path, stories: Path) -> None:
    """Every option that the unit and the README use is one."""
    done = run(server_program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    known = set(OPTION.findall(done.stdout))
    assert {"--listen", "--secret-file", "--quiet"} <= known
    unit = (stories / "host" / "dlavm-server.service").read_text()
    starts = " ".join(line for line in unit.splitlines() if "ExecStart=" in line)
    readme = (stories / "host" / "README.md").read_text()
    table = " ".join(line for line in readme.splitlines() if line.startswith("|"))
    used = set(OPTION.findall(starts + table))
    assert len(used) > 8 and used <= known, used - known
    assert "NoNewPrivileges=yes" in unit and "Restart=on-failure" in unit


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=60)
