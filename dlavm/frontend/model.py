"""What a front end hands over: a graph builder, a source of weights, the tokenizer's place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dlavm.formats import FORMATS, Grid
from dlavm.frontend.permutations import with_permutations
from dlavm.graph import Graph
from dlavm.graph.derived import derived
from dlavm.graph.ir import JsonValue, Tensor
from dlavm.support.errors import DlavmError

DTYPES = ("F16", "BF16", "F32")  # element types of checkpoints, as safetensors calls them
ALL = slice(None)
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
        """The element type in the checkpoint: F16, BF16, F32, I32 of indices, or a name of FORMATS where it is
        quantised in a way that a Grid holds. Raises DlavmError for an unknown tensor."""

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        """The values of some rows as float16 (of F16), int32 (of I32) or float32; only these are read. Raises
        DlavmError for an unknown or unusable tensor."""

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        """Some rows of a quantised tensor, None of another. Raises DlavmError as `get` does."""

    def note(self, name: str) -> str:
        """Why the checkpoint's own grid of a tensor cannot be kept; empty where it is kept, or where there is none."""

    def nearest(self, name: str) -> str:
        """The name in FORMATS of what loses least of a grid that cannot be kept; empty where nobody can say."""


@dataclass(frozen=True)
class Model:
    """A model as the user named it. `build(ctx, chunk)` makes its graph; `graph` does and checks it.

    `weights` is None when the model file names none, or when only shapes are wanted (`shapes_only`); `tokenizer` is
    the directory that holds tokenizer.json, or by name the text of it and of what belongs to it; `config` goes into
    the graph's `meta` (bos_token_id, eos_token_ids, max_position_embeddings, sizes); `notes` say what of the input is
    not used, and why; `permutations` are those of `with_permutations`, where the weights need some; `fields` are those
    of a Hugging Face config.json that describes the model, None where there is none.
    """

    name: str
    build: Callable[[int, int], Graph]
    weights: WeightSource | None = None
    tokenizer: Path | Mapping[str, str] | None = None
    config: Mapping[str, JsonValue] = field(default_factory=dict)
    shapes_only: bool = False
    notes: tuple[str, ...] = ()
    permutations: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] | None = None

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
        self.check_ctx(ctx)
        graph = self.graph_alone(ctx, chunk)
        if self.weights is not None:
            check_weights(graph, self.weights)
        return graph

    def check_ctx(self, ctx: int) -> None:
        """Raises DlavmError for a context the model cannot have."""
        if self.max_ctx is not None and ctx > self.max_ctx:
            raise DlavmError(f"model {self.name}: ctx expected at most {self.max_ctx} positions, got {ctx!r}")

    def graph_alone(self, ctx: int, chunk: int) -> Graph:
        """`graph`, but not held against the weights and the longest context."""
        graph = with_permutations(self.build(ctx, chunk), self.permutations)
        return replace(graph, meta={**self.config, **graph.meta})


def model_name(wanted: str) -> str:
    """A name of a graph, program and artifact: `wanted`, the name of a file or directory, without what those cannot
    have, and "model" where nothing is left."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).lstrip(".-") or "model"


def check_weights(graph: Graph, weights: WeightSource) -> None:
    """Raise DlavmError unless the checkpoint holds every param in its shape, and nothing else.

    Ignored: rotary `inv_freq` buffers of checkpoints, the stored copy of a head that is tied, and biases of zeros, as
    quantisers write them for layers that have none.
    """
    missing = [f"{name} {list(shape)}" for name, shape in _missing(graph, weights)]
    if missing:
        others = len(weights.names())
        raise DlavmError(f"weights {weights.place}: {_listed('missing tensors', missing)}, got {others} others")
    for what in _misshapen(graph, weights).values():
        raise DlavmError(f"weights {weights.place}: {what}")
    if extra := _extra(graph, weights):
        raise DlavmError(f"weights {weights.place}: expected only what the model uses, got {_listed('extra', extra)}")


def weight_problems(graph: Graph, weights: WeightSource) -> list[tuple[str, str]]:
    """Tensor and problem of everything that `check_weights` refuses, and of every type that no source can give."""
    place, missing = f"weights {weights.place}", _missing(graph, weights)
    problems = [(n, f"{place}: {n} expected shape {list(shape)}, got no such tensor") for n, shape in missing]
    problems += [(name, f"{place}: {what}") for name, what in _misshapen(graph, weights).items()]
    kinds = {tensor: "I32" if param.type.dtype == "i32" else "" for param in graph.params for tensor in param.tensors}
    for tensor, kind in kinds.items():
        expected = (kind,) if kind else DTYPES
        found = None if tensor in missing else weights.dtype(tensor.name)
        if found is not None and found not in (expected if kind else (*DTYPES, *FORMATS)):
            problems.append((tensor.name, f"{place}: {tensor.name} expected one of {expected!r}, got {found!r}"))
    extra = f"{place}: expected only what the model uses, got"
    return problems + [(name, f"{extra} {name}") for name in _extra(graph, weights)]


def _tensors(graph: Graph) -> list[Tensor]:
    return [tensor for param in graph.params for tensor in param.tensors]


def _missing(graph: Graph, weights: WeightSource) -> list[Tensor]:
    present = set(weights.names())
    return [tensor for tensor in _tensors(graph) if not present & {tensor.name, derived(tensor.name).base}]


def _misshapen(graph: Graph, weights: WeightSource) -> dict[str, str]:
    """What is wrong with the shapes of tensors, by tensor."""
    absent, found = {tensor.name for tensor in _missing(graph, weights)}, {}
    for name, shape in _tensors(graph):
        if name in absent:
            continue
        try:
            given = tuple(weights.shape(name))
        except DlavmError as error:  # the checkpoint's tensor has no such part
            found[name] = str(error)
        else:
            if shape != given:
                found[name] = f"{name} expected shape {list(shape)!r}, got {list(given)!r}"
    return found


def _extra(graph: Graph, weights: WeightSource) -> list[str]:
    used = {name for tensor in _tensors(graph) for name in (tensor.name, derived(tensor.name).base)}
    tied = {param.name for param in graph.params if param.source not in ("", param.name)}
    extra = [n for n in weights.names() if n not in used | tied and not n.endswith(".inv_freq")]
    return [n for n in extra if not (n.endswith(".bias") and not weights.get(n).any())]


def _listed(what: str, names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what}: {', '.join(names[:SHOWN])}{rest}"
