"""ONNX decoders: recognised, rewritten with a cache, and proved against the file's own meaning and onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


@pytest.mark.parametrize("form", FORMS)
def test_the_graph_is_the_file_token_by_token(form: str, tmp_path: Path) -> None:
    path = Writer(**FORMS[form]).save(tmp_path / "model.onnx")
    wanted = meaning(path, IDS)
    found = ours(path, IDS, CHUNKS)
    largest = float(np.abs(wanted).max())
    assert largest > 1
    rows = found[-1:] if FORMS[form].get("last") else found
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("form", FORMS)
def test_onnxruntime_gives_the_same(form: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = Writer(**FORMS[form]).save(tmp_path / "model.onnx")
    chunks = CHUNKS if FORMS[form].get("cached") and FORMS[form].get("attention") != "gqa" else ()
    chunks = (
        (8, *[1] * 12) if FORMS[form].get("attention") == "gqa" else chunks
    )  # its kernel takes one token after the first
    try:
        wanted = theirs(path, IDS, chunks)
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        pytest.skip(f"this onnxruntime has no such kernel: {error}")
    found = ours(path, IDS, CHUNKS)
    rows = found[-1:] if FORMS[form].get("last") else found
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-3 * float(np.abs(wanted).max()))
    assert (rows.argmax(-1) == wanted.argmax(-1)).all()
