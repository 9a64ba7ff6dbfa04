"""A walk over a graph at a probe: values that depend on shapes, masks and positions alone become arrays, those that
depend on the tokens become flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.constants import SMALL, Constants
from dlavm.frontend.onnx_import.evaluate import apply, branch, constant, run_node
from dlavm.frontend.onnx_import.flow import MISFITS, Atom, Flow, NotRecognised, Rows, Space, Term, reason
from dlavm.frontend.onnx_import.inputs import Inputs, Probe
from dlavm.frontend.onnx_import.ir import Array, OnnxGraph, OnnxNode
from dlavm.frontend.onnx_import.meaning import MEANINGS
from dlavm.support.errors import DlavmError

Operand = Flow | Array | str | None  # a str names a constant that is large: a weight
Handler = Callable[["Trace", OnnxNode, list[Any]], Any]
HANDLERS: dict[tuple[str, str], Handler] = {}


def handler(*ops: str, domain: str = "") -> Callable[[Handler], Handler]:
    """Enter what a node makes of flows: `function(trace, node, operands)` gives a flow or array, or a tuple of them."""

    def enter(function: Handler) -> Handler:
        for op in ops:
            HANDLERS[domain, op] = function
        return function

    return enter


class Unknown:
    """A value behind a node that was not recognised; what reads it is not looked at."""


UNKNOWN = Unknown()
IF = ("", "If")


class Trace:
    """The values of a graph at a probe. `problems` are the nodes that were not recognised: place, operator, why."""

    def __init__(self, graph: OnnxGraph, constants: Constants, inputs: Inputs, probe: Probe) -> None:
        self.graph, self.constants, self.inputs, self.probe = graph, constants, inputs, probe
        self.space = Space()
        self.problems: list[tuple[str, str, str]] = []
        self.caches: dict[int, str] = {}  # the input of an atom of kind past
        self.values: dict[str, Any] = dict(inputs.values(probe))
        self.values[inputs.ids.name] = self._ids()

    def _ids(self) -> Flow:
        atom = self.space.atom("ids", self.probe.tokens, 1, self.probe.first, "ids")
        return Flow((Term(atom.addresses.reshape(1, -1)),))

    def _cache(self, name: str, heads: int, size: int) -> Flow:
        past = self.probe.past
        atom = self.space.atom("past", past, heads * size, 0, name)
        self.caches[atom.index] = name
        return Flow((Term(atom.addresses.reshape(1, past, heads, size).transpose(0, 2, 1, 3)),))

    def run(self, wanted: Iterable[str]) -> None:
        """Computes the values of these names and all before them."""
        needed = set(wanted)
        chosen = []
        for node in reversed(self.graph.nodes):
            if needed & set(node.outputs) and not all(name in self.constants for name in node.outputs if name):
                chosen.append(node)
                needed.update(node.needs)
        for name, heads, size in self.inputs.caches:
            if name in needed and name not in self.values:  # far behind, each of them is large
                self.values[name] = self._cache(name, heads, size)
        last = {name: node for node in reversed(chosen) for name in node.needs}
        for node in reversed(chosen):
            self.node(node, self.values)
            for name in node.needs:
                if last[name] is node and name not in wanted and name not in self.graph_inputs:
                    self.values.pop(name, None)

    @property
    def graph_inputs(self) -> set[str]:
        return {value.name for value in self.graph.inputs}

    def node(self, node: OnnxNode, values: dict[str, Any]) -> None:
        """The results of a node among `values`; UNKNOWN where it is not recognised."""
        try:
            results = self._results(node, values)
        except (NotRecognised, DlavmError, *MISFITS) as error:
            self.problems.append((node.where, node.kind, reason(error)))
            results = [UNKNOWN] * len(node.outputs)
        values.update((name, x) for name, x in zip(node.outputs, results, strict=False) if name)

    def _results(self, node: OnnxNode, values: dict[str, Any]) -> Any:
        if node.op == "Constant" and not node.domain:
            return [constant(node)]
        kind = (node.domain, node.op)
        if kind != IF and kind not in HANDLERS and kind not in MEANINGS:  # behind UNKNOWN too, to name all at once
            raise NotRecognised("no operator of doc/onnx.md")
        operands = [self.operand(name, values) for name in node.inputs]
        if any(x is UNKNOWN for x in operands) or any(values.get(name) is UNKNOWN for name in node.captured):
            return [UNKNOWN] * len(node.outputs)
        if kind == IF:
            return self._branch(node, operands, values)
        if not any(isinstance(x, Flow) for x in operands):
            return self._static(node, operands)
        entry = HANDLERS.get((node.domain, node.op))
        if entry is not None:
            found = entry(self, node, operands)
            return found if isinstance(found, tuple) else (found,)
        if MEANINGS[node.domain, node.op].moves != "first":
            raise NotRecognised("no use for it on values of the tokens")
        return self.moved(node, operands)

    def _static(self, node: OnnxNode, operands: list[Any]) -> tuple[Array, ...]:
        if (node.domain, node.op) not in MEANINGS:
            raise NotRecognised("no operator of doc/onnx.md")
        named = {name: self.array(x) for name, x in zip(node.inputs, operands, strict=True) if name}
        try:
            return run_node(node, named)
        except DlavmError as error:
            raise NotRecognised(f"at {self.probe}: {error}") from None

    def _branch(self, node: OnnxNode, operands: list[Any], values: dict[str, Any]) -> list[Any]:
        """The results of the subgraph that a condition which does not depend on the tokens chooses."""
        if isinstance(operands[0], Flow):
            raise NotRecognised("expected a condition that does not depend on the tokens")
        inner = branch(node, self.array(operands[0]))
        local = dict(values)
        local.update((tensor.name, tensor.values()) for tensor in inner.tensors.values())
        for each in inner.nodes:
            self.node(each, local)
        return [local[v.name] if v.name in local else self.operand(v.name, values) for v in inner.outputs]

    def operand(self, name: str, values: Mapping[str, Any]) -> Any:
        """The value of that name; large constants by their name."""
        if not name:
            return None
        if name in values:
            return values[name]
        if name not in self.constants:
            return UNKNOWN
        return name if self.constants.size(name) > SMALL else self.constants.value(name)

    def array(self, operand: Any) -> Array:
        """A static operand as an array. Raises NotRecognised for a flow."""
        if isinstance(operand, str):
            return self.constants.value(operand)
        if isinstance(operand, Flow) or operand is None:
            raise NotRecognised("expected an operand that does not depend on the tokens")
        return np.asarray(operand)

    def moved(self, node: OnnxNode, operands: list[Any]) -> Any:
        """The results of a node that places the elements of its first operand."""
        flow = operands[0]
        others = [None if x is None else self.array(x) for x in operands[1:]]
        if not isinstance(flow, Flow):
            raise NotRecognised("expected only its first operand to depend on the tokens")
        function = MEANINGS[node.domain, node.op].function
        count = len(node.outputs)

        def place(x: Array) -> tuple[Array, ...]:
            try:
                return apply(node, function, [x, *others])
            except DlavmError as error:
                raise NotRecognised(str(error)) from None

        if count == 1:
            return (flow.move(lambda x: place(x)[0]),)
        return tuple(flow.move(lambda x, i=i: place(x)[i]) for i in range(count))  # type: ignore[misc]

    def rows(self, flow: Flow) -> Rows:
        return self.space.rows(flow)

    def result(self, atom: Atom, rows: Rows, last: int | None = None) -> Flow:
        """An atom in the arrangement of the rows that it was made of, the last axis of another extent."""
        return Flow((Term(rows.arrangement.back(atom.addresses, last)),))

    def made(self, kind: str, node: OnnxNode, rows: Rows, columns: int, *operands: Rows, **attrs: Any) -> Atom:
        """An atom with the positions of its first operand."""
        return self.space.atom(kind, rows.count, columns, rows.first, node.where, rows, *operands, **attrs)
