"""What the inputs of a decoder are for, and what they are given at a probe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.ir import Array, OnnxGraph, OnnxInput
from dlavm.support.errors import DlavmError

WIDEST, LONGEST = 1 << 18, 1 << 14  # numbers of a cached position, fixed numbers of positions
IDS = re.compile(r"input_ids|ids|input|tokens?|input\.1")
FIXED = {  # values that do not depend on positions
    "use_cache_branch": np.array([True]),
    "num_logits_to_keep": np.array(0, np.int64),
    "logits_to_keep": np.array(0, np.int64),
}


@dataclass(frozen=True)
class Probe:
    """Numbers in the place of variable extents: `tokens` new ones behind `past` cached ones, at positions `shift`
    further than that where the model takes positions as an input."""

    past: int
    tokens: int
    shift: int = 0

    @property
    def first(self) -> int:
        return self.past + self.shift


@dataclass(frozen=True)
class Inputs:
    """The inputs by what they are for. `caches` are (batch, heads, past, size): name, heads, size."""

    ids: OnnxInput
    caches: tuple[tuple[str, int, int], ...]
    positions: str | None
    others: tuple[OnnxInput, ...]
    tokens: int | None  # a fixed number of tokens
    past: int | None  # a fixed number of cached positions

    def values(self, probe: Probe) -> dict[str, Array]:
        """What every input but the ids and the caches is given."""
        made: dict[str, Array] = {}
        for value in self.others:
            array = _given(value.name, probe)
            assert array is not None
            made[value.name] = array.astype(value.dtype) if value.dtype is not None else array
        return made


def _given(name: str, probe: Probe) -> Array | None:
    places = probe.first + np.arange(probe.tokens)
    total = probe.past + probe.tokens
    table: dict[str, Any] = {
        "attention_mask": np.ones((1, total), np.int64),
        "position_ids": places[None],
        "cache_position": places,
        "seqlens_k": np.array([total - 1]),
        "total_sequence_length": np.array(total),
        "past_sequence_length": np.array([probe.past]),
        **FIXED,
    }
    return np.asarray(table[name]) if name in table else None


def read_inputs(graph: OnnxGraph) -> Inputs:
    """Raises DlavmError naming every input that has no known use, and for a batch other than 1."""
    integers = [v for v in graph.inputs if v.dtype is not None and v.dtype.kind in "iu" and IDS.fullmatch(v.name)]
    if len(integers) != 1:
        names = [v.name for v in graph.inputs]
        raise DlavmError(f"{graph.place}: inputs expected one of token ids, called input_ids, got {names!r}")
    ids = integers[0]
    rest = [v for v in graph.inputs if v is not ids]
    caches = [
        v for v in rest if v.dtype is not None and v.dtype.kind in "fV" and v.shape is not None and len(v.shape) == 4
    ]
    others = [v for v in rest if v not in caches]
    unknown = [v.name for v in others if _given(v.name, Probe(0, 1)) is None]
    if unknown:
        raise DlavmError(
            f"{graph.place}: inputs expected ids, mask, positions and caches of a decoder, got {unknown!r}"
        )
    shape = ids.shape or ("batch", "tokens")
    if len(shape) != 2 or shape[0] not in (1, *[d for d in shape[:1] if isinstance(d, str)]):
        raise DlavmError(f"{graph.place}: {ids.name}: expected (batch, tokens) with a batch of 1, got {list(shape)!r}")
    tokens = shape[1] if isinstance(shape[1], int) else None
    if tokens is not None and not 2 <= tokens <= LONGEST:
        raise DlavmError(f"{graph.place}: {ids.name}: expected a variable number of tokens, got {tokens}")
    sizes = [_cache(graph, v) for v in caches]
    fixed = {past for *_, past in sizes if past is not None}
    if len(fixed) > 1:
        raise DlavmError(f"{graph.place}: caches expected one number of positions, got {sorted(fixed)!r}")
    positions = next((v.name for v in others if v.name in ("position_ids", "cache_position")), None)
    triples = tuple((name, heads, size) for name, heads, size, _ in sizes)
    return Inputs(ids, triples, positions, tuple(others), tokens, next(iter(fixed), None))


def _cache(graph: OnnxGraph, value: OnnxInput) -> tuple[str, int, int, int | None]:
    """Name, heads, size and positions, where these are a number."""
    batch, heads, past, size = value.shape or ()
    numbers = isinstance(heads, int) and isinstance(size, int) and 0 < heads * size <= WIDEST
    if not numbers or (isinstance(batch, int) and batch != 1) or (isinstance(past, int) and not 0 < past <= LONGEST):
        raise DlavmError(
            f"{graph.place}: {value.name}: expected (batch, heads, past, size) with numbers of heads and size, "
            f"got {list(value.shape or ())!r}"
        )
    assert isinstance(heads, int) and isinstance(size, int)
    return value.name, heads, size, past if isinstance(past, int) else None
