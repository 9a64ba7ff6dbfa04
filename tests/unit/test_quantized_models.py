"""Models with quantised linears are, in floats, those of the numbers that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.frontend import Model, load_model
from dlavm.frontend.permutations import with_permutations
from dlavm.graph import Builder, Graph, evaluate, new_state, parse_graph, print_graph, verify
from dlavm.passes import Cse, run
from dlavm.support.errors import DlavmError
from tests.unit.quantized_llama import LAYERS, Maker, pair
from tests.unit.quantized_tensors import awq, fp8, gptq, pack_quantized, write
from tests.unit.test_quantized import AWQ, FP8, GPTQ, compressed

KINDS: dict[str, tuple[Maker, dict[str, Any]]] = {
    "gptq": (lambda n, k, seed: gptq(n, k, seed=seed), GPTQ),
    "gptq act-order": (lambda n, k, seed: gptq(n, k, act=True, seed=seed), {**GPTQ, "desc_act": True}),
    "awq": (lambda n, k, seed: awq(n, k, seed=seed), AWQ),
    "packed act-order": (lambda n, k, seed: pack_quantized(n, k, act=True, seed=seed), compressed(group_size=32)),
    "fp8": (lambda n, k, seed: fp8(n, k, (n, 1), (1, k), "weight_scale", np.float32, seed), FP8),
}


def logits(model: Model, graph: Graph) -> np.ndarray:
    assert model.weights is not None
    params = {t.name: model.weights.get(t.name) for param in graph.params for t in param.tensors}
    ids = np.array([3, 17, 40, 1, 9])
    inputs = {"ids": ids, "kv_len": 0, "head_rows": 5}
    return np.asarray(evaluate(graph, params, inputs, new_state(graph))["logits"])


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_numbers(kind: str, tmp_path: Path) -> None:
    make, quantization = KINDS[kind]
    quantised, floats = (load_model(path) for path in pair(tmp_path, make, quantization))
    graph = quantised.graph(16, 8)
    verify(graph)
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
    expected = logits(floats, floats.graph(16, 8))
    np.testing.assert_allclose(logits(quantised, graph), expected, rtol=2e-4, atol=2e-5)
    assert np.abs(expected).max() > 0.1
    # q, k, v share one node, up and gate another one, in each layer
    assert sum(node.op == "permute" for node in graph.nodes) == (4 * LAYERS if "act-order" in kind else 0)
    assert len(run([Cse()], graph).nodes) == len(graph.nodes)


def test_python_files_with_such_weights(tmp_path: Path) -> None:
    make, quantization = KINDS["gptq act-order"]
    quantised, floats = pair(tmp_path, make, quantization)
    (tmp_path / "shape.py").write_text(
        "from dlavm.frontend import load_model\n"
        f"inner = load_model({str(floats)!r}, 'none')\n"
        "WEIGHTS = 'quantised'\nbuild = inner.build\n"
    )
    model, other = load_model(tmp_path / "shape.py"), load_model(quantised)
    np.testing.assert_array_equal(logits(model, model.graph(16, 8)), logits(other, other.graph(16, 8)))


def test_biases_of_zeros_are_no_extras(tmp_path: Path) -> None:
    def make(n: int, k: int, seed: int) -> Any:
        made = gptq(n, k, seed=seed)
        made.tensors["bias"] = np.zeros(n, np.float16)
        return made

    quantised, _ = pair(tmp_path, make, GPTQ)
    load_model(quantised).graph(16, 8)

    def wrong(n: int, k: int, seed: int) -> Any:
        made = make(n, k, seed)
        made.tensors["bias"][3] = 1
        return made

    quantised, _ = pair(tmp_path / "wrong", wrong, GPTQ)
    with pytest.raises(
        DlavmError, match="expected only what the model uses, got extra: model.layers.0.mlp.down_proj.bias"
    ):
        load_model(quantised).graph(16, 8)


def test_a_permuted_weight_that_is_read_otherwise() -> None:
    b = Builder("m", ctx=4, chunk=2)
    ids, table = b.input("ids", (b.token,), "i32"), b.param("table.weight", (8, 16))
    graph = b.finish(y=b.embedding(ids, table))
    with pytest.raises(DlavmError, match="table.weight expected columns in the order of its input"):
        with_permutations(graph, {"table.weight": "table.permutation"})
    assert with_permutations(graph, {"other.weight": "other.permutation"}).nodes == graph.nodes


def test_shapes_are_held_against_the_config(tmp_path: Path) -> None:
    make, quantization = KINDS["awq"]
    quantised, _ = pair(tmp_path, make, quantization, intermediate_size=128)
    with pytest.raises(DlavmError, match=r"up_proj.weight expected shape \[128, 64\], got \[96, 64\]"):
        load_model(quantised).graph(16, 8)
    write(tmp_path / "empty", {"x": np.ones(1, np.float16)}, GPTQ)
    with pytest.raises(DlavmError, match="model_type expected one of"):
        load_model(tmp_path / "empty")
