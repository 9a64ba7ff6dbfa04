"""Generating text: prompt in, tokens out one by one, and a summary of what it took.

Where the tokens come from is a `TokenSource`: a session with a sampler here (`SessionTokens`), a server elsewhere
(dlavm/runtime/remote.py). `Generation` makes text of them, the same way for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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

    def prefill(self, ids: Sequence[int], head_rows: int = 1) -> StepResult:
        """Feeds the ids; logits of the last `head_rows` of them."""


Progress = Callable[[int, int], None]  # tokens of the prompt that are fed, of how many


@dataclass
class Cost:
    """What an answer took so far; what is named decode is without the first token. `cycles` is 0 on untimed engines."""

    prefill_s: float = 0.0
    decode_s: float = 0.0
    decode_steps: int = 0
    decode_bytes: int = 0
    cycles: int = 0


class TokenSource(Protocol):
    """Iterates over the token ids of an answer as they are sampled."""

    ids: list[int]  # all so far
    cost: Cost

    @property
    def prompt_tokens(self) -> int:
        """Tokens fed before the first one."""

    @property
    def stop_reason(self) -> str:
        """Why it ended; empty while tokens may follow. It is there with the last token, if the source can know."""

    def __next__(self) -> int: ...

    def close(self) -> None:
        """Stops; what the tokens came from can go on."""


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
    stop_reason: str  # eos, length, stop, context, cancelled; of a server timeout, shutdown, lost too

    def report(self, engine: str) -> dict[str, Any]:
        """The object of `run --json` and `chat --json`."""
        timed = {"cycles": self.cycles} if self.cycles else {}
        return {
            "tokens": list(self.tokens), "text": self.text, "prompt_tokens": self.prompt_tokens,
            "ttft_s": self.ttft_s, "decode_tok_s": self.decode_tok_s, "engine": engine,
            "stop_reason": self.stop_reason, "bytes_read_per_token": self.bytes_read_per_token, **timed,
        }  # fmt: skip


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
    """An answer being generated: iterate for its tokens, `close` to cancel; `summary` is true at any time.

    Raises DlavmError for stop strings without a decoder, and what the source raises.
    """

    def __init__(
        self, source: TokenSource, decoder: StreamDecoder | None = None, stop_strings: Sequence[str] = ()
    ) -> None:
        if stop_strings and (decoder is None or not all(stop_strings)):
            raise DlavmError(f"generate: stop strings: expected texts and a tokenizer, got {list(stop_strings)!r}")
        self._source = source
        self._decoder = decoder
        self._stops = StopStrings(stop_strings)
        self._texts: list[str] = []
        self._is_over = False

    def __next__(self) -> Token:
        if self._is_over:
            raise StopIteration
        token = next(self._source)
        text = self._text(token)
        self._texts.append(text)
        self._is_over = self._stops.hit or bool(self._source.stop_reason)
        if self._is_over:
            self._source.close()
        return Token(token, text)

    def _text(self, token: int) -> str:
        if self._decoder is None:
            return ""
        text = self._decoder.push(token)
        text = self._stops.push(text) if text else ""
        if self._source.stop_reason and not self._stops.hit:
            # The tail of an unfinished character can complete a stop string; the text is cut, the token stays.
            text += self._stops.push(self._decoder.flush())
            text += self._stops.flush()
        return text

    def close(self) -> None:
        """Stops here. The session keeps the tokens that were fed to it and can go on."""
        self._is_over = True
        self._source.close()

    @property
    def summary(self) -> Summary:
        """What was generated so far; `stop_reason` is "cancelled" until the end was reached."""
        cost = self._source.cost
        return Summary(
            prompt_tokens=self._source.prompt_tokens,
            tokens=tuple(self._source.ids),
            text="".join(self._texts),
            ttft_s=cost.prefill_s,
            decode_tok_s=cost.decode_steps / cost.decode_s if cost.decode_s > 0 else 0.0,
            bytes_read_per_token=cost.decode_bytes / cost.decode_steps if cost.decode_steps else 0.0,
            cycles=cost.cycles,
            stop_reason="stop" if self._stops.hit else self._source.stop_reason or "cancelled",
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
    source = SessionTokens(session, prompt_ids, sampler, max_tokens, stop_ids, clock=clock)
    return Generation(source, decoder, stop_strings)


class SessionTokens:
    """Tokens from a session and a sampler.

    With `chunk` the prompt is fed in pieces of as many tokens, and `progress` hears of each. Raises DlavmError for a
    prompt that does not fit, before anything runs.
    """

    def __init__(
        self, session: Steps, prompt_ids: Sequence[int], sampler: Sampler, max_tokens: int,
        stop_ids: Collection[int] = (), chunk: int = 0, progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise DlavmError(f"generate: max_tokens: expected at least 1, got {max_tokens!r}")
        self.ids: list[int] = []
        self.cost = Cost()
        self.stop_reason = ""
        self._session = session
        self._prompt = session.check_prompt(prompt_ids)
        self._sampler = sampler
        self._max_tokens = max_tokens
        self._stop_ids = stop_ids
        self._chunk = chunk or len(self._prompt)
        self._progress = progress
        self._clock = clock
        self._is_closed = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens fed before the first one."""
        return len(self._prompt)

    def __next__(self) -> int:
        if self._is_closed or self.stop_reason:
            raise StopIteration
        begin = self._clock()
        result = self._session.prefill(self.ids[-1:]) if self.ids else self._read_prompt()
        token = self._sampler.sample(result.logits[-1])
        self._count(result, self._clock() - begin)
        self.ids.append(token)
        self.stop_reason = stop_reason(token, self._stop_ids, len(self.ids) >= self._max_tokens, self._session.room)
        return token

    def close(self) -> None:
        """Stops. The session keeps the tokens that were fed to it and can go on."""
        self._is_closed = True

    def _read_prompt(self) -> StepResult:
        total, fed = len(self._prompt), 0
        while total - fed > self._chunk:
            part = self._session.prefill(self._prompt[fed : fed + self._chunk], head_rows=0)
            self.cost.cycles += part.counters.cycles
            fed += self._chunk
            if self._progress:
                self._progress(fed, total)
        return self._session.prefill(self._prompt[fed:])

    def _count(self, result: StepResult, seconds: float) -> None:
        self.cost.cycles += result.counters.cycles
        if self.ids:
            self.cost.decode_s += seconds
            self.cost.decode_steps += 1
            self.cost.decode_bytes += result.counters.bytes_read
        else:
            self.cost.prefill_s = seconds


def stop_reason(token: int, stop_ids: Collection[int], is_last: bool, room: int) -> str:
    """Why an answer ends with `token`, or nothing: the end tokens count before the limit and the context's `room`."""
    if token in stop_ids:
        return "eos"
    if is_last:
        return "length"
    return "" if room else "context"
