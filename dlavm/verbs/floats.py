"""The float32 model behind an artifact or a checkpoint, run like a session: the yardstick of the accelerator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.compile import Options
from dlavm.frontend import Model
from dlavm.graph import Graph, evaluate, new_state, parse_graph
from dlavm.graph.opdef import Array
from dlavm.graph.parts import joined
from dlavm.pack.artifact import Artifact
from dlavm.pack.unpack import read_weights
from dlavm.passes import QuantizeCache
from dlavm.runtime.session import StepResult
from dlavm.runtime.tokens import Tokenizer, folder_defaults, folder_tokenizer, text_tokenizer
from dlavm.sim.device import Counters
from dlavm.support.errors import DlavmError

Weights = Mapping[str, NDArray[np.float32]]
NOTHING = Counters(cycles=0, commands=0, bytes_read=0, bytes_written=0)


class FloatSession:
    """A graph evaluated in float32, with the part of Session's interface that `generate` uses."""

    def __init__(self, graph: Graph, weights: Weights, vocab_size: int) -> None:
        self.graph = graph
        self.weights = weights
        self.vocab_size = vocab_size
        self.ctx = graph.variables["kv_len"].hi + 1
        self.chunk = graph.variables["token"].hi
        self.kv_len = 0
        self._state = new_state(graph)

    @property
    def room(self) -> int:
        """Tokens that still fit the context."""
        return self.ctx - self.kv_len

    def reset(self) -> None:
        """Forgets every token."""
        self.kv_len = 0

    def check_prompt(self, ids: Sequence[int]) -> list[int]:
        """As Session does."""
        plain = [int(token) for token in ids]
        wrong = [token for token in plain if not 0 <= token < self.vocab_size]
        if not plain or wrong:
            raise DlavmError(f"prompt: expected ids in 0..{self.vocab_size - 1}, got {wrong[0] if wrong else 'none'}")
        if len(plain) > self.room:
            raise DlavmError(
                f"prompt: expected at most {self.room} tokens (context {self.ctx}, in the cache "
                f"{self.kv_len}), got {len(plain)}"
            )
        return plain

    def prefill(self, ids: Sequence[int], head_rows: int = 1, logits_all: bool = False) -> StepResult:
        """As Session does; the logits are float32."""
        logits = self.logits(ids)
        logits = logits if logits_all else logits[len(logits) - head_rows :]
        return StepResult(logits, np.argmax(logits, axis=1).astype(np.uint32), NOTHING)  # type: ignore[arg-type]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Runs `ids` after those in the cache: the logits of each, (tokens, vocab_size) float32."""
        ids = self.check_prompt(ids)
        parts = [self._step(ids[start : start + self.chunk]) for start in range(0, len(ids), self.chunk)]
        return np.concatenate(parts)

    def _step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        inputs: dict[str, Array | int] = {"kv_len": self.kv_len, "token": len(ids)}
        inputs[self.graph.inputs[0].name] = np.asarray(ids, dtype=np.int32)
        logits = evaluate(self.graph, self.weights, inputs, self._state)["logits"]
        self.kv_len += len(ids)
        return np.asarray(logits, dtype=np.float32)


def artifact_graph(artifact: Artifact) -> Graph:
    """The graph that an artifact was compiled from, after the passes."""
    return parse_graph(artifact.file("graph.txt").read_text(encoding="utf-8"))


def quantised_session(artifact: Artifact) -> FloatSession:
    """Float32 arithmetic on the numbers that the artifact holds, and on what its caches would hold of the keys and
    values."""
    return FloatSession(artifact_graph(artifact), read_weights(artifact), artifact.manifest.model.vocab_size)


def model_session(model: Model, options: Options) -> FloatSession:
    """Float32 arithmetic on a checkpoint's own weights."""
    graph = model.graph(*options.sizes(model))
    return FloatSession(graph, original_weights(model, graph), int(graph.outputs["logits"].type.shape[-1]))


def original_session(model: Model, artifact: Artifact) -> FloatSession:
    """The artifact's graph with the weights of the model that it was built from, and caches that do not round.

    Raises DlavmError where the model is another one: what the artifact keeps in fp16 must be the model's own numbers.
    """
    graph = QuantizeCache("fp16")(artifact_graph(artifact))  # in float32: as they are
    weights = original_weights(model, graph)
    kept = {t.name for t in artifact.manifest.tensors if t.dtype == "f16" and t.role == "weights"}
    ours = read_weights(artifact, kept & {p.name for p in graph.params})
    for param in graph.params:
        theirs = joined(param, weights.__getitem__).astype(np.float16)
        if param.name in ours and not np.array_equal(ours[param.name], theirs.astype(np.float32)):
            raise DlavmError(
                f"model {model.name}: {param.source or param.name}: expected the values in the artifact "
                f"{artifact.path}, got others: it was built from another checkpoint"
            )
    return FloatSession(graph, weights, artifact.manifest.model.vocab_size)


def original_weights(model: Model, graph: Graph) -> dict[str, NDArray[np.float32]]:
    """The checkpoint tensors of the graph's params, by checkpoint name. Raises DlavmError for a missing one."""
    weights, names = model.needed_weights(), {name for param in graph.params for name, _ in param.tensors}
    return {name: weights.get(name).astype(np.float32) for name in sorted(names)}


def model_tokenizer(model: Model) -> Tokenizer | None:
    """The tokenizer that came with a checkpoint."""
    if model.tokenizer is None or isinstance(model.tokenizer, Path):
        return folder_tokenizer(model.tokenizer) if model.tokenizer is not None else None
    return text_tokenizer(model.tokenizer, model.name)


def model_defaults(model: Model) -> Mapping[str, Any]:
    """generation_config.json of a checkpoint directory; empty where there is none."""
    return folder_defaults(model.tokenizer) if isinstance(model.tokenizer, Path) else {}
