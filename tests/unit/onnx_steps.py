"""ONNX decoders run by our graph, by our numpy meaning of the file, and by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlavm.frontend import load_model
from dlavm.frontend.onnx_import.evaluate import run_graph
from dlavm.frontend.onnx_import.load import read_graph
from dlavm.graph import evaluate, new_state


def ours(path: Path, ids: Any, chunks: Sequence[int], ctx: int = 48) -> Any:
    """Logits (tokens, vocabulary) of the imported float graph, in steps of the given numbers of tokens."""
    model = load_model(path)
    assert model.weights is not None
    graph = model.graph(ctx, max(chunks))
    params = {name: model.weights.get(name).astype(np.float32) for name in model.weights.names()}
    state, parts, at = new_state(graph), [], 0
    for count in chunks:
        step = {"ids": ids[at : at + count], "kv_len": at}
        parts.append(evaluate(graph, params, step, state)["logits"])
        at += count
    return np.concatenate(parts)


def feeds(graph: Any, ids: Any, past: dict[str, Any] | None = None, at: int = 0) -> dict[str, Any]:
    """What an ONNX decoder is given for tokens behind `at` cached ones."""
    whole, places = at + len(ids), at + np.arange(len(ids))
    known = {"input_ids": ids[None], "attention_mask": np.ones((1, whole)), "position_ids": places[None]}
    made = {}
    for value in graph.inputs:
        array = known.get(value.name)
        if array is None:
            _, heads, _, size = value.shape
            array = (past or {}).get(value.name, np.zeros((1, heads, 0, size)))
        made[value.name] = np.asarray(array, value.dtype)
    return made


def meaning(path: Path, ids: Any) -> Any:
    """Logits of all tokens at once, by the numpy meaning of the file."""
    graph = read_graph(path)
    names = [value.name for value in graph.outputs]
    return run_graph(graph, feeds(graph, ids))[names.index("logits")][0]


def theirs(path: Path, ids: Any, chunks: Sequence[int] = ()) -> Any:
    """Logits by onnxruntime; in steps, where the model has caches."""
    import onnxruntime

    graph = read_graph(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    past: dict[str, Any] = {}
    parts, at = [], 0
    for count in chunks or (len(ids),):
        found = dict(zip(names, session.run(None, feeds(graph, ids[at : at + count], past, at)), strict=True))
        past = {name.replace("present", "past_key_values"): x for name, x in found.items()}
        parts.append(found["logits"][0])
        at += count
    return np.concatenate(parts)
