"""A connection to the server of a model: frames of dlavm/wire/chat.yaml over TCP, and noticing when nobody is there."""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dlavm import __version__
from dlavm.runtime.interrupts import check_interrupt
from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT, FrameReader, Message, WireError
from dlavm.wire.protocol import HEADER

LEAST_LIMIT = 64  # of the bytes of a payload: a generate of a token
MAX_ROUNDS = 16  # of reading what came while nobody asked
READ_BYTES = 1 << 16
POLL_S = 0.1  # how long Ctrl-C may take to be seen
MAX_SHOWN = 200  # characters of what a server says about itself
HINTS = {
    "unauthorized": "; see --secret-file FILE",
    "version": f"; expected version {CHAT.version} of the protocol, update the older one of the two",
}  # by error code


@dataclass(frozen=True)
class Patience:
    """Seconds: to connect, between pings, of silence until a server counts as dead, of trying while it is busy."""

    connect_s: float = 5.0
    ping_s: float = 1.0
    silence_s: float = 5.0
    busy_s: float = 30.0


@dataclass(frozen=True)
class Address:
    """Where a server listens, and how to be let in. `tls`: None for a plain connection."""

    host: str
    port: int
    secret: str = ""
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ServerLost(DlavmError):  # noqa: N818 - what happened
    """The connection is over; another one may work. `what` happened, as said of the server."""

    def __init__(self, text: str, what: str = "") -> None:
        super().__init__(text)
        self.what = what


class ServerRefused(DlavmError):  # noqa: N818 - what happened
    """The server answered with an error. `code` is its label in the protocol; after a fatal one it closes."""

    def __init__(self, text: str, code: str, retry_ms: int, is_fatal: bool) -> None:
        super().__init__(text)
        self.code = code
        self.retry_ms = retry_ms
        self.is_fatal = is_fatal


class Connection:
    """Messages to and from a server over a connected socket.

    Whatever waits here raises ServerLost as soon as the connection ends, or after `patience.silence_s` without a byte
    from the server, and KeyboardInterrupt at a place that leaves no message half taken, if interrupts are held.
    """

    def __init__(self, sock: socket.socket, where: str, patience: Patience) -> None:
        sock.setblocking(False)
        self.where = where
        self.limit = CHAT.max_message  # bytes of a payload that the server takes
        self._socket = sock
        self._patience = patience
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)
        self._buffered: Callable[[], int] = getattr(sock, "pending", lambda: 0)  # TLS: bytes that select cannot see
        self._reader = FrameReader(CHAT, sender="server")
        self._inbox: deque[Message] = deque()
        self._outgoing = bytearray()
        self._end = ""  # why it is over
        self._life = 0.0  # when the last bytes came
        self._pings = 0

    def send(self, name: str, **fields: Any) -> None:
        """Puts a message on its way; it leaves while something waits. Raises DlavmError for one that is too long."""
        frame = CHAT.encode(name, **fields)
        size = len(frame) - HEADER.size
        if size > self.limit:
            raise DlavmError(f"the server at {self.where}: {name}: expected at most {self.limit} bytes, got {size}")
        self._outgoing += frame

    def receive(self, *names: str, pings: bool = True) -> Message:
        """The next message, one of `names`; with `pings` it asks for signs of life.

        Raises ServerRefused for an error, ServerLost for a farewell or any other message too.
        """
        self._wait(lambda: bool(self._inbox), pings)
        message = self._inbox.popleft()
        if message.name == "error":
            raise self._refusal(message)
        if message.name not in names:
            expected = f"is out of step: expected {' or '.join(names)}, got {message.name!r}"
            raise self._over(_parting(message) or expected)
        return message

    def send_state(self, state: bytes) -> bool:
        """Sends the data messages of a state; False if the server answers before its end."""
        for start in range(0, len(state), self.limit):
            if self._inbox:
                return False
            self.send("data", bytes=state[start : start + self.limit])
            self._wait(lambda: not self._outgoing or bool(self._inbox), pings=False)
        return not self._outgoing

    @property
    def end(self) -> str:
        """What happened if the connection is over, else nothing."""
        return self._end

    def lost(self) -> str:
        """`end`, after a look at what came; for times when no message is due."""
        rounds = 0
        while not self._end and rounds < MAX_ROUNDS and self._pump(0):
            rounds += 1
        if self._inbox:
            message = self._inbox.popleft()
            self._end = _parting(message) or f"is out of step: expected no message, got {message.name!r}"
        return self._end

    def close(self) -> None:
        """Closes the socket; says goodbye if the connection is alive."""
        if not self._end:
            self.send("goodbye")
            self._pump(0)
            self._over("was left")
        self._selector.close()
        self._socket.close()

    def broken(self, why: str) -> ServerLost:
        """The error to raise when the server's messages make no sense."""
        return self._over(f"is out of step: {why}")

    def _wait(self, ready: Callable[[], bool], pings: bool) -> None:
        """Exchanges bytes until `ready`. Without pings, bytes that leave are a sign of life too."""
        self._life = pinged = time.monotonic()
        while not ready():
            if self._end:
                raise self._lost()
            check_interrupt()
            self._pump(min(POLL_S, self._patience.ping_s), count_sent=not pings)
            now = time.monotonic()
            if now - self._life > self._patience.silence_s and not ready():
                raise self._over("does not answer any more")
            if pings and now - pinged >= self._patience.ping_s:
                pinged = now
                self._pings += 1
                self.send("ping", nonce=self._pings)

    def _pump(self, timeout: float, count_sent: bool = False) -> bool:
        """Sends and receives what is possible, waiting for at most `timeout` seconds; whether something came."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
        self._selector.modify(self._socket, wanted)
        came = 0
        for _, events in self._selector.select(timeout):
            came = events & selectors.EVENT_READ
            if came:
                self._fill()
            if events & selectors.EVENT_WRITE and self._drain() and count_sent:
                self._life = time.monotonic()
        return bool(came)

    def _fill(self) -> None:
        while True:
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._over(f"broke the connection: {error.strerror or error}")
                return
            if not data:
                self._over("closed the connection")
                return
            self._life = time.monotonic()
            if not self._take(data) or not self._buffered():
                return

    def _take(self, data: bytes) -> bool:
        try:
            messages = self._reader.feed(data)
        except WireError as error:
            messages = error.messages
            self._over(f"sent what is no message: {error}")
        self._inbox.extend(message for message in messages if message.name != "pong")
        return not self._end

    def _drain(self) -> int:
        """Sends; the bytes that left."""
        try:
            count = self._socket.send(self._outgoing[:READ_BYTES])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:  # what the server said before it closed may still be there to read
            self._outgoing.clear()
            return 0
        del self._outgoing[:count]
        return count

    def _over(self, what: str) -> ServerLost:
        self._end = self._end or what
        return self._lost()

    def _lost(self) -> ServerLost:
        return ServerLost(f"the server at {self.where} {self._end}", self._end)

    def _refusal(self, message: Message) -> ServerRefused:
        code = CHAT.label("error", message["code"])
        said = f"{code}: {shown(message['text'])}" if message["text"] else code
        text = f"the server at {self.where}: {said}{HINTS.get(code, '')}"
        if message["fatal"]:
            self._over(f"closed the connection: {said}")
        return ServerRefused(text, code, message["retry_ms"], bool(message["fatal"]))


def connect(address: Address, patience: Patience) -> tuple[Connection, Message]:
    """A connection and the server's welcome. Raises ServerLost where no dlavm server answers, ServerRefused where it
    does not let us in."""
    connection = Connection(_socket(address, patience), str(address), patience)
    try:
        connection.send("hello", magic=CHAT.magic, version=CHAT.version, secret=address.secret,
                        client=f"dlavm {__version__}")  # fmt: skip
        welcome = connection.receive("welcome", pings=False)
        if not 1 <= welcome["version"] <= CHAT.version:
            raise connection.broken(f"expected protocol version 1..{CHAT.version}, got {welcome['version']}")
        if welcome["max_message"] < LEAST_LIMIT:
            raise connection.broken(f"expected messages of {LEAST_LIMIT} bytes, got {welcome['max_message']} at most")
    except BaseException as error:
        connection.close()
        if isinstance(error, ServerLost):
            hint = "" if address.tls else "; one behind TLS needs --tls"
            text = f"{address}: expected a dlavm server, got one that {error.what}{hint}"
            raise ServerLost(text, error.what) from None
        raise
    connection.limit = min(CHAT.max_message, welcome["max_message"])
    return connection, welcome


def shown(text: str) -> str:
    """A server's text for a terminal: one line, no control characters, not too long."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= MAX_SHOWN else plain[: MAX_SHOWN - 3] + "..."


def _socket(address: Address, patience: Patience) -> socket.socket:
    where = str(address)
    try:
        sock = socket.create_connection((address.host, address.port), timeout=patience.connect_s)
    except TimeoutError:
        raise ServerLost(f"{where}: expected to connect within {patience.connect_s:g} s, got no answer") from None
    except (OSError, UnicodeError) as error:  # a host name that no name can be is a UnicodeError
        raise ServerLost(f"{where}: expected a server that listens there, got {_reason(error)!r}") from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return address.tls.wrap_socket(sock, server_hostname=address.host) if address.tls else sock
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise ServerLost(f"{where}: expected a certificate that this machine or --ca FILE trusts, got "
                         f"{error.verify_message!r}") from None
    except OSError as error:
        sock.close()
        raise ServerLost(f"{where}: expected a server behind TLS, got {_reason(error)!r}") from None
    except BaseException:
        sock.close()
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


def _parting(message: Message) -> str:
    """What a message that ends the connection says, or nothing."""
    if message.name not in ("farewell", "error"):
        return ""
    said = shown(message["text"])
    return f"closed the connection: {said}" if said else "closed the connection"
