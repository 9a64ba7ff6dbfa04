"""The float reference against the golden tokens of real checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.frontend import Model, load_model
from dlavm.graph import evaluate, new_state
from dlavm.passes import Cse, Dce, FuseEpilogue, QuantizeWeights, run


def floats(model: Model) -> dict[str, Any]:
    assert model.weights is not None
    return {name: model.weights.get(name).astype(np.float32) for name in model.weights.names()}


def greedy(model: Model, prompt: list[int], count: int) -> list[int]:
    """`count` greedy tokens: the prompt as one chunk, then token by token."""
    graph, params = model.graph(ctx=256, chunk=64), floats(model)
    state, tokens, kv_len, step = new_state(graph), list[int](), 0, prompt
    while len(tokens) < count:
        out = evaluate(graph, params, {"ids": np.array(step), "kv_len": kv_len, "head_rows": 1}, state)
        kv_len += len(step)
        step = [int(out["next"][0])]
        tokens += step
    return tokens


def test_stories260k_reproduces_its_golden_text(shared: Path) -> None:
    directory = shared / "models" / "stories260K"
    ids = json.loads((directory / "golden_greedy.json").read_text())["ids"]
    assert greedy(load_model(directory), ids[:1], len(ids) - 1) == ids[1:]


@pytest.mark.parametrize("case", [0, 5, 11])
def test_stories_reproduces_golden_tokens(repository: Path, case: int) -> None:
    golden = json.loads((repository / "models/stories/golden_greedy.json").read_text())["cases"][case]
    model = load_model(repository / "models" / "stories.py")
    assert greedy(model, golden["prompt_ids"], 24) == golden["greedy_ids"][:24]


def test_hand_written_stories_equal_the_checkpoint(repository: Path) -> None:
    written, read = load_model(repository / "models/stories.py"), load_model(repository / "models/stories")
    assert written.tokenizer == read.tokenizer == repository / "models" / "stories"
    params, ids = floats(read), np.array([0, 2, 1762, 506, 263, 601, 3])
    outputs = []
    for model in (written, read):
        graph = model.graph(ctx=32, chunk=8)
        fused = run([Dce(), Cse(), FuseEpilogue(), QuantizeWeights()], graph)
        for variant in (graph, fused):
            out = evaluate(variant, params, {"ids": ids, "kv_len": 0}, new_state(variant))
            outputs.append(out["logits"])
    assert outputs[0].shape == (7, 4096)
    for other in outputs[1:]:
        np.testing.assert_array_equal(outputs[0], other)


def test_only_linears_norms_and_attention_remain(repository: Path) -> None:
    graph = run([Dce(), Cse(), FuseEpilogue()], load_model(repository / "models/stories.py").graph(64, 8))
    found = {node.op for node in graph.nodes}
    assert found == {
        "embedding", "linear", "rms_norm", "rope", "kv_append", "attention", "reshape", "last_rows", "argmax"
    }  # fmt: skip
