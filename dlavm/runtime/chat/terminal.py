"""Reading turns: from a terminal with history, completion and a status line, or from a pipe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter, WordCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output

from dlavm.runtime.chat.commands import COMMANDS
from dlavm.runtime.chat.conversation import SETTINGS, Conversation
from dlavm.support import env
from dlavm.support.errors import DlavmError


def prompt_reader(
    input: Input | None = None, output: Output | None = None, history: History | None = None,
    toolbar: Callable[[], str] | None = None,
) -> Callable[[], str]:  # fmt: skip
    """Reads turns from a terminal: history with the arrow keys, Enter sends, Alt-Enter starts a new line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    terminal: PromptSession[str] = PromptSession(
        history=history or InMemoryHistory(), multiline=True, key_bindings=keys, input=input, output=output,
        prompt_continuation="  ", completer=CommandCompleter(), bottom_toolbar=toolbar,
    )  # fmt: skip
    return lambda: terminal.prompt("> ")


def line_reader(stream: TextIO) -> Callable[[], str]:
    """Reads a turn a line from a pipe or a file."""

    def read() -> str:
        try:
            line = stream.readline()
        except UnicodeDecodeError as error:
            raise DlavmError(f"chat: expected lines of UTF-8, got {error.object[:40]!r}") from None
        except KeyboardInterrupt:
            raise EOFError from None
        if not line:
            raise EOFError
        return line

    return read


def status(conversation: Conversation) -> str:
    """The line below the prompt."""
    backend, last = conversation.backend, conversation.last
    speed = f" · {last.decode_tok_s:.0f} tok/s" if last and last.decode_tok_s else ""
    return f"{backend.model.name} on {backend.place} · {len(backend.ids)}/{backend.model.context} tokens{speed}"


class CommandCompleter(Completer):
    """Completes commands, names of settings and file names; nothing in a turn for the model."""

    def __init__(self) -> None:
        files = PathCompleter(expanduser=True)
        self._arguments: dict[str, Completer] = {
            "/set": WordCompleter(list(SETTINGS)), "/save": files, "/load": files,
        }  # fmt: skip
        self._names = WordCompleter(list(COMMANDS), sentence=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """As prompt_toolkit asks for them."""
        name, space, rest = document.text_before_cursor.partition(" ")
        if not name.startswith("/") or "\n" in document.text:
            return ()
        completer = self._arguments.get(name) if space else self._names
        return completer.get_completions(Document(rest if space else name), complete_event) if completer else ()


class PrivateHistory(FileHistory):
    """A history file that only its owner can read. A disk that fails costs the history, not the conversation."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        super().__init__(str(path))

    def store_string(self, string: str) -> None:
        """Appends a turn."""
        with contextlib.suppress(OSError):
            super().store_string(string)


def history(say: Callable[[str], None]) -> History:
    """The history across runs that DLAVM_HISTORY names, or one of this run where there is none to keep."""
    path = env.HISTORY.get()
    if path is None:
        return InMemoryHistory()
    try:
        return PrivateHistory(path.expanduser())
    except OSError as error:
        say(f"chat: {path}: expected a file for the history, got {error.strerror!r}; this run's is not kept")
        return InMemoryHistory()
