"""Turns of a user and a model, kept in the KV cache from turn to turn."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlavm.runtime.backend import Backend
from dlavm.runtime.chat.saved import SavedChat, Turn, read_chat, write_chat
from dlavm.runtime.generate import Generation, Progress, Summary
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.tokens import StreamDecoder, Tokenizer
from dlavm.support.errors import DlavmError

SETTINGS: Mapping[str, Callable[[str], int | float]] = {
    "temperature": float, "top_k": int, "top_p": float, "seed": int, "max_tokens": int,
}  # fmt: skip


class Conversation:
    """A conversation with a backend.

    Each turn makes the ids of the whole conversation (with the chat template, or as one running document without
    one) and the backend prefills only what comes after their common beginning with the cache.
    """

    def __init__(
        self, backend: Backend, tokenizer: Tokenizer, sampler: Sampler, max_tokens: int, system: str | None = None
    ) -> None:
        self.backend = backend
        self.tokenizer = tokenizer
        self.sampler = sampler
        self.max_tokens = max_tokens
        self.system = ""
        self.turns: list[Turn] = []
        self.last: Summary | None = None
        self.set_system(system or "")

    @property
    def settings(self) -> dict[str, Any]:
        """Name and value of everything that `set` changes."""
        values: dict[str, Any] = {name: getattr(self.sampler, name) for name in SETTINGS if name != "max_tokens"}
        return values | {"max_tokens": self.max_tokens}

    def set(self, name: str, value: Any) -> None:
        """Changes one of `settings`. Raises DlavmError for a value out of range."""
        if name != "max_tokens":
            fresh = {"counter": 0} if name == "seed" else {}
            self.sampler = replace(self.sampler, **{name: value}, **fresh)
        elif value < 1:
            raise DlavmError(f"max_tokens: expected at least 1, got {value!r}")
        else:
            self.max_tokens = value

    def set_system(self, text: str) -> None:
        """The system message from the next turn on. Raises DlavmError for a model that knows none."""
        if text and self.tokenizer.template is None:
            raise DlavmError(f"system message {text[:40]!r}: expected a model with a chat template, got one without")
        self.system = text

    def reset(self) -> None:
        """Forgets every turn."""
        self.backend.reset()
        self.turns = []
        self.last = None

    def ask(self, text: str, progress: Progress | None = None) -> Generator[str]:
        """Pieces of the model's answer to `text`. Closing the iterator keeps the half answer as the turn.

        Raises DlavmError for a turn that does not fit the context, and what the backend raises; without a token of
        an answer the conversation is then as it was before.
        """
        return self._answer(text, list(self.turns), progress)

    def retry(self, progress: Progress | None = None) -> Generator[str]:
        """Pieces of another answer to the last turn, in place of the one before. Raises DlavmError as `ask` does."""
        if not self.turns:
            raise DlavmError("retry: expected a turn to answer again, got none")
        return self._answer(self.turns[-1].text, self.turns[:-1], progress)

    def save(self, path: Path) -> None:
        """Writes the conversation and its cache to a file. Raises DlavmError as `write_chat` does."""
        state = self.backend.save()  # first: a server that is gone has no ids either
        model = self.backend.model
        write_chat(path, SavedChat(model.name, model.model_id, self.system, tuple(self.turns), tuple(self.backend.ids),
                                   self.sampler, self.max_tokens), state)  # fmt: skip

    def load(self, path: Path) -> None:
        """Goes on where `save` was called. Raises DlavmError for a file that does not fit, and changes nothing."""
        chat, state = read_chat(path, self.backend.model)
        self.backend.load(chat.ids, state)
        self.sampler, self.max_tokens = chat.sampler, chat.max_tokens
        self.system, self.turns, self.last = chat.system, list(chat.turns), None

    def _answer(self, text: str, before: list[Turn], progress: Progress | None) -> Generator[str]:
        ids = self._ids(before, text)
        context = self.backend.model.context
        if len(ids) > context:
            raise DlavmError(f"the context is full: expected at most {context} tokens for the conversation and the new "
                             f"turn, got {len(ids)}; /reset starts a new conversation")  # fmt: skip
        source = self.backend.generate(ids, self.sampler, self.max_tokens, progress)
        answer = Generation(source, StreamDecoder(self.tokenizer))
        return self._pieces(answer, text, before, ids)

    def _pieces(self, answer: Generation, text: str, before: list[Turn], ids: list[int]) -> Generator[str]:
        try:
            for token in answer:
                if token.text:
                    yield token.text
        finally:
            try:
                answer.close()
            finally:
                self._keep(answer.summary, text, before, ids)

    def _keep(self, summary: Summary, text: str, before: list[Turn], ids: list[int]) -> None:
        """Makes what was answered the last turn; an answer that did not begin is none."""
        if not summary.tokens:
            return
        known = sum(len(turn.ids) for turn in before)
        own = () if self.tokenizer.template else (*ids[known:], *summary.tokens)
        self.turns = [*before, Turn(text, summary.text, own)]
        self.last = summary

    def _ids(self, before: list[Turn], text: str) -> list[int]:
        """Ids of the whole conversation and one more turn of the user."""
        if self.tokenizer.template is not None:
            return self.tokenizer.chat_ids(self._messages(before, text))
        document = [token for turn in before for token in turn.ids]
        ids = document + self.tokenizer.encode(text, special=not document)
        if not ids:
            raise DlavmError(f"chat: expected a text of at least one token, got {text!r}")
        return ids

    def _messages(self, before: list[Turn], text: str) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in before:
            messages += [{"role": "user", "content": turn.text}, {"role": "assistant", "content": turn.answer}]
        return [*messages, {"role": "user", "content": text}]
