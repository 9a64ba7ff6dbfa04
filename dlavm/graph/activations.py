"""Activation functions in float32, by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import numpy as np

from dlavm.graph.opdef import Array, Attr

SOFTCAP = re.compile(r"softcap\((\d+(?:\.\d+)?)\)")


def _erf(x: Array) -> Array:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=np.float32)


def _sigmoid(x: Array) -> Array:
    return (0.5 * (np.tanh(0.5 * x) + 1.0)).astype(np.float32)


def _softcap(cap: np.float32, x: Array) -> Array:
    return np.asarray(cap * np.tanh(x / cap))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / np.float32(math.sqrt(2.0)))),
    "gelu_tanh": lambda x: 0.5 * x * (1.0 + np.tanh(np.float32(math.sqrt(2.0 / math.pi)) * (x + 0.044715 * x**3))),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}


def softcap(cap: float) -> str:
    """The name of cap * tanh(x / cap)."""
    return f"softcap({cap!r})"


def _is_softcap(name: str) -> bool:
    found = SOFTCAP.fullmatch(name)
    return found is not None and float(found[1]) > 0


def activation(name: str) -> Callable[[Array], Array]:
    """The function of a name in ACTIVATIONS, or of a `softcap`."""
    found = SOFTCAP.fullmatch(name)
    return partial(_softcap, np.float32(found[1])) if found else ACTIVATIONS[name]


def act_attr(*more: str, default: str | None = None) -> Attr:
    """An attribute that names an activation, or one of `more`."""
    return Attr("str", default, (*more, *ACTIVATIONS), _is_softcap)
