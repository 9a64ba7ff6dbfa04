"""A whole ONNX graph in numpy: the meaning that an import is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.ir import Array, OnnxGraph, OnnxNode
from dlavm.frontend.onnx_import.meaning import MEANINGS, Call
from dlavm.support.errors import DlavmError

CONSTANTS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
REFUSALS = (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError, np.exceptions.AxisError)


def run_graph(graph: OnnxGraph, inputs: Mapping[str, Array], outer: Mapping[str, Array] | None = None) -> list[Array]:
    """The outputs, in order. `outer` holds the values around a subgraph. Raises DlavmError naming the node that has no
    meaning here or whose operands do not fit."""
    live: dict[str, Array] = {**(outer or {}), **inputs}
    for tensor in graph.tensors.values():
        live.setdefault(tensor.name, tensor.values())
    for value in graph.inputs:
        if value.name not in live:
            raise DlavmError(f"{graph.place}: input {value.name}: expected an array, got none")
    last = {name: node for node in graph.nodes for name in node.needs}
    kept = {value.name for value in graph.outputs} | (set(outer) if outer else set())
    for node in graph.nodes:
        for name, array in zip(node.outputs, run_node(node, live), strict=False):
            if name:
                live[name] = array
        for name in node.needs:
            if last[name] is node and name not in kept:
                live.pop(name, None)
    return [live[value.name] for value in graph.outputs]


def run_node(node: OnnxNode, values: Mapping[str, Array]) -> tuple[Array, ...]:
    """The results of one node."""
    if node.op == "Constant" and not node.domain:
        return (constant(node),)
    if node.op == "If" and not node.domain:
        return tuple(run_graph(branch(node, values[node.inputs[0]]), {}, values))
    entry = MEANINGS.get((node.domain, node.op))
    if entry is None:
        raise DlavmError(f"{node.where}: expected an operator of doc/onnx.md, got {node.kind!r}")
    operands = [values[name] if name else None for name in node.inputs]
    return apply(node, entry.function, operands)


def apply(node: OnnxNode, function: Any, operands: list[Any]) -> tuple[Array, ...]:
    """A function of the table on operands; what numpy refuses is refused in the name of the node."""
    call = Call(f"{node.where} ({node.kind})", node.version, node.attrs, len(node.outputs))
    try:
        found = function(call, *operands)
    except REFUSALS as error:
        shapes = [None if x is None else list(np.shape(x)) for x in operands]
        shown = " ".join(str(error).split())
        raise DlavmError(f"{call.where}: operands expected to fit each other, got {shapes!r}: {shown}") from None
    results = found if isinstance(found, tuple) else (found,)
    return tuple(np.asarray(x) for x in results)


def branch(node: OnnxNode, condition: Array) -> OnnxGraph:
    """The subgraph of an If that a condition chooses."""
    chosen = node.attrs.get("then_branch" if bool(np.all(condition)) else "else_branch")
    if not isinstance(chosen, OnnxGraph):
        raise DlavmError(f"{node.where}: expected a subgraph for either case, got {chosen!r}")
    return chosen


def constant(node: OnnxNode) -> Array:
    """The value of a Constant node. Raises DlavmError for strings and sparse tensors."""
    if isinstance(node.attrs.get("value"), np.ndarray):
        return np.asarray(node.attrs["value"])
    for name, dtype in CONSTANTS.items():
        if node.attrs.get(name) is not None:
            return np.asarray(node.attrs[name], dtype)
    raise DlavmError(f"{node.where}: Constant expected numbers, got attributes {list(node.attrs)!r}")
