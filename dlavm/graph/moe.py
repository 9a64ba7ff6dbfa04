"""The float32 meaning of a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlavm.graph.activations import activation
from dlavm.graph.opdef import Array


def moe_reference(v: Mapping[str, Array], a: Mapping[str, Any], kv_len: int) -> Array:
    """x (T, D), logits (T, E), gate and up (E, I, D), down (E, D, I) -> (T, D)."""
    p = np.exp(v["logits"] - v["logits"].max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    chosen = np.argsort(-p, axis=-1, kind="stable")[:, : a["top_k"]]  # (T, top_k)
    weights = np.take_along_axis(p, chosen, axis=-1)
    if a["renormalize"]:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    y, act = np.zeros_like(v["x"]), activation(a["act"])
    for expert in np.unique(chosen):
        rows, ranks = np.nonzero(chosen == expert)
        x = v["x"][rows]
        inner = act(x @ v["gate"][expert].T) * (x @ v["up"][expert].T)
        y[rows] += weights[rows, ranks][:, None] * (inner @ v["down"][expert].T)
    return y
