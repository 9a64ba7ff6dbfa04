"""The commands of a conversation, as data: what they take, what they do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlavm.runtime.chat.conversation import SETTINGS, Conversation
from dlavm.runtime.generate import Progress
from dlavm.support.errors import DlavmError

QUIT, RETRY = "/quit", "/retry"
KEYS = "Enter sends, Alt-Enter starts a new line, Ctrl-C stops an answer."


@dataclass(frozen=True)
class Command:
    """`takes`: names of its arguments, in brackets where they may be missing. `run` gets them and says something."""

    takes: str
    help: str
    run: Callable[[Conversation, str], str]

    def check(self, name: str, rest: str) -> None:
        """Raises DlavmError for too few or too many arguments."""
        if bool(rest) > bool(self.takes) or (not rest and self.takes and not self.takes.startswith("[")):
            raise DlavmError(f"{name}: expected {self.takes or 'nothing behind it'}, got {f'{name} {rest}'.strip()!r}")


def answer_to(conversation: Conversation, line: str, progress: Progress | None = None) -> Generator[str] | None:
    """The answer that a line asks for, as a turn of the user or as /retry; None for a command."""
    if not line.startswith("/"):
        return conversation.ask(line, progress)
    return conversation.retry(progress) if line == RETRY else None


def command(conversation: Conversation, line: str) -> str:
    """Does what a line says that begins with a slash; what there is to say about it. Raises DlavmError."""
    name, _, rest = line.partition(" ")
    chosen = COMMANDS.get(name)
    if chosen is None:
        raise DlavmError(f"expected one of {', '.join(COMMANDS)}, got {line!r}")
    chosen.check(name, rest.strip())
    return chosen.run(conversation, rest.strip())


def stats(conversation: Conversation, rest: str = "") -> str:
    """Tokens, speed and room."""
    backend, last = conversation.backend, conversation.last
    lines = [f"context: {len(backend.ids)} of {backend.model.context} tokens"]
    if last:
        # Only some engines count what they read.
        traffic = f", {last.bytes_read_per_token / 1e6:.2f} MB each" if last.bytes_read_per_token else ""
        lines.append(f"last answer: {last.prompt_tokens} tokens in, {len(last.tokens)} out ({last.stop_reason}); "
                     f"first after {last.ttft_s:.3f} s, then {last.decode_tok_s:.1f} tok/s{traffic}")  # fmt: skip
    return "\n".join([*lines, *filter(None, [backend.stats()])])


def _reset(conversation: Conversation, rest: str) -> str:
    conversation.reset()
    return ""


def _set(conversation: Conversation, rest: str) -> str:
    words = rest.split()
    if not words:
        return ", ".join(f"{name} {value}" for name, value in conversation.settings.items())
    if len(words) != 2 or words[0] not in SETTINGS:
        raise DlavmError(f"/set: expected one of {', '.join(SETTINGS)} and a value, got {rest!r}")
    name, text = words
    try:
        value = SETTINGS[name](text)
    except ValueError:
        raise DlavmError(f"/set {name}: expected a number, got {text!r}") from None
    conversation.set(name, value)
    return ""


def _system(conversation: Conversation, rest: str) -> str:
    if not rest:
        return conversation.system or "no system message"
    conversation.set_system("" if rest == "-" else rest)
    return ""


def _save(conversation: Conversation, rest: str) -> str:
    conversation.save(Path(rest))
    return f"saved to {rest}: {_size(conversation)}"


def _load(conversation: Conversation, rest: str) -> str:
    conversation.load(Path(rest))
    return f"loaded {rest}: {_size(conversation)}"


def _size(conversation: Conversation) -> str:
    return f"turns: {len(conversation.turns)}, cached tokens: {len(conversation.backend.ids)}"


def _help(conversation: Conversation, rest: str) -> str:
    usages = {f"{name} {c.takes}".strip(): c.help for name, c in COMMANDS.items()}
    width = max(map(len, usages))
    return "\n".join([*(f"{usage:{width}}  {text}" for usage, text in usages.items()), KEYS])


def _unreachable(conversation: Conversation, rest: str) -> str:
    raise AssertionError("handled before")  # by what reads the lines


COMMANDS: Mapping[str, Command] = {
    "/reset": Command("", "forget the conversation", _reset),
    RETRY: Command("", "another answer to the last turn", _unreachable),
    "/stats": Command("", "tokens, speed and room of the last answer", stats),
    "/set": Command("[NAME VALUE]", f"{', '.join(SETTINGS)}; alone it shows them", _set),
    "/system": Command("[TEXT]", "system message from the next turn on, - for none; alone it shows it", _system),
    "/save": Command("FILE", "write the conversation and its cache to a file", _save),
    "/load": Command("FILE", "go on with a conversation that was saved", _load),
    "/help": Command("", "this list", _help),
    QUIT: Command("", "leave (so does Ctrl-D)", _unreachable),
}
