"""The float32 reference of a whole graph in numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dlavm.graph.attention import stored
from dlavm.graph.constants import constant_values
from dlavm.graph.ir import AttrValue, Graph, Node, Value
from dlavm.graph.opdef import Array
from dlavm.graph.ops import OPS
from dlavm.graph.parts import joined
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr
from dlavm.sym import evaluate as evaluate_expr


def new_state(graph: Graph) -> dict[str, Array]:
    """Empty caches: float32 zeros by storage name."""
    return {kv.name: np.zeros([int(e) for e in kv.type.shape], dtype=np.float32) for kv in graph.kv}


def evaluate(
    graph: Graph,
    params: Mapping[str, Array],
    inputs: Mapping[str, Array | int],
    state: dict[str, Array],
) -> dict[str, Array]:
    """One step in float32: the outputs by label; `state` (see `new_state`) is advanced in place.

    `params` by param name, or by checkpoint tensor name where that is absent; quantised ones dequantised by the
    caller. `inputs` holds the graph's inputs and its variables: `kv_len` is needed, `token` follows from the
    ids, `head_rows` defaults to `token`. Raises DlavmError for anything missing or of the wrong shape.
    """
    env = _environment(graph, inputs)
    live: dict[str, Array] = {v.name: np.asarray(inputs[v.name]) for v in graph.inputs}
    for constant in graph.constants:
        live[constant.value.name] = constant_values(constant)
    for kv in graph.kv:
        live[kv.name] = _shaped(kv, _lookup(state, kv.name, "state"), env)
    last_use = {value.name: node for node in graph.nodes for value in node.inputs}
    for node in graph.nodes:
        operands: dict[str, Array] = {}
        for name, value in node.operands:
            operands[name] = _param(value, params, env) if value.role == "param" else live[value.name]
        live[node.name] = apply(node, operands, env)
        for value in node.inputs:
            if last_use[value.name] is node and not graph.is_output(value):
                live.pop(value.name, None)
    return {label: live[value.name] for label, value in graph.outputs.items()}


def apply(node: Node, operands: Mapping[str, Array], env: Mapping[str, int]) -> Array:
    """The result of one node, float32; `env` has the values of the graph's variables. Caches are changed in place, and
    hold what their dtype makes of a number; other values are not rounded."""
    attrs = {name: _concrete(attr, env) for name, attr in node.attrs.items()}
    if node.op == "kv_append":
        operands = {**operands, "x": stored(operands["x"], node.output.type.dtype)}
    return OPS[node.op].reference(operands, attrs, env["kv_len"])


def _environment(graph: Graph, inputs: Mapping[str, Array | int]) -> dict[str, int]:
    env = {name: int(inputs[name]) for name in graph.variables if name in inputs}
    for value in graph.inputs:
        array = np.asarray(_lookup(inputs, value.name, "inputs"))
        if array.ndim != value.type.rank:
            raise DlavmError(f"input {value.name}: expected {value.type}, got shape {list(array.shape)!r}")
        for extent, size in zip(value.type.shape, array.shape, strict=True):
            if extent.op == "var":
                env.setdefault(extent.name, size)
        _shaped(value, array, env)
    env.setdefault("token", 1)
    env.setdefault("head_rows", env["token"])
    _lookup(env, "kv_len", "inputs")
    for name, variable in graph.variables.items():
        if not variable.lo <= env[name] <= variable.hi:
            raise DlavmError(f"variable {name}: expected {variable.lo}..{variable.hi}, got {env[name]!r}")
    ctx = graph.variables["kv_len"].hi + 1
    if env["kv_len"] + env["token"] > ctx or env["head_rows"] > env["token"]:
        raise DlavmError(f"step: expected kv_len + token <= {ctx} and head_rows <= token, got {env!r}")
    return env


def _lookup(mapping: Mapping[str, object], name: str, what: str):  # type: ignore[no-untyped-def]
    if name not in mapping:
        raise DlavmError(f"{what}: expected {name!r}, got {list(mapping)!r}")
    return mapping[name]


def _shaped(value: Value, array: Array, env: Mapping[str, int]) -> Array:
    wanted = tuple(evaluate_expr(extent, env) for extent in value.type.shape)
    if array.shape != wanted:
        raise DlavmError(f"{value.role} {value.name}: expected shape {list(wanted)!r}, got {list(array.shape)!r}")
    return array


def _param(value: Value, params: Mapping[str, Array], env: Mapping[str, int]) -> Array:
    if value.name in params:
        found: Array = params[value.name]
    else:
        found = joined(value, lambda name: np.asarray(_lookup(params, name, "params")))
    return _shaped(value, np.asarray(found, dtype=np.float32), env)


def _concrete(attr: AttrValue, env: Mapping[str, int]) -> object:
    if isinstance(attr, Expr):
        return evaluate_expr(attr, env)
    if isinstance(attr, tuple):
        return tuple(evaluate_expr(extent, env) for extent in attr)
    return attr
