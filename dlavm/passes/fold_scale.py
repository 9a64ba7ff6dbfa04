"""Scales that cost nothing where they go: powers of two in front of a norm or a linear."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlavm.graph import Graph, Node
from dlavm.passes.rewrite import Made, rewrite, rule, with_changes

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class FoldScale:
    """Takes powers of two out of a row before an rms_norm, whose eps takes their square, and before a linear, whose
    epilogue takes them. Exact, since no mantissa changes, but for numbers at the ends of the fp16 range, which
    the scaled row would have rounded or cut off.

    Nothing else is exact: a norm's gamma times the columns of the weights behind it quantises to other numbers, and
    what a param holds is not known when a graph is compiled.
    """

    name: str = "fold_scale"

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, RULES)


@rule("rms_norm", "scale")
def into_eps(norm: Node, scale: Node) -> Made:
    """x * s / sqrt(mean(x^2) * s^2 + eps) = x / sqrt(mean(x^2) + eps / s^2), where s > 0."""
    s = scale.number("value")
    if s < 0 or not _is_power_of_two(s):
        return None
    eps = norm.number("eps") / (s * s)
    if eps and not _is_normal(eps):
        return None
    return with_changes(norm, {"x": scale["x"]}, eps=eps)


@rule("linear", "scale")
def into_epilogue(linear: Node, scale: Node) -> Made:
    s = scale.number("value")
    product = s * linear.number("scale")
    if not (_is_power_of_two(s) and _is_normal(product)):
        return None
    return with_changes(linear, {"x": scale["x"]}, scale=product)


RULES = (into_eps, into_epilogue)


def _is_power_of_two(value: float) -> bool:
    return _is_normal(value) and abs(math.frexp(value)[0]) == 0.5


def _is_normal(value: float) -> bool:
    """In the range of fp32 where a product with a power of two is exact."""
    return SMALLEST <= abs(value) <= LARGEST
