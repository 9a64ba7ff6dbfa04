"""ONNX decoders: recognised, rewritten with a cache, and proved against the file's own meaning and onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.onnx_models import VOCAB, Writer
from tests.unit.onnx_steps import meaning, ours, theirs

IDS = np.random.default_rng(2).integers(0, VOCAB, 20)
CHUNKS = (8, 1, 1, 7, 3)
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "opset 13": {"opset": 13},
    "cached": {"cached": True},
    "square norm": {"norm": "square", "opset": 20},
    "centred norm": {"norm": "centred"},
    "layer norm": {"norm": "layer"},
    "interleaved": {"rotary": "interleaved", "cached": True},
    "contrib rotary": {"rotary": "contrib", "cached": True},
    "opset 23": {"norm": "operator", "rotary": "operator", "attention": "operator", "opset": 23, "cached": True},
    "opset 24": {"norm": "operator", "rotary": "operator", "attention": "operator", "opset": 24, "act": "swish"},
    "genai": {"norm": "contrib", "attention": "gqa", "cached": True, "linear": "nbits"},
    "genai zero points": {"norm": "contrib", "attention": "gqa", "cached": True, "linear": "nbits", "zero": True},
    "genai window": {"norm": "contrib", "attention": "gqa", "cached": True, "window": 5},
    "window": {"window": 6, "cached": True},
    "window without a cache": {"window": 6, "mask": "where"},
    "where": {"mask": "where", "softcap": 3.0},
    "softcap": {"softcap": 3.0, "cached": True},
    "gemm": {"linear": "gemm"},
    "turned": {"linear": "turned", "bias": True},
    "fused": {"mlp": "fused", "bias": True, "cached": True},
    "last token": {"last": True},
    **{act: {"act": act} for act in ("gelu", "gelu_tanh", "relu", "quick_gelu", "fast_gelu", "bias_gelu")},
    "gelu operator": {"act": "gelu_operator", "opset": 20},
}  # fmt: skip


QUICK = ("cached", "genai", "opset 23", "window without a cache")


@pytest.mark.parametrize("form", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FORMS])
def test_the_graph_is_the_file_token_by_token(form: str, tmp_path: Path) -> None:
    path = Writer(**FORMS[form]).save(tmp_path / "model.onnx")
    found, wanted = ours(path, IDS, CHUNKS), meaning(path, IDS)
    rows = found[-1:] if FORMS[form].get("last") else found
    largest = float(np.abs(wanted).max())
    assert largest > 1
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-4 * largest)
    runtime = pytest.importorskip("onnxruntime")
    try:
        outside = theirs(path, IDS, steps(form))
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        pytest.skip(f"this onnxruntime has no such kernel: {error}")
    np.testing.assert_allclose(rows, outside, rtol=0, atol=1e-3 * largest)
    assert (rows.argmax(-1) == outside.argmax(-1)).all()


def steps(form: str) -> tuple[int, ...]:
    """How onnxruntime is given the tokens; its GroupQueryAttention takes one at a time behind cached ones."""
    if FORMS[form].get("attention") == "gqa":
        return 8, *[1] * 12
    return CHUNKS if FORMS[form].get("cached") else ()


def branched(writer: Writer) -> onnx.ModelProto:
    """A merged decoder of optimum: use_cache_branch says whether keys and values stand behind cached ones."""
    model = writer.model()
    for node in model.graph.node:
        if node.op_type != "Concat" or not node.output[0].startswith("present"):
            continue
        (past, new), out = node.input, node.output[0]
        ways = []
        for name, inner in (("then", helper.make_node("Concat", [past, new], [f"then.{out}"], axis=2)),
                            ("else", helper.make_node("Identity", [new], [f"else.{out}"]))):  # fmt: skip
            value = helper.make_tensor_value_info(f"{name}.{out}", TensorProto.FLOAT, [None] * 4)
            ways.append(helper.make_graph([inner], name, [], [value]))
        choice = {"then_branch": ways[0], "else_branch": ways[1]}
        node.CopyFrom(helper.make_node("If", ["use_cache_branch"], [out], name=node.name, **choice))
    model.graph.input.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))
    return model


def test_a_merged_decoder_is_the_one_with_caches(tmp_path: Path) -> None:
    plain = Writer(cached=True).save(tmp_path / "plain.onnx")
    merged = tmp_path / "merged.onnx"
    merged.write_bytes(branched(Writer(cached=True)).SerializeToString())
    np.testing.assert_array_equal(ours(merged, IDS, CHUNKS), ours(plain, IDS, CHUNKS))
