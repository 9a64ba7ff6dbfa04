"""The float32 meaning of a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dlavm.graph.activations import activation
from dlavm.graph.opdef import Array


class Routes(NamedTuple):
    """The experts of each token and what their results are weighted with, both (T, top_k)."""

    chosen: Array
    weights: Array


def routes(logits: Array, a: Mapping[str, Any]) -> Routes:
    """logits (T, E), attributes of the op `moe`."""
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    chosen = np.argsort(-p, axis=-1, kind="stable")[:, : a["top_k"]]
    weights = np.take_along_axis(p, chosen, axis=-1)
    if a["renormalize"]:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return Routes(chosen, weights)


def add_expert(y: Array, x: Array, to: Routes, expert: int, weights: tuple[Array, Array, Array], act: str) -> None:
    """Adds to y (T, D) what an expert of gate (I, D), up (I, D), down (D, I) makes of its rows of x (T, D)."""
    gate, up, down = weights
    rows, ranks = np.nonzero(to.chosen == expert)
    inner = activation(act)(x[rows] @ gate.T) * (x[rows] @ up.T)
    y[rows] += to.weights[rows, ranks][:, None] * (inner @ down.T)


def moe_reference(v: Mapping[str, Array], a: Mapping[str, Any], kv_len: int) -> Array:
    """x (T, D), logits (T, E), gate and up (E, I, D), down (E, D, I) -> (T, D)."""
    to, y = routes(v["logits"], a), np.zeros_like(v["x"])
    for expert in np.unique(to.chosen):
        weights = v["gate"][expert], v["up"][expert], v["down"][expert]
        add_expert(y, v["x"], to, expert, weights, a["act"])
    return y
