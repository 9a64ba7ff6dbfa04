"""Perplexity of a text under the float model, the quantised weights and the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.artifact import Artifact
from dlavm.runtime.tokens import load_tokenizer
from dlavm.support.errors import DlavmError
from dlavm.support.progress import progress

SEPARATOR = "<|endoftext|>"
Logits = Callable[[Sequence[int]], NDArray[np.floating]]


def documents(text: str) -> list[str]:
    """The documents of a text: between <|endoftext|> marks, else between blank lines, else one a line."""
    for separator in (SEPARATOR, "\n\n", "\n"):
        parts = [part.strip() for part in text.split(separator)]
        if sum(map(bool, parts)) > 1 or separator == "\n":
            break
    return [part for part in parts if part]


def read_documents(artifact: Artifact, path: Path, limit: int | None = None) -> list[list[int]]:
    """Token ids of each document, the bos token first, cut at the context; in all at most `limit` predicted tokens.

    Raises DlavmError for a file that cannot be read or has no text, and for an artifact without a tokenizer.
    """
    tokenizer, model = load_tokenizer(artifact), artifact.manifest.model
    if tokenizer is None:
        raise DlavmError(f"--ppl: {artifact.path}: expected a tokenizer in the artifact, got none")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DlavmError(f"--ppl: {path}: expected a readable text file, got {error.strerror!r}") from None
    except UnicodeDecodeError:
        raise DlavmError(f"--ppl: {path}: expected a text in UTF-8, got other bytes") from None
    found: list[list[int]] = []
    left = limit if limit is not None else math.inf
    for document in documents(text):
        ids = tokenizer.encode(document)
        if model.bos_token_id is not None and ids[:1] != [model.bos_token_id]:
            ids = [model.bos_token_id, *ids]
        ids = ids[: int(min(model.ctx, left + 1))]
        if len(ids) > 1:
            found.append(ids)
            left -= len(ids) - 1
    if not found:
        raise DlavmError(f"--ppl: {path}: expected a text of at least two tokens, got none")
    return found


def perplexity(label: str, texts: Sequence[Sequence[int]], logits: Logits) -> float:
    """exp of the mean negative log-likelihood, float64. `logits(ids)` has a row for each id of a fresh document."""
    total, count = 0.0, 0
    with progress(f"perplexity, {label}", len(texts)) as bar:
        for ids in texts:
            total += math.fsum(_losses(logits(ids[:-1]), ids[1:]))
            count += len(ids) - 1
            bar.advance()
    return math.exp(total / count)


def _losses(logits: NDArray[np.floating], targets: Sequence[int]) -> Iterator[float]:
    for row, target in zip(logits, targets, strict=True):
        values = row.astype(np.float64)
        top = values.max()
        yield float(top + np.log(np.exp(values - top).sum()) - values[target])
