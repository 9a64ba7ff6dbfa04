"""Cuts the bytes of a connection into messages."""

from __future__ import annotations

from dlavm.wire.protocol import HEADER, SIDES, Message, Protocol, WireError
from dlavm.wire.types import Buffer


class FrameReader:
    """Messages from the bytes that `sender` ("client" or "server") sends, cut anywhere.

    It holds at most one unfinished frame. A header is checked as soon as its 8 bytes are there, so no bytes are waited
    for that could not become a message. After a WireError the connection is of no use: each later feed raises it anew.
    """

    def __init__(self, protocol: Protocol, sender: str) -> None:
        if sender not in SIDES:
            raise ValueError(f"sender: expected client or server, got {sender!r}")
        self._protocol = protocol
        self._sender = sender
        self._pending = bytearray()
        self._error: WireError | None = None

    def feed(self, data: Buffer) -> list[Message]:
        """The messages that `data` completes.

        Raises WireError for bytes that cannot become a message of the sender; its `messages` came whole before them.
        """
        if self._error is not None:
            raise WireError(str(self._error), self._error.code)
        self._pending += data
        messages: list[Message] = []
        at = 0
        try:
            while (end := self._end(at)) <= len(self._pending):
                messages.append(self._message(at, end))
                at = end
        except WireError as error:
            self._pending.clear()
            error.messages = messages
            self._error = error
            raise
        del self._pending[:at]
        return messages

    @property
    def idle(self) -> bool:
        """Whether the bytes so far end where a message ends."""
        return not self._pending

    def _end(self, at: int) -> int:
        """Where the frame that starts at `at` ends; behind the pending bytes while its header is not whole."""
        body = at + HEADER.size
        if body > len(self._pending):
            return body
        length, _ = self._protocol.check_header(self._pending[at:body], self._sender)
        return body + length

    def _message(self, at: int, end: int) -> Message:
        _, number, _ = HEADER.unpack_from(self._pending, at)
        with memoryview(self._pending) as view:  # released before the bytearray shrinks
            payload = bytes(view[at + HEADER.size:end])
        return self._protocol.decode(number, payload)
