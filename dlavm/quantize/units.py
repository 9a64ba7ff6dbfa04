"""The weight matrices of a graph that can be quantised, those with the same input together."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from dlavm.graph import Graph, Node, Value
from dlavm.support.errors import DlavmError

EXPERT_OPERANDS = ("gate", "up", "down")


@dataclass(frozen=True)
class Matrix:
    """A weight matrix [n, k]: the name under which the source has it, and the one under which it is written."""

    source: str
    name: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class Unit:
    """Matrices that multiply the same input `x`, which is there before the node number `at`.

    They share what the calibration tells of that input, scales of its channels, and the format. The experts of a `moe`,
    whose inputs are the rows that are routed to them, are a unit without `x`.
    """

    at: int
    x: Value | None
    matrices: tuple[Matrix, ...]

    @property
    def weights(self) -> int:
        return sum(n * k for n, k in (m.shape for m in self.matrices))


def find_units(graph: Graph, exclude: Sequence[str] = (), untie: bool = True) -> list[Unit]:
    """In the order of their inputs. Globs in `exclude` leave out matrices by their names in the checkpoint.

    A head that is tied to the embedding gets a name of its own if `untie`, and is left out otherwise. A param that
    several layers share belongs to the first of them. Raises DlavmError for a glob that fits nothing.
    """
    elsewhere, unused = _read_elsewhere(graph), set(exclude)
    found: dict[str, tuple[int, Value | None, dict[str, Matrix]]] = {}
    seen: set[str] = set()
    for at, node in enumerate(graph.nodes):
        for param in _weights_of(node):
            tied = param.name if any(t.name in elsewhere for t in param.tensors) else ""
            if param.name in seen or (tied and not untie):
                continue
            seen.add(param.name)
            x = node["x"] if node.op == "linear" else None
            key = x.name if x is not None else f"experts of {node.name}"
            for matrix in _matrices(param, tied):
                fitting = {g for g in exclude for n in (matrix.source, matrix.name) if fnmatch.fnmatchcase(n, g)}
                unused -= fitting
                if not fitting:
                    found.setdefault(key, (at, x, {}))[2][matrix.name] = matrix
    if unused:
        raise DlavmError(f"--exclude: expected globs that fit a linear layer's weight, got {sorted(unused)[0]!r}")
    return [Unit(at, x, tuple(matrices.values())) for at, x, matrices in found.values()]


def _weights_of(node: Node) -> list[Value]:
    operands = ("w",) if node.op == "linear" else EXPERT_OPERANDS if node.op == "moe" else ()
    return [node[operand] for operand in operands if node[operand].role == "param"]


def _matrices(param: Value, tied: str) -> list[Matrix]:
    return [Matrix(tensor.name, tied or tensor.name, (tensor.shape[0], tensor.shape[1])) for tensor in param.tensors]


def _read_elsewhere(graph: Graph) -> set[str]:
    """Checkpoint tensors that something else than the weights of linear layers reads."""
    return {
        tensor.name
        for node in graph.nodes
        for value in node.inputs
        if value.role == "param" and value not in _weights_of(node)
        for tensor in value.tensors
    }
