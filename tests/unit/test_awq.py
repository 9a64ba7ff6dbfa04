"""AWQ: scales of channels, and where they can be folded into what comes before."""

from __future__ import annotations

import numpy as np
import pytest

from dlavm.formats import FORMATS, quantize
from dlavm.frontend import load_model
from dlavm.graph import Builder, Graph, evaluate, new_state
from dlavm.quantize.awq import search
from dlavm.quantize.folds import find_fold
from dlavm.quantize.hessian import Hessian
from dlavm.quantize.units import find_units


def outliers(k: int = 128) -> Hessian:
    """Inputs of which every sixteenth channel is large."""
    x = np.random.default_rng(0).standard_normal((400, k)).astype(np.float32)
    x[:, ::16] *= 30
    found = Hessian(k)
    found.add(x)
    found.mirror()
    return found


W = np.random.default_rng(1).standard_normal((32, 128)).astype(np.float32)


@pytest.mark.parametrize("name", ["int4g128", "int4g32z", "int8g64"])
def test_large_channels_are_scaled_up_and_lose_less(name: str) -> None:
    found, format = outliers(), FORMATS[name]
    s = search([W], found, format, np.arange(128))
    assert s is not None and s[::16].min() > s[1::16].max() and s.max() * s.min() == pytest.approx(1, rel=1e-3)
    plain = found.energy(quantize(W, format).values() - W)
    assert found.energy(quantize(W * s, format).values() / s - W) < 0.8 * plain


def test_channels_of_one_entry_share_their_scale() -> None:
    index = np.arange(128) % 32
    s = search([W], outliers(), FORMATS["int4g128"], index)
    assert s is not None and s.shape == (32,) and s[0] > s[1]


def test_powers_of_two() -> None:
    s = search([W], outliers(), FORMATS["mxfp4"], np.arange(128), powers_of_two=True)
    assert s is not None and np.array_equal(np.exp2(np.rint(np.log2(s))), s) and len(set(s)) > 1


def test_no_scales_where_they_do_not_help() -> None:
    found = Hessian(128)
    assert search([W], found, FORMATS["int4g128"], np.arange(128)) is None  # nothing is known
    found.h, found.magnitudes = np.eye(128), np.ones(128)
    assert search([W], found, FORMATS["int4g128"], np.arange(128)) is None  # all channels are alike


def test_folds_of_the_story_model() -> None:
    """q, k, v and gate, up behind norms; o behind the values, two query heads to a kv head; down behind up; head."""
    graph = load_model("models/stories.py").graph(16, 4)
    units = find_units(graph)
    assert len(units) == 4 * 8 + 1 and [len(u.matrices) for u in units[:4]] == [3, 1, 2, 1]
    folds = [find_fold(graph, unit) for unit in units]
    assert [f and f.vectors for f in folds[:4]] == [
        ("model.layers.0.input_layernorm.weight",), (), ("model.layers.0.post_attention_layernorm.weight",), (),
    ]  # fmt: skip
    assert [f.matrix.name if f and f.matrix else None for f in folds[:4]] == [
        None, "model.layers.0.self_attn.v_proj.weight", None, "model.layers.0.mlp.up_proj.weight",
    ]  # fmt: skip
    assert folds[1] and folds[1].entries == 128
    assert folds[1].index.tolist() == [*range(32), *range(32), *range(32, 64), *range(32, 64), *range(64, 96),
                                       *range(64, 96), *range(96, 128), *range(96, 128)]  # fmt: skip
    assert units[-1].matrices[0].name == "lm_head.weight" and units[-1].matrices[0].source.startswith("model.embed")
    assert folds[-1] and folds[-1].vectors == ("model.norm.weight",)


def test_a_fold_changes_nothing() -> None:
    """What a channel is divided by in front of a layer and multiplied with in its weights: the same logits."""
    graph = load_model("models/stories.py").graph(16, 8)
    rng = np.random.default_rng(2)
    params = {t.name: rng.standard_normal(t.shape).astype(np.float32) / 8 for p in graph.params for t in p.tensors}
    inputs = {"ids": np.arange(8, dtype=np.int32), "kv_len": 0}
    before = evaluate(graph, params, inputs, new_state(graph))["logits"]
    scaled = dict(params)
    for unit in find_units(graph, untie=False):
        fold = find_fold(graph, unit)
        assert fold is not None
        s = np.exp(rng.standard_normal(fold.entries)).astype(np.float32)
        for matrix in unit.matrices:
            scaled[matrix.source] = scaled[matrix.source] * s[fold.index]
        for vector in fold.vectors:
            scaled[vector] = scaled[vector] / s
        if fold.matrix:
            scaled[fold.matrix.source] = scaled[fold.matrix.source] / s[:, None]
    after = evaluate(graph, scaled, inputs, new_state(graph))["logits"]
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)


def branch(kind: str) -> Graph:
    """A layer behind a norm, whose result something else reads too, or whose weights do other work."""
    b = Builder("branch", ctx=8, chunk=4)
    ids = b.input("ids", (b.token,), "i32")
    x = b.embedding(ids, b.param("embed", (10, 32)))
    gamma = b.param("gamma", (32,))
    h = b.rms_norm(x, gamma, eps=1e-5)
    y = b.linear(h, b.param("w", (32, 32)))
    if kind == "residual":
        y = b.add(y, h)
    elif kind == "shared gamma":
        y = b.rms_norm(y, gamma, eps=1e-5)
    elif kind == "activation":
        y = b.linear(b.act(y, fn="gelu"), b.param("w2", (16, 32)))
    elif kind == "product":
        y = b.linear(b.mul(y, b.act(b.linear(h, b.param("w3", (32, 32))), fn="silu")), b.param("w2", (16, 32)))
    elif kind == "product read twice":
        y = b.linear(b.mul(y, y), b.param("w2", (16, 32)))
    return b.finish(logits=y)


@pytest.mark.parametrize(
    ("kind", "folds"),
    [
        ("plain", [True]),
        ("residual", [False]),
        ("shared gamma", [False]),
        ("activation", [True, False]),
        ("product", [True, True]),
        ("product read twice", [True, False]),
    ],
)
def test_what_can_be_folded(kind: str, folds: list[bool]) -> None:
    graph = branch(kind)
    assert [find_fold(graph, unit) is not None for unit in find_units(graph)] == folds


def test_what_is_left_out() -> None:
    graph = load_model("models/stories.py").graph(16, 4)
    names = [m.name for unit in find_units(graph, ["*.layers.[1-7].*", "lm_head*", "*k_proj*"]) for m in unit.matrices]
    assert len(names) == 6 and not any("k_proj" in name for name in names)
    assert all(m.name != "lm_head.weight" for unit in find_units(graph, untie=False) for m in unit.matrices)
    unit = find_units(graph, ["*k_proj*"])[0]
    assert find_fold(graph, unit) is None  # k would see the scaled input with its own weights as they are
