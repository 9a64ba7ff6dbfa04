"""What a front end hands over: a graph builder, a source of weights, the tokenizer's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dlavm.graph import Graph
from dlavm.graph.ir import JsonValue
from dlavm.support.errors import DlavmError

SHOWN = 8  # names that an error lists before it only counts
WEIGHTS_HINT = "name their directory with --weights, or say --weights random"


class WeightSource(Protocol):
    """Tensors of a checkpoint, read one at a time."""

    place: str
    """The file or directory, for error messages."""

    def names(self) -> list[str]:
        """All tensor names, sorted."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises DlavmError for an unknown tensor."""

    def dtype(self, name: str) -> str:
        """The element type in the checkpoint: F16, BF16, F32. Raises DlavmError for an unknown tensor."""

    def get(self, name: str) -> NDArray[Any]:
        """The values as float16 (of F16) or float32. Raises DlavmError for an unknown or unusable tensor."""


@dataclass(frozen=True)
class Model:
    """A model as the user named it. `build(ctx, chunk)` makes its graph; `graph` does and checks it.

    `weights` is None when the model file names none, or when only shapes are wanted (`shapes_only`); `tokenizer` is
    the directory that holds tokenizer.json; `config` goes into the graph's `meta` (bos_token_id, eos_token_ids,
    max_position_embeddings, sizes).
    """

    name: str
    build: Callable[[int, int], Graph]
    weights: WeightSource | None = None
    tokenizer: Path | None = None
    config: Mapping[str, JsonValue] = field(default_factory=dict)
    shapes_only: bool = False

    def needed_weights(self) -> WeightSource:
        """The weights. Raises DlavmError where there are none."""
        if self.weights is None:
            raise DlavmError(f"model {self.name}: no weights; {WEIGHTS_HINT}")
        return self.weights

    @property
    def max_ctx(self) -> int | None:
        """The longest context the model was trained for, where its configuration says."""
        limit = self.config.get("max_position_embeddings")
        return limit if isinstance(limit, int) else None

    def graph(self, ctx: int, chunk: int) -> Graph:
        """The graph for a cache of `ctx` positions and steps of up to `chunk` tokens, held against the weights.

        Raises DlavmError for a context the model cannot have, for shapes that do not fit each other (naming the
        place), for missing, extra or misshapen weights.
        """
        if self.max_ctx is not None and ctx > self.max_ctx:
            raise DlavmError(f"model {self.name}: ctx expected at most {self.max_ctx} positions, got {ctx!r}")
        graph = self.build(ctx, chunk)
        if self.weights is not None:
            check_weights(graph, self.weights)
        return replace(graph, meta={**self.config, **graph.meta})


def check_weights(graph: Graph, weights: WeightSource) -> None:
    """Raise DlavmError unless the checkpoint holds every param in its shape, and nothing else.

    Ignored: rotary `inv_freq` buffers of checkpoints, and the stored copy of a head that is tied.
    """
    present, used = set(weights.names()), {param.source for param in graph.params}
    missing = [f"{p.source} {list(map(int, p.type.shape))}" for p in graph.params if p.source not in present]
    if missing:
        raise DlavmError(f"weights {weights.place}: {_listed('missing tensors', missing)}, got {len(present)} others")
    for param in graph.params:
        expected, found = [int(extent) for extent in param.type.shape], list(weights.shape(param.source))
        if expected != found:
            raise DlavmError(f"weights {weights.place}: {param.source} expected shape {expected!r}, got {found!r}")
    tied = {param.name for param in graph.params if param.source != param.name}
    extra = [n for n in weights.names() if n not in used | tied and not n.endswith(".inv_freq")]
    if extra:
        raise DlavmError(f"weights {weights.place}: expected only what the model uses, got {_listed('extra', extra)}")


def _listed(what: str, names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what}: {', '.join(names[:SHOWN])}{rest}"
