"""The graph IR as an object of JSON, with what its analysis says of each node."""

from __future__ import annotations

from typing import Any

from dlavm.graph import Graph, Node, Type, Value
from dlavm.graph.analysis import depths, dominators, layers, post_dominators, trunk
from dlavm.graph.ir import AttrValue
from dlavm.sym import Expr


def graph_object(graph: Graph) -> dict[str, Any]:
    """Keys as in the text form; extents are numbers or texts. Of each node also `depth` (nodes on the longest way to
    it), `dominator` and `post_dominator` (the nearest value that every way from the inputs, and to the outputs,
    passes; null if there is none); of the graph its `layers` and its `trunk`."""
    deep, before, behind = depths(graph), dominators(graph), post_dominators(graph)
    nodes = [
        _node(node)
        | {"depth": deep[node.name], "dominator": before.get(node.name), "post_dominator": behind.get(node.name)}
        for node in graph.nodes
    ]
    constants = [
        _value(c.value) | {"kind": c.kind, "args": {name: _attr(value) for name, value in c.args}}
        for c in graph.constants
    ]
    return {
        "name": graph.name,
        "variables": {name: [v.lo, v.hi] for name, v in graph.variables.items()},
        "meta": dict(graph.meta),
        "inputs": [_value(v) for v in graph.inputs],
        "params": [_value(v) | {"tensors": [name for name, _ in v.tensors]} for v in graph.params],
        "constants": constants,
        "kv": [_value(v) for v in graph.kv],
        "nodes": nodes,
        "outputs": {label: value.name for label, value in graph.outputs.items()},
        "layers": [
            {"scope": layer.scope, "like": layer.like or None, "nodes": [n.name for n in layer.nodes]}
            for layer in layers(graph)
        ],
        "trunk": trunk(graph),
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "operands": {name: value.name for name, value in node.operands},
        "attrs": {name: _attr(value) for name, value in node.attrs.items()},
        **_type(node.output.type),
        "where": node.where,
    }


def _value(value: Value) -> dict[str, Any]:
    return {"name": value.name, **_type(value.type)}


def _type(type_: Type) -> dict[str, Any]:
    return {"dtype": type_.dtype, "shape": [_attr(extent) for extent in type_.shape]}


def _attr(value: AttrValue) -> Any:
    if isinstance(value, Expr):
        return value.value if value.is_const else str(value)
    return [_attr(item) for item in value] if isinstance(value, tuple) else value
