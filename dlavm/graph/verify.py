"""The verifier: what every graph must hold, before and after every pass."""

from __future__ import annotations

import re

from dlavm.graph.ir import DTYPES, Graph, Node, Value
from dlavm.graph.ops import OPS
from dlavm.support.errors import DlavmError
from dlavm.sym import free_vars, wrap

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def verify(graph: Graph) -> None:
    """Raise DlavmError at the first violation: a name that is not unique or not printable, a value used before
    its definition or unlike it, a type that its op does not derive, a kv value that is no longer the newest."""
    check = _Verifier(graph)
    for role, values in (("input", graph.inputs), ("param", graph.params), ("kv", graph.kv)):
        for value in values:
            check.define(value, role)
    for constant in graph.constants:
        check.define(constant.value, "constant")
    for node in graph.nodes:
        check.node(node)
    for label, value in graph.outputs.items():
        check.use(value, f"output {label}")


class _Verifier:
    def __init__(self, graph: Graph) -> None:
        self.place = f"graph {graph.name}"
        self.variables = set(graph.variables.values())
        self.defined: dict[str, Value] = {}
        self.newest: dict[str, str] = {kv.source: kv.name for kv in graph.kv}

    def define(self, value: Value, role: str) -> None:
        place = f"{self.place}: value {value.name}"
        if not _NAME.fullmatch(value.name):
            raise DlavmError(f"{place}: name expected of letters, digits, '_', '.', '-', got {value.name!r}")
        if value.name in self.defined:
            raise DlavmError(f"{place}: expected unique names, got it twice")
        if value.role != role:
            raise DlavmError(f"{place}: role expected {role!r}, got {value.role!r}")
        if value.type.dtype not in DTYPES:
            raise DlavmError(f"{place}: dtype expected one of {DTYPES!r}, got {value.type.dtype!r}")
        if value.parts:
            self._parts(value, place)
        least = 1 if role in ("param", "constant", "kv") else 0
        if any(extent.lo < least for extent in value.type.shape):
            raise DlavmError(f"{place}: extents expected at least {least}, got {value.type}")
        unknown = [v.name for v in free_vars(*value.type.shape) if v not in self.variables]
        if unknown:
            raise DlavmError(f"{place}: shape expected only the graph's variables, got {unknown!r}")
        self.defined[value.name] = value

    @staticmethod
    def _parts(value: Value, place: str) -> None:
        rows = [rows for _, rows in value.parts]
        shape = (len(rows), *set(rows)) if value.type.rank == 3 else (sum(rows),)
        fits = value.type.shape[: len(shape)] == tuple(map(wrap, shape)) and min(rows) >= 1
        if value.role != "param" or value.source or not fits:
            raise DlavmError(f"{place}: parts expected of a param alone, together its rows, got {value.parts!r}")

    def use(self, value: Value, place: str) -> None:
        known = self.defined.get(value.name)
        if known is None:
            raise DlavmError(f"{place}: expected a value defined earlier, got {value.name!r}")
        if known != value:
            raise DlavmError(f"{place}: {value.name} expected as defined {known!r}, got {value!r}")
        if value.role == "kv" and self.newest.get(value.source) != value.name:
            newest = self.newest.get(value.source)
            raise DlavmError(f"{place}: the newest value of {value.source} expected {newest!r}, got {value.name!r}")

    def node(self, node: Node) -> None:
        definition = OPS.get(node.op)
        if definition is None:
            raise DlavmError(f"{node}: op expected one of {list(OPS)!r}, got {node.op!r}")
        for value in node.inputs:
            self.use(value, str(node))
        attrs = definition.complete_attrs(node.attrs, node.where or node.name)
        if attrs != dict(node.attrs):
            raise DlavmError(f"{node}: attributes expected {attrs!r}, got {dict(node.attrs)!r}")
        names = [name for name, _ in node.operands]
        if names != [name for name in definition.names if name in names]:
            raise DlavmError(f"{node}: operands expected in the order {definition.names!r}, got {names!r}")
        derived = definition.derive(dict(node.operands), node.attrs, node.where or node.name)
        found = tuple(value.type for value in node.outputs)
        if found != (derived,):
            raise DlavmError(f"{node}: type expected {str(derived)!r}, got {', '.join(map(str, found))!r}")
        self._outputs(node)

    def _outputs(self, node: Node) -> None:
        if node.op != "kv_append":
            self.define(node.output, "activation")
            return
        cache = node["cache"]
        if cache.role != "kv" or node.output.source != cache.source:
            raise DlavmError(f"{node}: expected the storage {cache.source!r} of a kv value, got {node.output!r}")
        self.define(node.output, "kv")
        self.newest[cache.source] = node.output.name
