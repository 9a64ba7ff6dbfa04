"""A conversation at the terminal, kept in the KV cache from turn to turn."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from typing import Any, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output

from dlavm.pack.artifact import Artifact
from dlavm.runtime.generate import Generation, Summary, generate
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session, open_session
from dlavm.runtime.tokens import StreamDecoder, Tokenizer, load_tokenizer
from dlavm.support.errors import DlavmError

HELP = """\
/reset                 forget the conversation
/stats                 tokens, speed and room of the last answer
/set NAME VALUE        temperature, top_k, top_p, seed or max_tokens; /set alone shows them
/help                  this list
/quit                  leave (so does Ctrl-D)
Enter sends, Alt-Enter starts a new line, Ctrl-C stops an answer."""

SETTINGS: dict[str, Callable[[str], int | float]] = {
    "temperature": float, "top_k": int, "top_p": float, "seed": int, "max_tokens": int,
}  # fmt: skip


class Conversation:
    """Turns of a user and the model over one session.

    Each turn makes the ids of the whole conversation (with the chat template, or as one running document without
    one) and prefills only what comes after their common beginning with the cache.
    """

    def __init__(
        self, session: Session, tokenizer: Tokenizer, sampler: Sampler, max_tokens: int, system: str | None = None
    ) -> None:
        self.session = session
        self.tokenizer = tokenizer
        self.sampler = sampler
        self.max_tokens = max_tokens
        self.last: Summary | None = None
        self._opening = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = list(self._opening)
        self._document: list[int] = []  # every token so far, for models without a template

    def reset(self) -> None:
        """Forgets every turn."""
        self.session.reset()
        self.messages = list(self._opening)
        self._document = []
        self.last = None

    def ask(self, text: str) -> Generator[str]:
        """Pieces of the model's answer to `text`. Closing the iterator keeps the half answer as the turn.

        Raises DlavmError if the turn does not fit the context; the conversation is then as it was before.
        """
        turn = {"role": "user", "content": text}
        ids = self._ids_with(turn)
        context = self.session.model.ctx
        if len(ids) > context:
            raise DlavmError(f"the context is full: expected at most {context} tokens for the conversation and the new "
                             f"turn, got {len(ids)}; /reset starts a new conversation")
        # The last token is always fed again: its logits begin the answer.
        common = min(_common(ids, self.session.ids), len(ids) - 1)
        self.session.rewind(self.session.kv_len - common)
        answer = generate(self.session, ids[common:], self.sampler, self.max_tokens,
                          stop_ids=self.session.model.eos_token_ids, decoder=StreamDecoder(self.tokenizer))
        return self._pieces(answer, turn, ids)

    def _pieces(self, answer: Generation, turn: dict[str, str], ids: list[int]) -> Generator[str]:
        try:
            for token in answer:
                if token.text:
                    yield token.text
        finally:
            answer.close()
            self.last = answer.summary
            self.messages += [turn, {"role": "assistant", "content": self.last.text}]
            self._document = [*ids, *self.last.tokens]

    def _ids_with(self, turn: dict[str, str]) -> list[int]:
        """Ids of the whole conversation and one more turn of the user."""
        if self.tokenizer.template is not None:
            return self.tokenizer.chat_ids([*self.messages, turn])
        ids = self._document + self.tokenizer.encode(turn["content"], special=not self._document)
        if not ids:
            raise DlavmError(f"chat: expected a text of at least one token, got {turn['content']!r}")
        return ids


def _common(a: Iterable[int], b: Iterable[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


class Repl:
    """Lines in, commands and answers out. `out` takes answers, `err` everything said by dlavm itself."""

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
            if line == "/quit":
                return
            try:
                self.handle(line)
            except DlavmError as error:
                self._say(str(error))

    def handle(self, line: str) -> None:
        """One line: a command, or something for the model. Raises DlavmError for what cannot be done."""
        if line.startswith("/"):
            self._command(line.split())
        elif line:
            self._answer(line)

    def _command(self, words: list[str]) -> None:
        simple = {"/reset": self.conversation.reset, "/stats": self._stats, "/help": lambda: self._say(HELP)}
        if words[0] == "/set":
            self._set(words[1:])
        elif words[0] in simple and len(words) == 1:
            simple[words[0]]()
        else:
            raise DlavmError(f"expected one of /reset, /stats, /set, /help, /quit, got {' '.join(words)!r}")

    def _answer(self, text: str) -> None:
        try:
            # An interrupt can arrive between two pieces, where the generator does not see it: closing tells it.
            with contextlib.closing(self.conversation.ask(text)) as pieces:
                for piece in pieces:
                    self._out.write(piece)
                    self._out.flush()
        except KeyboardInterrupt:
            self._say("\n(stopped)")
        self._out.write("\n")
        self._out.flush()
        last = self.conversation.last
        if last and last.stop_reason == "context":
            self._say("the context is full; /reset starts a new conversation")

    def _stats(self) -> None:
        session, last = self.conversation.session, self.conversation.last
        self._say(f"context: {session.kv_len} of {session.model.ctx} tokens")
        if last:
            # Only some engines count what they read.
            traffic = f", {last.bytes_read_per_token / 1e6:.2f} MB each" if last.bytes_read_per_token else ""
            self._say(f"last answer: {last.prompt_tokens} tokens in, {len(last.tokens)} out ({last.stop_reason}); "
                      f"first after {last.ttft_s:.3f} s, then {last.decode_tok_s:.1f} tok/s{traffic}")

    def _set(self, words: list[str]) -> None:
        if not words:
            self._say(", ".join(f"{name} {value}" for name, value in self._settings().items()))
            return
        if len(words) != 2 or words[0] not in SETTINGS:
            raise DlavmError(f"/set: expected one of {', '.join(SETTINGS)} and a value, got {' '.join(words)!r}")
        name, text = words
        try:
            value = SETTINGS[name](text)
        except ValueError:
            raise DlavmError(f"/set {name}: expected a number, got {text!r}") from None
        self._apply(name, value)

    def _settings(self) -> dict[str, Any]:
        values: dict[str, Any] = {n: getattr(self.conversation.sampler, n) for n in SETTINGS if n != "max_tokens"}
        return values | {"max_tokens": self.conversation.max_tokens}

    def _apply(self, name: str, value: Any) -> None:
        if name != "max_tokens":
            fresh = {"counter": 0} if name == "seed" else {}
            self.conversation.sampler = replace(self.conversation.sampler, **{name: value}, **fresh)
        elif value < 1:
            raise DlavmError(f"/set max_tokens: expected at least 1, got {value!r}")
        else:
            self.conversation.max_tokens = value

    def _say(self, text: str) -> None:
        self._err.write(text + "\n")
        self._err.flush()


def prompt_reader(input: Input | None = None, output: Output | None = None) -> Callable[[], str]:
    """Reads turns from a terminal: history with the arrow keys, Enter sends, Alt-Enter starts a new line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    terminal: PromptSession[str] = PromptSession(
        history=InMemoryHistory(), multiline=True, key_bindings=keys, input=input, output=output,
        prompt_continuation="  ",
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


def chat(
    artifact: Artifact, engine: str = "sim", threads: int | None = None, max_tokens: int | None = None,
    system: str | None = None, **sampling: Any,
) -> int:  # fmt: skip
    """`dlavm chat`: a conversation on this terminal, or over the lines of a pipe; the exit code.

    `sampling`: temperature, top_k, top_p, seed; None takes the artifact's default. Raises DlavmError for an artifact
    without a tokenizer, and as `open_session` and `Sampler` do.
    """
    tokenizer = load_tokenizer(artifact)
    if tokenizer is None:
        raise DlavmError(f"chat: {artifact.path}: expected a tokenizer in the artifact, got none; use run --prompt-ids")
    sampler = Sampler.from_defaults(artifact.generation, **sampling)
    limit = _default_limit(artifact) if max_tokens is None else max_tokens
    with open_session(artifact, engine, threads) as session:
        repl = Repl(Conversation(session, tokenizer, sampler, limit, system), sys.stdout, sys.stderr)
        interactive = sys.stdin.isatty()
        if interactive:
            print(f"{artifact.manifest.name} on {engine}; /help lists the commands", file=sys.stderr)
        repl.run(prompt_reader() if interactive else line_reader(sys.stdin))
    return 0


def _default_limit(artifact: Artifact) -> int:
    stated = artifact.generation.get("max_new_tokens")
    return stated if isinstance(stated, int) and stated > 0 else artifact.manifest.model.ctx
