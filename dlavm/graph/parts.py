"""Params that are several checkpoint tensors, one below the other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np

from dlavm.graph.ir import Value
from dlavm.graph.opdef import Array


def joined(param: Value, get: Callable[[str], Array]) -> Array:
    """The values of a param; `get` gives those of a checkpoint tensor."""
    arrays = [get(tensor.name) for tensor in param.tensors]
    if not param.parts:
        return arrays[0]
    return np.stack(arrays) if param.type.rank == 3 else np.concatenate(arrays)


def split(param: Value, values: Array) -> dict[str, Array]:
    """By checkpoint tensor: undoes `joined`."""
    if param.parts and param.type.rank == 3:
        pieces = list(values)
    else:
        ends = list(accumulate(rows for _, rows in param.parts))
        pieces = np.split(values, ends[:-1])  # one, where there are no parts
    return {tensor.name: piece for tensor, piece in zip(param.tensors, pieces, strict=True)}
