"""Canonical forms: one way to write what several ways mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlavm.graph import Graph, Node
from dlavm.passes.rewrite import Made, rewrite, rule, with_changes

IDEMPOTENT = ("relu",)  # f(f(x)) is f(x)
FIXED = ("param", "constant")


@dataclass(frozen=True)
class Canonicalise:
    """Drops what changes nothing, makes one of a reshape, slice, last_rows or scale of another, and puts params and
    constants second. Two scales that become one round once less."""

    name: str = "canonicalise"

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, RULES)


@rule("copy")
def no_copy(copy: Node) -> Made:
    return copy["x"]


@rule("reshape")
def same_shape(node: Node) -> Made:
    return node["x"] if node["x"].type == node.output.type else None


@rule("reshape", "reshape")
def one_reshape(last: Node, first: Node) -> Made:
    return with_changes(last, {"x": first["x"]})


@rule("slice")
def whole_slice(node: Node) -> Made:
    return node["x"] if node["x"].type == node.output.type else None


@rule("slice", "slice")
def one_slice(last: Node, first: Node) -> Made:
    return with_changes(last, {"x": first["x"]}, start=int(last.number("start") + first.number("start")))


@rule("last_rows")
def all_rows(node: Node) -> Made:
    return node["x"] if node["x"].type == node.output.type else None


@rule("last_rows", "last_rows")
def fewest_rows(last: Node, first: Node) -> Made:
    return with_changes(last, {"x": first["x"]})


@rule("scale")
def no_scale(node: Node) -> Made:
    return node["x"] if node.number("value") == 1 and node["x"].type == node.output.type else None


@rule("scale", "scale")
def one_scale(last: Node, first: Node) -> Made:
    """Unless the product leaves fp32's normal numbers."""
    with np.errstate(over="ignore", under="ignore"):
        value = np.float32(last.number("value")) * np.float32(first.number("value"))
    if not np.finfo(np.float32).tiny <= abs(value) < np.inf:
        return None
    return with_changes(last, {"x": first["x"]}, value=float(value))


@rule("act", "act")
def act_once(last: Node, first: Node) -> Made:
    return first.output if last.attrs["fn"] == first.attrs["fn"] and last.attrs["fn"] in IDEMPOTENT else None


def fixed_second(node: Node) -> Made:
    a, b = node["a"], node["b"]
    swap = a.role in FIXED and b.role not in FIXED and a.type.shape == b.type.shape
    return with_changes(node, {"a": b, "b": a}) if swap else None


RULES = (
    no_copy, same_shape, one_reshape, whole_slice, one_slice, all_rows, fewest_rows, no_scale, one_scale, act_once,
    rule("add")(fixed_second), rule("mul")(fixed_second),
)  # fmt: skip
