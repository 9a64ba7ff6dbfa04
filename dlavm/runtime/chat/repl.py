"""Lines in, answers out: for people (`Repl`) and for programs (`Script`)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator
from typing import Any, TextIO

from dlavm.runtime.chat.commands import QUIT, answer_to, command
from dlavm.runtime.chat.conversation import Conversation
from dlavm.support.errors import DlavmError
from dlavm.support.progress import Bar, progress

ENDINGS = {
    "context": "the context is full; /reset starts a new conversation",
    "timeout": "the server ended the answer: it took too long",
    "shutdown": "the server ended the answer: it is going down",
}  # by stop reason, where people should know


class Repl:
    """`out` takes answers, `err` everything said by dlavm itself."""

    def __init__(self, conversation: Conversation, out: TextIO, err: TextIO) -> None:
        self.conversation = conversation
        self._out = out
        self._err = err

    def run(self, read: Callable[[], str]) -> None:
        """Handles lines from `read` until it raises EOFError or a line says /quit."""
        while True:
            try:
                line = read().strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if line == QUIT:
                return
            try:
                self.handle(line)
            except DlavmError as error:
                self.say(str(error))
            except KeyboardInterrupt:
                self.say("(stopped)")

    def handle(self, line: str) -> None:
        """One line: a command, or something for the model. Raises DlavmError for what cannot be done."""
        if not line:
            return
        with _Reading() as reading:
            pieces = answer_to(self.conversation, line, reading.show)
            if pieces is None:
                self.say(command(self.conversation, line))
            else:
                self._answer(pieces, reading)

    def say(self, text: str) -> None:
        """Writes lines of dlavm's own, if there are any."""
        if text:
            self._err.write(text + "\n")
            self._err.flush()

    def _answer(self, pieces: Generator[str], reading: _Reading) -> None:
        is_open = False  # a line of the answer
        try:
            # An interrupt can arrive between two pieces, where the generator does not see it: closing tells it.
            with contextlib.closing(pieces):
                for piece in pieces:
                    reading.close()
                    is_open = True
                    self._out.write(piece)
                    self._out.flush()
            is_open = True
        except KeyboardInterrupt:
            self.say("\n(stopped)")
            is_open = True
        finally:
            if is_open:
                self._out.write("\n")
                self._out.flush()
        last = self.conversation.last
        self.say(ENDINGS.get(last.stop_reason, "") if last else "")


class Script:
    """One JSON object a line of input on `out`, and nothing else."""

    def __init__(self, conversation: Conversation, out: TextIO) -> None:
        self.conversation = conversation
        self._out = out

    def run(self, read: Callable[[], str]) -> bool:
        """Handles lines as Repl does; whether none failed."""
        is_good = True
        with contextlib.suppress(EOFError):
            while (line := read().strip()) != QUIT:
                if line:
                    is_good &= self._line(line)
        return is_good

    def _line(self, line: str) -> bool:
        try:
            pieces = answer_to(self.conversation, line)
            if pieces is None:
                self._write({"command": line, "text": command(self.conversation, line)})
            else:
                self._answer(pieces)
            return True
        except DlavmError as error:
            self._write({"error": str(error)})
            return False

    def _answer(self, pieces: Generator[str]) -> None:
        try:
            with contextlib.closing(pieces):
                for _ in pieces:
                    pass
        except KeyboardInterrupt:
            self._report()
            raise
        self._report()

    def _report(self) -> None:
        backend, last = self.conversation.backend, self.conversation.last
        if last:
            facts = {"model": backend.model.name, "kv_len": len(backend.ids), "context": backend.model.context}
            self._write(last.report(backend.place) | facts)

    def _write(self, value: dict[str, Any]) -> None:
        self._out.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        self._out.flush()


class _Reading:
    """A bar for a prompt of many steps, from its first step to the first text of the answer."""

    def __init__(self) -> None:
        self._display = contextlib.ExitStack()
        self._bar: Bar | None = None
        self._done = 0

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def show(self, done: int, total: int) -> None:
        """So many tokens of the prompt are fed."""
        if self._bar is None:
            self._bar = self._display.enter_context(progress("reading", total))
        self._bar.advance(done - self._done)
        self._done = done

    def close(self) -> None:
        """The bar vanishes."""
        self._display.close()
