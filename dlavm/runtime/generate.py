"""Generating text: prompt in, tokens out one by one, and a summary of what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import StepResult
from dlavm.runtime.tokens import StreamDecoder
from dlavm.support.errors import DlavmError


class Steps(Protocol):
    """What `generate` needs of a session."""

    @property
    def room(self) -> int:
        """Tokens that still fit the context."""

    def check_prompt(self, ids: Sequence[int]) -> list[int]:
        """The ids, or DlavmError for a prompt that cannot be fed."""

    def prefill(self, ids: Sequence[int]) -> StepResult:
        """Feeds the ids; the last row of the logits is that of the last one."""


@dataclass(frozen=True)
class Token:
    """A generated token, and the text that became certain with it (none for half a character or a stop token)."""

    id: int
    text: str


@dataclass(frozen=True)
class Summary:
    """One answer. Times count the steps on the engine and the sampling, not what the caller did between tokens.

    `tokens` are all that were sampled, the stop token too. `decode_tok_s` is over the tokens after the first, and
    `bytes_read_per_token` over the decode steps; both are 0 where there was none. `cycles` is 0 on untimed engines.
    """

    prompt_tokens: int
    tokens: tuple[int, ...]
    text: str
    ttft_s: float
    decode_tok_s: float
    bytes_read_per_token: float
    cycles: int
    stop_reason: str  # eos, length, stop, context, cancelled


class StopStrings:
    """Holds text back while it could be the beginning of a stop string."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """The part of all the text so far that is certain and not yet handed out; sets `hit` at a stop string."""
        self._held += text
        places = [place for place in map(self._held.find, self._strings) if place >= 0]
        if places:
            self.hit = True
            certain, self._held = self._held[: min(places)], ""
            return certain
        keep = self._longest_beginning()
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self) -> int:
        longest = max((len(s) for s in self._strings), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-n:]) for s in self._strings):
                return n
        return 0


class Generation(Iterator[Token]):
    """An answer being generated: iterate for its tokens, `close` to cancel; `summary` is true at any time."""

    def __init__(self, tokens: Callable[[Generation], Iterator[Token]], prompt_tokens: int) -> None:
        self.stop_reason = "cancelled"
        self.ids: list[int] = []
        self.texts: list[str] = []
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self.decode_steps = 0
        self.decode_bytes = 0
        self.cycles = 0
        self._prompt_tokens = prompt_tokens
        self._tokens: Iterator[Token] | None = tokens(self)

    def __next__(self) -> Token:
        if self._tokens is None:
            raise StopIteration
        return next(self._tokens)

    def close(self) -> None:
        """Stops here. The session keeps the tokens that were fed to it and can go on."""
        self._tokens = None

    @property
    def summary(self) -> Summary:
        """What was generated so far; `stop_reason` is "cancelled" until the end was reached."""
        return Summary(
            prompt_tokens=self._prompt_tokens,
            tokens=tuple(self.ids),
            text="".join(self.texts),
            ttft_s=self.prefill_s,
            decode_tok_s=self.decode_steps / self.decode_s if self.decode_s > 0 else 0.0,
            bytes_read_per_token=self.decode_bytes / self.decode_steps if self.decode_steps else 0.0,
            cycles=self.cycles,
            stop_reason=self.stop_reason,
        )


def generate(
    session: Steps,
    prompt_ids: Sequence[int],
    sampler: Sampler,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    stop_strings: Sequence[str] = (),
    decoder: StreamDecoder | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Generation:
    """Feeds `prompt_ids` after what the session holds and generates until a reason to stop.

    The reasons: "eos" (a token of `stop_ids`, which is the last one), "stop" (a text of `stop_strings`, which is not
    handed out and may lie across tokens), "length" (`max_tokens`), "context" (the cache is full),
    "cancelled" (`close`). Without a decoder the texts are empty. Raises DlavmError for a prompt that does not fit,
    before anything runs.
    """
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise DlavmError(f"generate: max_tokens: expected at least 1, got {max_tokens!r}")
    if stop_strings and (decoder is None or not all(stop_strings)):
        raise DlavmError(f"generate: stop strings: expected texts and a tokenizer, got {list(stop_strings)!r}")
    session.check_prompt(prompt_ids)
    stops = StopStrings(stop_strings)

    def tokens(state: Generation) -> Iterator[Token]:
        following: Sequence[int] = prompt_ids
        while True:
            token = _next_token(session, following, sampler, state, clock)
            following = [token]
            text = decoder.push(token) if decoder else ""
            text = stops.push(text) if text else ""
            reason = _reason(token, stops, stop_ids, len(state.ids) >= max_tokens, session.room == 0)
            if reason and reason != "stop" and decoder:
                text += stops.push(decoder.flush())
                text += stops.flush()
            state.texts.append(text)
            if reason:
                # The tail of an unfinished character can complete a stop string; the text is cut, the token stays.
                state.stop_reason = "stop" if stops.hit else reason
            yield Token(token, text)
            if reason:
                return

    return Generation(tokens, len(prompt_ids))


def _reason(token: int, stops: StopStrings, stop_ids: Collection[int], is_last: bool, is_full: bool) -> str:
    if stops.hit:
        return "stop"
    if token in stop_ids:
        return "eos"
    if is_last:
        return "length"
    return "context" if is_full else ""


def _next_token(
    session: Steps, ids: Sequence[int], sampler: Sampler, state: Generation, clock: Callable[[], float]
) -> int:
    is_decode = bool(state.ids)
    begin = clock()
    result: StepResult = session.prefill(ids)
    token = sampler.sample(result.logits[-1])
    seconds = clock() - begin
    state.ids.append(token)
    state.cycles += result.counters.cycles
    if is_decode:
        state.decode_s += seconds
        state.decode_steps += 1
        state.decode_bytes += result.counters.bytes_read
    else:
        state.prefill_s = seconds
    return token
