"""Saved caches of a server, and connecting to one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlavm.runtime.chat import Conversation
from dlavm.runtime.connection import Address, ServerLost, ServerRefused
from dlavm.runtime.remote import RemoteBackend
from dlavm.runtime.sampling import Sampler
from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT, Message
from tests.unit.fake_runtime import follow
from tests.unit.fake_server import QUICK, Caller, FakeServer, Talk
from tests.unit.test_chat import TOKENIZER, parrot


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(parrot) as running:
        yield running


class TestStates:
    def test_save_and_load(self, server: FakeServer, tmp_path: Path) -> None:
        server.next_of = follow
        one, two = Caller(server, max_tokens=9), Caller(server, max_tokens=9)
        one.talk.set("temperature", 9.0)
        one.say("hi")
        one.talk.save(tmp_path / "x.chat")
        two.talk.load(tmp_path / "x.chat")
        assert two.backend.ids == one.backend.ids and server.talks[0].cached == server.talks[1].cached
        assert max(len(m["bytes"]) for m in server.received if m.name == "data") <= 256
        assert one.say("you") == two.say("you")
        keeps = [message["keep"] for message in server.received if message.name == "generate"]
        assert keeps[-1] == keeps[-2] >= 5
        assert one.talk.turns == two.talk.turns and one.talk.sampler == two.talk.sampler

    def test_another_model(self, server: FakeServer, tmp_path: Path) -> None:
        one = Caller(server)
        one.say("hi")
        one.talk.save(tmp_path / "x.chat")
        with FakeServer(parrot, model_id="e" * 64) as other:
            two = Caller(other)
            with pytest.raises(DlavmError, match=r"expected a chat with tiny \(model e{12}\), got one with 'tiny'"):
                two.talk.load(tmp_path / "x.chat")
            assert "load" not in other.names and two.say("you") == "you"

    def test_a_load_that_is_refused(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        with pytest.raises(ServerRefused, match="invalid: expected 8 bytes, got 3"):
            caller.backend.load([4, 5], b"abc")
        assert caller.say("you") == "you" and caller.notes == []

    def test_a_load_that_is_refused_early(self, server: FakeServer) -> None:
        caller = Caller(server)
        server.hooks["load"] = lambda talk, message: talk.error("invalid", "not this one") or True
        server.hooks["data"] = lambda talk, message: time.sleep(0.01) or True
        with pytest.raises(ServerRefused, match="not this one"):
            caller.backend.load([4], bytes(1 << 22))
        assert server.names.count("data") < 1 << 14
        assert caller.say("you") == "you"
        assert len(server.talks) == 2

    def test_an_ok_that_comes_too_early_or_is_wrong(self, server: FakeServer) -> None:
        caller = Caller(server)
        server.hooks["data"] = lambda talk, message: time.sleep(0.01) or True
        for kv_len, size in ((1, 1 << 22), (2, 4)):
            server.hooks["load"] = lambda talk, message, kv_len=kv_len: talk.send("ok", kv_len=kv_len) or True
            with pytest.raises(ServerLost, match="expected 1 cached tokens after the state"):
                caller.backend.load([4], bytes(size))
            assert caller.backend.ids == () and caller.say("you") == "you"

    def test_a_server_that_does_not_read(self, server: FakeServer) -> None:
        caller = Caller(server)
        server.hooks["load"] = lambda talk, message: setattr(talk, "is_deaf", True) or True  # type: ignore[func-returns-value]
        with pytest.raises(ServerLost, match="does not answer any more"):
            caller.backend.load([4], bytes(1 << 25))

    def test_states_that_make_no_sense(self, server: FakeServer) -> None:
        def state(kv_len: int, size: int, *parts: int) -> Callable[[Talk, Message], bool]:
            def answer(talk: Talk, message: Message) -> bool:
                talk.send("state", kv_len=kv_len, bytes=size)
                for part in parts:
                    talk.send("data", bytes=bytes(part))
                return True

            return answer

        for hook, match in ((state(3, 12), "expected the state of 7 tokens, got 3"),
                            (state(7, 28, 20, 20), "expected 1..8 bytes of a state, got 20"),
                            (state(7, 28, 0), "expected 1..28 bytes of a state, got 0")):  # fmt: skip
            caller = Caller(server)
            caller.say("hi")
            server.hooks["save"] = hook
            with pytest.raises(ServerLost, match=match):
                caller.backend.save()
            assert caller.say("you") == "you"

    def test_a_server_that_dies_while_it_saves(self, server: FakeServer) -> None:
        caller = Caller(server)
        caller.say("hi")
        server.hooks["save"] = lambda talk, message: talk.send("state", kv_len=7, bytes=28) or talk.kill() or True
        with pytest.raises(ServerLost, match="closed the connection"):
            caller.backend.save()
        assert caller.backend.save() == b""


def listen(answer: Callable[[socket.socket], object]) -> Iterator[Address]:
    """A server that is none: one connection is answered with `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            sock, _ = listener.accept()
            with contextlib.suppress(OSError), sock:
                answer(sock)
                while sock.recv(1 << 16):
                    pass

        threading.Thread(target=accept, daemon=True).start()
        yield Address("127.0.0.1", listener.getsockname()[1])


class TestConnecting:
    @pytest.mark.parametrize(
        ("answer", "match"),
        [
            (lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "one that sent what is no message"),
            (lambda sock: sock.close(), "one that (closed|broke) the connection"),
            (lambda sock: time.sleep(1.5), "one that does not answer any more"),
            (lambda sock: sock.sendall(CHAT.encode("farewell", text="full\x00")), "closed the connection: full;"),
            (lambda sock: sock.sendall(CHAT.encode("pong", nonce=1)), "does not answer any more"),
            (lambda sock: sock.sendall(CHAT.encode("ok", kv_len=1)), "expected welcome, got 'ok'"),
        ],
    )
    def test_no_dlavm_server(self, answer: Callable[[socket.socket], object], match: str) -> None:
        for address in listen(answer):
            with pytest.raises(ServerLost, match=rf"^127\.0\.0\.1:\d+: expected a dlavm server, got .*{match}.*--tls$"):
                RemoteBackend(address, pytest.fail, QUICK)

    def test_another_version(self) -> None:
        with FakeServer(version=2) as server, pytest.raises(ServerLost, match="expected protocol version 1..1, got 2"):
            Caller(server)

    def test_a_limit_that_no_request_fits(self) -> None:
        with FakeServer(max_message=0) as server, pytest.raises(ServerLost, match="of 64 bytes, got 0"):
            Caller(server)

    @pytest.mark.parametrize(
        ("code", "hint"), [("version", "expected version 1"), ("unauthorized", "--secret-file"), ("shutdown", "")]
    )
    def test_a_refusal(self, server: FakeServer, code: str, hint: str) -> None:
        server.hooks["hello"] = lambda talk, message: talk.error(code, fatal=1) or True
        with pytest.raises(ServerRefused, match=rf"^the server at 127\.0\.0\.1:\d+: {code}: no.*{hint}"):
            Caller(server)

    def test_the_hello(self, server: FakeServer) -> None:
        address = Address("127.0.0.1", server.port, "open sesame")
        backend = RemoteBackend(address, pytest.fail, QUICK)
        hello = server.last("hello")
        assert (hello["magic"], hello["version"], hello["secret"]) == (CHAT.magic, CHAT.version, "open sesame")
        assert hello["client"].startswith("dlavm ")
        assert backend.model.name == "tiny" and backend.model.context == 64

    def test_ipv6(self) -> None:
        assert str(Address("::1", 7)) == "[::1]:7"
        with pytest.raises(ServerLost, match=r"^\[::1\]:1: expected a server that listens there"):
            RemoteBackend(Address("::1", 1), pytest.fail, QUICK)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", made,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
class TestTls:
    @pytest.fixture
    def secure(self, certificate: tuple[Path, Path]) -> Iterator[FakeServer]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        with FakeServer(parrot, tls=context) as running:
            yield running

    def test_a_trusted_one(self, secure: FakeServer, certificate: tuple[Path, Path], tmp_path: Path) -> None:
        trust = ssl.create_default_context(cafile=certificate[0])
        backend = RemoteBackend(Address("127.0.0.1", secure.port, tls=trust), pytest.fail, QUICK)
        talk = Conversation(backend, TOKENIZER, Sampler(), 50)
        assert "".join(talk.ask("hello")) == "hello"
        talk.save(tmp_path / "x.chat")
        talk.load(tmp_path / "x.chat")
        assert "".join(talk.ask("you")) == "you"

    def test_one_that_nobody_vouches_for(self, secure: FakeServer) -> None:
        address = Address("127.0.0.1", secure.port, tls=ssl.create_default_context())
        with pytest.raises(ServerLost, match="expected a certificate that this machine or --ca FILE trusts"):
            RemoteBackend(address, pytest.fail, QUICK)

    def test_tls_on_one_side_only(self, secure: FakeServer, server: FakeServer) -> None:
        with pytest.raises(ServerLost, match="--tls"):
            RemoteBackend(secure.address, pytest.fail, QUICK)
        address = Address("127.0.0.1", server.port, tls=ssl.create_default_context())
        with pytest.raises(ServerLost, match="expected a server behind TLS"):
            RemoteBackend(address, pytest.fail, QUICK)
