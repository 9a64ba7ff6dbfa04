"""Generators of constant tensors, by the name that stands in a graph's text."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import numpy as np

from dlavm.graph.ir import Constant
from dlavm.graph.opdef import Array, Attr
from dlavm.graph.rotary import rotary_table, scaled_rotary_table
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, wrap


def stored_values(shape: tuple[Expr, ...], data: str) -> Array:
    """The numbers themselves: fp16, little-endian, in base64. Raises DlavmError for data that is not as long."""
    extents = tuple(int(extent) for extent in shape)
    try:
        return np.frombuffer(base64.b64decode(data, validate=True), dtype="<f2").reshape(extents)
    except (binascii.Error, ValueError):
        raise DlavmError(f"constant values: data expected base64 of {list(extents)} fp16, got {data[:32]!r}") from None


def stored(values: Array) -> dict[str, object]:
    """The arguments of `stored_values` for an array, rounded to fp16."""
    data = base64.b64encode(np.ascontiguousarray(values, dtype="<f2").tobytes()).decode()
    return {"shape": tuple(wrap(extent) for extent in values.shape), "data": data}


GENERATORS: dict[str, tuple[Callable[..., Array], dict[str, Attr]]] = {
    "rotary": (rotary_table, {"ctx": Attr("int"), "dim": Attr("int"), "theta": Attr("positive")}),
    "scaled_rotary": (
        scaled_rotary_table,
        {"ctx": Attr("int"), "frequencies": Attr("str"), "scale": Attr("float")},
    ),
    "values": (stored_values, {"shape": Attr("shape"), "data": Attr("str")}),
}


def constant_args(kind: str, given: dict[str, object]) -> tuple[tuple[str, Any], ...]:
    """The checked arguments of a generator in its own order. Raises DlavmError naming the generator."""
    if kind not in GENERATORS:
        raise DlavmError(f"constant: generator expected one of {list(GENERATORS)!r}, got {kind!r}")
    schema = GENERATORS[kind][1]
    if set(given) != set(schema):
        raise DlavmError(f"constant {kind}: arguments expected {list(schema)!r}, got {list(given)!r}")
    converted = {name: attr.convert(given[name]) for name, attr in schema.items()}
    for name, value in converted.items():
        if value is None:
            raise DlavmError(f"constant {kind}: {name} expected {schema[name]}, got {given[name]!r}")
    return tuple(converted.items())


def constant_values(constant: Constant) -> Array:
    """The values as they are meant, float32: a table of rotary embeddings is not rounded to fp16.

    Raises DlavmError when they do not have the declared shape.
    """
    return _generated(constant).astype(np.float32)


def constant_array(constant: Constant) -> Array:
    """The values as the device keeps them, fp16. Raises DlavmError as `constant_values` does."""
    return _generated(constant).astype(np.float16)


def _generated(constant: Constant) -> Array:
    array = GENERATORS[constant.kind][0](**dict(constant.args))
    if constant.value.type.shape != array.shape or constant.value.type.dtype != "f16":
        raise DlavmError(
            f"constant {constant.value.name}: expected {list(array.shape)} f16, got {str(constant.value.type)!r}"
        )
    return array
