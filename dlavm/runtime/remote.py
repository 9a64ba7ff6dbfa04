"""A model on a server: the backend that speaks the chat protocol, connects again and waits its turn."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dlavm.runtime.backend import ModelFacts, kept_tokens
from dlavm.runtime.connection import Address, Connection, Patience, ServerLost, ServerRefused, connect, shown
from dlavm.runtime.generate import Cost, Progress, stop_reason
from dlavm.runtime.interrupts import held_interrupts
from dlavm.runtime.sampling import Sampler
from dlavm.support.errors import DlavmError
from dlavm.wire import CHAT, Message

T = TypeVar("T")

MIN_RETRY_S = 0.05
LASTING = ("model", "model_id", "tokenizer_id", "vocab_size", "context")  # of a welcome, as long as a conversation
ANSWER = ("progress", "token", "done")


class RemoteBackend:
    """One conversation on a server.

    A connection that ended is replaced with the next request; the cache is empty then. `note` hears of what people
    should know meanwhile. Raises DlavmError where no server answers, and where it does not let us in.
    """

    def __init__(self, address: Address, note: Callable[[str], None], patience: Patience | None = None) -> None:
        self.place = str(address)
        self._address = address
        self._note = note
        self._patience = patience or Patience()
        self._ids: list[int] = []
        self._connection: Connection | None = None
        self._end = ""  # what happened to the last connection
        self._connection, self.welcome = self.patiently(self._connect)
        self.model = _facts(self.welcome)

    @property
    def ids(self) -> Sequence[int]:
        """The tokens in the cache."""
        return tuple(self._ids)

    @property
    def tokenizer_id(self) -> str:
        """SHA-256 of the tokenizer.json that the model was built with; empty for a model without one."""
        return shown(self.welcome["tokenizer_id"])

    @property
    def end_tokens(self) -> Sequence[int]:
        """Tokens that end an answer."""
        return tuple(self.welcome["end_tokens"])

    def generate(
        self, ids: Sequence[int], sampler: Sampler, max_tokens: int, progress: Progress | None = None
    ) -> RemoteTokens:
        """As Backend. Nothing is sent before the first token is asked for."""
        return RemoteTokens(self, ids, sampler, min(max_tokens, self.welcome["max_tokens"]), progress)

    def reset(self) -> None:
        """Forgets every token; a server that does not answer has forgotten them too."""
        self._ids = []
        if self._is_connected():
            with contextlib.suppress(ServerLost), self.exchange() as connection:
                connection.send("reset", keep=0)
                connection.receive("ok")

    def save(self) -> bytes:
        """As Backend; none after the connection has ended."""
        if not self._is_connected() or not self._ids:
            return b""
        with self.exchange() as connection:
            connection.send("save")
            state = connection.receive("state")
            if state["kv_len"] != len(self._ids):
                raise connection.broken(f"expected the state of {len(self._ids)} tokens, got {state['kv_len']}")
            data = bytearray()
            while (left := state["bytes"] - len(data)) > 0:
                part = connection.receive("data")["bytes"]
                if not 0 < len(part) <= left:
                    raise connection.broken(f"expected 1..{left} bytes of a state, got {len(part)}")
                data += part
        return bytes(data)

    def load(self, ids: Sequence[int], state: bytes) -> None:
        """As Backend."""
        if ids:
            self.patiently(lambda: self._load(ids, state))
        else:
            self.reset()

    def stats(self) -> str:
        """What the server counted, a line."""
        if not self._is_connected():
            return f"not connected: the server {self._end}"
        with self.exchange() as connection:
            connection.send("stats")
            counts = connection.receive("statistics")
        return (f"server: up {counts['uptime_ms'] / 1000:.0f} s, {counts['connections']} connections, "
                f"{counts['conversations']} of {self.welcome['conversations']} caches in use, {counts['answering']} "
                f"answering, {counts['tokens_in']} tokens in, {counts['tokens_out']} out")  # fmt: skip

    def close(self) -> None:
        """Says goodbye."""
        self.drop()

    # What follows is for RemoteTokens too.

    def remember(self, ids: Sequence[int]) -> None:
        """Takes down what the server has in the cache now."""
        self._ids = list(ids)

    def connected(self) -> Connection:
        """A living connection, perhaps a new one. Raises DlavmError where there is none to have."""
        if not self._is_connected():
            self._connection, welcome = self._connect()
            if any(welcome[key] != self.welcome[key] for key in LASTING):
                self.drop()
                raise DlavmError(f"the server at {self.place}: expected the model {self.model.name} "
                                 f"({self.model.model_id[:12]}) as before, got {shown(welcome['model'])} "
                                 f"({shown(welcome['model_id'])[:12]}); start again")  # fmt: skip
            self.welcome = welcome
            self._note(f"connected to {self.place} again, where the cache is empty now (the server {self._end})")
        assert self._connection is not None
        return self._connection

    def drop(self, why: str = "was left") -> None:
        """Closes the connection; what the server had in the cache is gone."""
        if self._connection is not None:
            self._end = self._connection.end or why
            self._connection.close()
        self._connection = None
        self._ids = []

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Connection]:
        """The connection for a request and its whole answer."""
        connection = self.connected()
        with self.guard():
            yield connection

    @contextlib.contextmanager
    def guard(self, is_resumable: bool = False) -> Iterator[None]:
        """Holds interrupts, and drops the connection if what is done with it does not come to its end.

        An interrupt leaves a connection that `is_resumable` as it is.
        """
        with held_interrupts():
            try:
                yield
            except ServerRefused as refusal:
                if refusal.is_fatal:
                    self.drop()
                elif refusal.code != "busy":
                    self._ids = []  # what the server has may be another thing than it was; nothing is always right
                raise
            except BaseException as error:
                if not (is_resumable and isinstance(error, KeyboardInterrupt)):
                    self.drop()
                raise

    def patiently(self, attempt: Callable[[], T]) -> T:
        """`attempt()`, again and again while the server is busy. Raises its refusal when patience is at its end."""
        deadline = time.monotonic() + self._patience.busy_s
        is_said = False
        while True:
            try:
                return attempt()
            except ServerRefused as refusal:
                left = deadline - time.monotonic()
                if refusal.code != "busy" or left <= 0:
                    raise
                if not is_said:
                    self._note(f"{refusal}; trying again for {self._patience.busy_s:g} s, Ctrl-C ends that")
                is_said = True
                time.sleep(min(left, max(refusal.retry_ms / 1000, MIN_RETRY_S)))

    def _is_connected(self) -> bool:
        with held_interrupts():
            if self._connection is not None and self._connection.lost():
                self.drop()
        return self._connection is not None

    def _connect(self) -> tuple[Connection, Message]:
        return connect(self._address, self._patience)

    def _load(self, ids: Sequence[int], state: bytes) -> None:
        with self.exchange() as connection:
            connection.send("load", model_id=self.model.model_id, kv_len=len(ids), bytes=len(state))
            is_sent = connection.send_state(state)
            try:
                ok = connection.receive("ok")
            except ServerRefused:
                if not is_sent:  # the rest may not follow now
                    self.drop()
                raise
            if not is_sent or ok["kv_len"] != len(ids):
                raise connection.broken(f"expected {len(ids)} cached tokens after the state, got {ok['kv_len']}")
        self._ids = list(ids)


class RemoteTokens:
    """The answer of a server, token by token; a `TokenSource`."""

    def __init__(
        self, server: RemoteBackend, ids: Sequence[int], sampler: Sampler, max_tokens: int, progress: Progress | None
    ) -> None:
        self.ids: list[int] = []
        self.cost = Cost()
        self.stop_reason = ""
        self._server = server
        self._whole = list(ids)
        self._sampler = sampler
        self._max_tokens = max_tokens
        self._progress = progress
        self._keep = 0
        self._late: list[int] = []  # tokens that came after the answer was cancelled
        self._is_answering = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens fed before the first one."""
        return len(self._whole) - self._keep

    def __next__(self) -> int:
        if self.stop_reason:
            raise StopIteration
        try:
            # Only before the first token a server can be busy.
            token = self._next() if self.ids else self._server.patiently(self._next)
        except DlavmError:
            self._give_up()
            raise
        if token is None:
            raise StopIteration
        return token

    def close(self) -> None:
        """Cancels the answer and waits for its end. Raises DlavmError if the server is lost meanwhile."""
        if not self._is_answering:
            self.stop_reason = self.stop_reason or "cancelled"
            return
        try:
            with self._server.guard():
                self._connection.send("cancel")
                while self._is_answering:
                    message = self._connection.receive(*ANSWER)
                    if message.name == "token":
                        self._late.append(message["id"])
                    elif message.name == "done":
                        self._finish(message)
        except BaseException:
            self._give_up()
            raise

    def _start(self) -> None:
        server, sampler = self._server, self._sampler
        self._connection = server.connected()
        self._keep = kept_tokens(self._whole, server.ids)
        server.remember(self._whole[: self._keep])
        with server.guard(is_resumable=True):
            self._connection.send(
                "generate", keep=self._keep, max_tokens=self._max_tokens, ignore_end=0,
                temperature=sampler.temperature, top_k=sampler.top_k, top_p=sampler.top_p, seed=sampler.seed,
                counter=sampler.counter, ids=self._whole[self._keep :],
            )  # fmt: skip
            self._is_answering = True

    def _next(self) -> int | None:
        """The next token, or None at the end."""
        if not self._is_answering:
            self._start()
        with self._server.guard(is_resumable=True):
            while self._is_answering:
                try:
                    message = self._connection.receive(*ANSWER)
                except ServerRefused:
                    self._is_answering = False
                    raise
                if message.name == "token":
                    return self._take(message["id"])
                if message.name == "done":
                    self._finish(message)
                elif self._progress:
                    self._progress(message["done"], message["total"])
        return None

    def _take(self, token: int) -> int:
        model = self._server.model
        if token >= model.vocab_size:
            raise self._connection.broken(f"expected a token in 0..{model.vocab_size - 1}, got {token}")
        room = model.context - len(self._whole) - len(self.ids)
        self.ids.append(token)
        if stop_reason(token, self._server.end_tokens, len(self.ids) >= self._max_tokens, room):
            self._finish(self._connection.receive("done"))
        return token

    def _finish(self, done: Message) -> None:
        known = [*self._whole, *self.ids, *self._late]
        count = len(self.ids) + len(self._late)
        if done["tokens"] != count or not self._keep <= done["kv_len"] <= len(known):
            raise self._connection.broken(f"expected {count} tokens and {self._keep}..{len(known)} of them cached, got "
                                          f"{done['tokens']} and {done['kv_len']}")
        self._is_answering = False
        self._server.remember(known[: done["kv_len"]])
        self._sampler.counter = done["counter"]
        self.cost = Cost(done["prefill_us"] / 1e6, done["decode_us"] / 1e6, max(count - 1, 0), done["bytes_read"],
                         done["cycles"])  # fmt: skip
        self.stop_reason = CHAT.label("stop_reason", done["reason"])
        if self.stop_reason == "shutdown":
            self._server.drop("went down")  # which it does as soon as nobody is connected

    def _give_up(self) -> None:
        self._is_answering = False
        if self.stop_reason:
            return
        self.stop_reason = "lost"
        if self._sampler.temperature:  # each token took a draw
            self._sampler.counter += len(self.ids) + len(self._late)


def _facts(welcome: Message) -> ModelFacts:
    return ModelFacts(shown(welcome["model"]), shown(welcome["model_id"]), welcome["vocab_size"], welcome["context"])
