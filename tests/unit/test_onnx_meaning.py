"""What the importer holds each ONNX operator to mean: against the node tests of the onnx package and onnxruntime."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from dlavm.frontend.onnx_import.evaluate import run_graph
from dlavm.frontend.onnx_import.load import read_graph
from dlavm.frontend.onnx_import.meaning import CONTRIB, MEANINGS
from dlavm.support.errors import DlavmError
from tests.unit.onnx_node_tests import CLAIMED, NodeTest, claimed_tests

DECODERS = ("attention", "concat", "dequantizelinear", "einsum", "expand", "gather", "gemm", "layernormalization",
            "matmul", "rangeop", "reducemean", "reshape", "rmsnormalization", "rotaryembedding", "scatternd", "slice",
            "softmax", "split", "transpose", "where")  # fmt: skip
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def node_tests() -> list[NodeTest]:
    return list(claimed_tests())


def failures(tests: list[NodeTest], folder: Path) -> list[str]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in tests:
            try:
                test.run(folder)
            except (AssertionError, DlavmError) as error:
                found.append(f"{test.name}: {' '.join(str(error).split())[:200]}")
    return found


def test_node_tests_of_decoders(tmp_path: Path) -> None:
    chosen = list(claimed_tests(DECODERS))
    assert len(chosen) > 200
    assert not failures(chosen, tmp_path)


@pytest.mark.slow
def test_node_tests(node_tests: list[NodeTest], tmp_path: Path) -> None:
    assert len(node_tests) > 1100
    assert not failures(node_tests, tmp_path)


@pytest.mark.slow
def test_every_claim_of_the_standard_has_a_node_test(node_tests: list[NodeTest]) -> None:
    tested = {op for test in node_tests for op in test.ops}
    assert {op for op in CLAIMED if op[0] != CONTRIB} <= tested


def model_of(path: Path, op: str, inputs: list[Any], outputs: int, domain: str, **attrs: Any) -> Path:
    """A model of one node; absent inputs are None."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], domain=domain, name="the node", **attrs)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, inputs, strict=True)
        if x is not None
    ]
    results = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(outputs)]
    graph = helper.make_graph([node], "g", values, results)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def caches(count: int, half: int) -> tuple[Any, Any]:
    angles = np.arange(count)[:, None] * 10000.0 ** (-np.arange(half) / half)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def grouped(past: int, t: int, **attrs: Any) -> Callable[[], tuple[list[Any], int, dict[str, Any]]]:
    def make() -> tuple[list[Any], int, dict[str, Any]]:
        q, k, v = floats(1, t, 64), floats(1, t, 32), floats(1, t, 32)
        cache = floats(1, 2, past, 16), floats(1, 2, past, 16)
        lengths = np.array([past + t - 1], np.int32), np.array([past + t], np.int32)
        tables = caches(32, 8) if attrs.get("do_rotary") else (None, None)
        return [q, k, v, *cache, *lengths, *tables], 3, {"num_heads": 4, "kv_num_heads": 2, **attrs}

    return make


def nbits(zero: bool, bits: int = 4) -> Callable[[], tuple[list[Any], int, dict[str, Any]]]:
    def make() -> tuple[list[Any], int, dict[str, Any]]:
        n, k, block = 5, 80, 32
        groups = -(-k // block)
        packed = RNG.integers(0, 256, (n, groups, block * bits // 8), np.uint8)
        points = RNG.integers(0, 256, n * -(-groups * bits // 8), np.uint8) if zero else None
        attrs = {"N": n, "K": k, "bits": bits, "block_size": block}
        return [floats(1, 3, k), packed, np.abs(floats(n * groups)), points], 1, attrs

    return make


def gathered(zero: bool) -> Callable[[], tuple[list[Any], int, dict[str, Any]]]:
    def make() -> tuple[list[Any], int, dict[str, Any]]:
        data = RNG.integers(0, 256, (6, 16), np.uint8)
        points = RNG.integers(0, 256, (6, 1), np.uint8) if zero else None
        attrs = {"bits": 4, "block_size": 16, "quantize_axis": 1, "gather_axis": 0}
        return [data, np.array([[5, 0, 2]], np.int64), np.abs(floats(6, 2)), points], 1, attrs

    return make


def rotary(**attrs: Any) -> Callable[[], tuple[list[Any], int, dict[str, Any]]]:
    def make() -> tuple[list[Any], int, dict[str, Any]]:
        part = attrs.get("rotary_embedding_dim", 8)
        return [floats(1, 3, 4 * 8), np.array([[4, 5, 9]], np.int64), *caches(16, part // 2)], 1, attrs

    return make


CONTRIBUTED: dict[str, tuple[str, Callable[[], tuple[list[Any], int, dict[str, Any]]]]] = {
    "bias_gelu": ("BiasGelu", lambda: ([floats(2, 6), floats(6)], 1, {})),
    "fast_gelu": ("FastGelu", lambda: ([floats(2, 6), floats(6)], 1, {})),
    "gelu": ("Gelu", lambda: ([floats(2, 6)], 1, {})),
    "quick_gelu": ("QuickGelu", lambda: ([floats(2, 6)], 1, {"alpha": 1.5})),
    "skip_rms": ("SkipSimplifiedLayerNormalization",
                 lambda: ([floats(1, 3, 8), floats(1, 3, 8), floats(8)], 4, {"epsilon": 1e-3})),
    "skip_norm": ("SkipLayerNormalization",
                  lambda: ([floats(1, 3, 8), floats(1, 3, 8), floats(8), floats(8), floats(8)], 4, {"epsilon": 1e-3})),
    "rotary": ("RotaryEmbedding", rotary()),
    "rotary_interleaved": ("RotaryEmbedding", rotary(interleaved=1)),
    "rotary_part": ("RotaryEmbedding", rotary(rotary_embedding_dim=4, num_heads=4)),
    "gqa": ("GroupQueryAttention", grouped(0, 5)),
    "gqa_past": ("GroupQueryAttention", grouped(3, 1, scale=0.3)),
    "gqa_rotary": ("GroupQueryAttention", grouped(3, 1, do_rotary=1)),
    "gqa_interleaved": ("GroupQueryAttention", grouped(0, 4, do_rotary=1, rotary_interleaved=1)),
    "gqa_window": ("GroupQueryAttention", grouped(0, 7, local_window_size=3)),
    "gqa_window_past": ("GroupQueryAttention", grouped(6, 1, local_window_size=3)),
    "gqa_softcap": ("GroupQueryAttention", grouped(0, 4, softcap=2.0)),
    "mha": ("MultiHeadAttention", lambda: ([floats(1, 4, 16)] + [floats(1, 4, 16)] * 2, 1, {"num_heads": 2})),
    "mha_causal": ("MultiHeadAttention",
                   lambda: ([floats(1, 4, 16), floats(1, 4, 16), floats(1, 4, 16), floats(48), None,
                             floats(1, 2, 4, 4)], 1, {"num_heads": 2, "unidirectional": 1})),
    "mha_past": ("MultiHeadAttention",
                 lambda: ([floats(1, 2, 16), floats(1, 2, 16), floats(1, 2, 16), None, None, None,
                           floats(1, 2, 3, 8), floats(1, 2, 3, 8)], 3, {"num_heads": 2, "unidirectional": 1})),
    "nbits": ("MatMulNBits", nbits(False)),
    "nbits_zero": ("MatMulNBits", nbits(True)),
    "nbits8": ("MatMulNBits", nbits(False, 8)),
    "gather": ("GatherBlockQuantized", gathered(False)),
    "gather_zero": ("GatherBlockQuantized", gathered(True)),
    "simplified": ("SimplifiedLayerNormalization", lambda: ([floats(1, 3, 8), floats(8)], 1, {"epsilon": 1e-3})),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRIBUTED)
def test_contributed_operators_as_onnxruntime_runs_them(case: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    op, make = CONTRIBUTED[case]
    inputs, outputs, attrs = make()
    domain = "" if op == "SimplifiedLayerNormalization" else CONTRIB  # where onnxruntime has it
    path = model_of(tmp_path / "model.onnx", op, inputs, outputs, domain, **attrs)
    named = {f"x{i}": x for i, x in enumerate(inputs) if x is not None}
    try:
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except runtime.capi.onnxruntime_pybind11_state.Fail as error:
        pytest.skip(f"this onnxruntime has no such kernel: {error}")
    wanted = session.run(None, named)
    for ours, theirs in zip(run_graph(read_graph(path), named), wanted, strict=True):
        if theirs.size and theirs.shape[-1] > 1:  # onnxruntime leaves means and deviations empty or zero
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_every_contributed_operator_is_held_against_onnxruntime() -> None:
    assert {op for domain, op in MEANINGS if domain == CONTRIB} == {op for op, _ in CONTRIBUTED.values()}


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("Reshape", [np.zeros((2, 3), np.float32), np.array([4, 2])], {}, "the node .Reshape.: shape expected 6"),
        ("Gather", [np.zeros((2, 3), np.float32), np.array([7])], {}, "indices expected within -2..1, got .7, 7."),
        ("Expand", [np.zeros((1,), np.float32), np.array([1 << 40])], {}, "result expected extents of at most"),
        ("ConstantOfShape", [np.array([1 << 20, 1 << 20])], {}, "result expected extents of at most"),
        ("Range", [np.array(0), np.array(1 << 50), np.array(1)], {}, "result expected extents of at most"),
        ("Range", [np.array(0), np.array(5), np.array(0)], {}, "delta expected a finite number other than 0"),
        ("Tile", [np.zeros(4, np.float32), np.array([1 << 40])], {}, "result expected extents of at most"),
        ("Pad", [np.zeros(4, np.float32), np.array([0, 1 << 40])], {}, "result expected extents of at most"),
        ("OneHot", [np.array([1]), np.array(1 << 40), np.array([0.0, 1.0])], {}, "result expected extents of at most"),
        ("Add", [np.zeros((1 << 14, 1), np.float32), np.zeros((1, 1 << 14), np.float32)], {}, "result expected"),
        ("MatMul", [np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)], {}, "shapes that multiply"),
        ("Transpose", [np.zeros((2, 3), np.float32)], {"perm": [0, 0]}, "perm expected a permutation of 2 axes"),
        ("Slice", [np.zeros(3, np.float32), np.array([0]), np.array([1, 2])], {}, "expected equal lengths"),
        ("Einsum", [np.zeros((2, 3), np.float32)], {"equation": "ij,jk"}, "equation expected letters"),
        ("Cast", [np.zeros(3, np.float32)], {"to": int(TensorProto.STRING)}, "element type expected real numbers"),
        ("Split", [np.zeros(3, np.float32), np.array([5, -2])], {"axis": 0}, "split expected 1 sizes that sum to 3"),
    ],
)  # fmt: skip
def test_refusals(op: str, inputs: list[Any], attrs: dict[str, Any], message: str, tmp_path: Path) -> None:
    graph = read_graph(model_of(tmp_path / "model.onnx", op, inputs, 1, "", **attrs))
    with pytest.raises(DlavmError, match=message):
        run_graph(graph, {f"x{i}": x for i, x in enumerate(inputs)})


def test_the_table_of_operators_is_up_to_date(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    page = (repository / "doc" / "onnx.md").read_text(encoding="utf-8")
    render = importlib.import_module("onnx_table").render
    assert render(page) == page, "run `python scripts/onnx_table.py`"
