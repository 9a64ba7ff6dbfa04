"""What a conversation needs of the place where the model runs, and that place on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dlavm.runtime.generate import Progress, SessionTokens, TokenSource
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session


@dataclass(frozen=True)
class ModelFacts:
    """`model_id`: saved caches belong to it. `context`: positions of a cache."""

    name: str
    model_id: str
    vocab_size: int
    context: int


class Backend(Protocol):
    """A model with the KV cache of one conversation."""

    place: str  # the engine's name, or HOST:PORT

    @property
    def model(self) -> ModelFacts: ...

    @property
    def ids(self) -> Sequence[int]:
        """The tokens in the cache."""

    def generate(
        self, ids: Sequence[int], sampler: Sampler, max_tokens: int, progress: Progress | None = None
    ) -> TokenSource:
        """Goes on behind `ids`, the whole conversation: what the cache has of their beginning is kept.

        Raises DlavmError, here or while the tokens come, for what the model refuses.
        """

    def reset(self) -> None:
        """Forgets every token."""

    def save(self) -> bytes:
        """The cache as bytes, for `ids`; none where there are none."""

    def load(self, ids: Sequence[int], state: bytes) -> None:
        """Makes the cache what `save` gave for `ids`. Raises DlavmError and changes nothing if it does not fit."""

    def stats(self) -> str:
        """More about the place, a line; may be empty."""

    def close(self) -> None:
        """Gives the cache back."""


class LocalBackend:
    """A session in this process; `place` names its engine."""

    def __init__(self, session: Session, place: str) -> None:
        manifest = session.artifact.manifest
        self.place = place
        self.model = ModelFacts(manifest.name, manifest.model_id, manifest.model.vocab_size, manifest.model.ctx)
        self._session = session

    @property
    def ids(self) -> Sequence[int]:
        """The tokens in the cache."""
        return self._session.ids

    def generate(
        self, ids: Sequence[int], sampler: Sampler, max_tokens: int, progress: Progress | None = None
    ) -> TokenSource:
        """As Backend. Raises DlavmError before anything runs where `ids` do not fit."""
        session = self._session
        keep = kept_tokens(ids, session.ids)
        session.rewind(session.kv_len - keep)
        model = session.model
        return SessionTokens(session, ids[keep:], sampler, max_tokens, model.eos_token_ids, model.chunk, progress)

    def reset(self) -> None:
        """Forgets every token."""
        self._session.reset()

    def save(self) -> bytes:
        """As Backend."""
        return self._session.save_state()

    def load(self, ids: Sequence[int], state: bytes) -> None:
        """As Backend."""
        self._session.load_state(ids, state)

    def stats(self) -> str:
        """Nothing: the engine belongs to this conversation alone."""
        return ""

    def close(self) -> None:
        """Closes the session."""
        self._session.close()


def kept_tokens(ids: Sequence[int], cached: Iterable[int]) -> int:
    """How many cached tokens an answer to `ids` keeps; the last of `ids` is always fed, its logits begin the answer."""
    count = 0
    for wanted, there in zip(ids[:-1], cached, strict=False):
        if wanted != there:
            break
        count += 1
    return count
