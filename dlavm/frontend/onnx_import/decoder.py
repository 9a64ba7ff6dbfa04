"""A decoder found in an ONNX graph: recognised once, built for any context."""

from __future__ import annotations

import numpy as np

from dlavm.frontend.onnx_import import arithmetic, fused, products  # noqa: F401 - they fill the table of handlers
from dlavm.frontend.onnx_import.build import Emitter
from dlavm.frontend.onnx_import.constants import Constants
from dlavm.frontend.onnx_import.far import Far
from dlavm.frontend.onnx_import.flow import Atom, Flow, NotRecognised, Rows
from dlavm.frontend.onnx_import.inputs import Probe, read_inputs
from dlavm.frontend.onnx_import.ir import Array, OnnxGraph
from dlavm.frontend.onnx_import.params import Params
from dlavm.frontend.onnx_import.plan import Planner
from dlavm.frontend.onnx_import.source import OnnxSource
from dlavm.frontend.onnx_import.trace import Trace
from dlavm.graph import Builder, Graph
from dlavm.graph.ir import JsonValue
from dlavm.support.errors import DlavmError, Problems

TOKENS, PAST = 5, 3  # of the probe; any numbers above one will do
LOGITS = "logits"


class Decoder:
    """What the trace of a graph gave: steps from ids to logits, and their tensors."""

    def __init__(self, graph: OnnxGraph) -> None:
        """Raises Problems that list every node that was not recognised, DlavmError for inputs that no decoder has."""
        self.graph = graph
        self.constants = Constants(graph)
        self.inputs = read_inputs(graph)
        self.source = OnnxSource(self.constants)
        past = (PAST if self.inputs.past is None else self.inputs.past) if self.inputs.caches else 0
        self.trace = Trace(graph, self.constants, self.inputs, Probe(past, self.inputs.tokens or TOKENS))
        output = self._logits_name()
        self.trace.run([value.name for value in graph.outputs])
        self._refuse(self.trace.problems)
        self.logits = self._logits(output)
        self.planner = Planner(self.trace, self._presents())
        self.planner.plan(self.logits)
        self.params = Params(self.trace, self.source, self.planner.steps.values())
        self._refuse([*self.planner.problems, *self.params.problems])
        if not any(step.op == "attention" for step in self.planner.steps.values()):
            raise DlavmError(f"{graph.place}: expected a decoder with attention, got a graph without")

    def build(self, name: str, ctx: int, chunk: int, meta: dict[str, JsonValue]) -> Graph:
        """The graph for a context. Raises Problems for masks and angles that are not as expected within it."""
        far = Far(self.graph, self.constants, self.inputs, ctx)
        emitter = Emitter(Builder(name, ctx=ctx, chunk=chunk, meta=meta), self.planner.steps, self.params, far)
        built = emitter.graph(self.logits)
        self._refuse(emitter.problems)
        assert built is not None
        return built

    def _refuse(self, problems: list[tuple[str, str, str]]) -> None:
        if problems:
            listed = [(where, f"{where} ({kind}): {why}") for where, kind, why in problems]
            expectation = "expected nodes of a decoder (doc/onnx.md), got others"
            raise Problems(f"{self.graph.place}: {expectation}: {'; '.join(what for _, what in listed)}", listed)

    def _logits_name(self) -> str:
        names = [value.name for value in self.graph.outputs]
        if LOGITS in names or len(names) == 1:
            return LOGITS if LOGITS in names else names[0]
        raise DlavmError(f"{self.graph.place}: outputs expected one called {LOGITS}, got {names!r}")

    def _logits(self, name: str) -> Rows:
        flow = self.trace.values.get(name)
        try:
            if not isinstance(flow, Flow):
                raise NotRecognised("expected logits of the tokens")
            return self.trace.rows(flow)
        except NotRecognised as reason:
            raise DlavmError(f"{self.graph.place}: output {name}: {reason}") from None

    def _presents(self) -> dict[int, tuple[Atom, Array]]:
        """For each cached atom the atom that its output puts behind it, and the column of that for each of its own."""
        found: dict[int, tuple[Atom, Array]] = {}
        past = self.trace.probe.past
        for value in self.graph.outputs:
            flow = self.trace.values.get(value.name)
            if not past or not isinstance(flow, Flow) or not flow.plain or len(flow.shape) != 4:
                continue
            address = flow.terms[0].address
            old, new = address[0, :, :past], address[0, :, past:]
            owners = [self.trace.space.owners(x) for x in (old, new)]
            if address.shape[2] != past + self.trace.probe.tokens or any(len(o) != 1 for o in owners):
                continue
            cached, atom = (self.trace.space.atoms[o.pop()] for o in owners)
            if (
                cached.kind == "past"
                and (old == self.trace.values[self.trace.caches[cached.index]].terms[0].address[0]).all()
            ):
                columns = np.empty(cached.columns, np.int64)
                columns[(old[:, 0] - cached.base).reshape(-1)] = ((new[:, 0] - atom.base) % atom.columns).reshape(-1)
                found[cached.index] = atom, columns
        return found
