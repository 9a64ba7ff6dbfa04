"""Everything that keeps a model from compiling, found in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dlavm.compile import Options, compile_graph, pipeline
from dlavm.frontend import WEIGHTS_HINT, Model, weight_problems
from dlavm.graph import Graph, Node
from dlavm.graph.analysis import components, unused
from dlavm.graph.interface import interface_problems
from dlavm.lower import lowering_problems
from dlavm.memory import assign, check_capacity, displaced
from dlavm.passes import run
from dlavm.quant import cache_format, cache_formats, format_notes, quantisation
from dlavm.support.errors import DlavmError, Problems
from dlavm.target import TargetSpec

T = TypeVar("T")
OPTIONS = "choose another value"
BOARD = "a smaller --ctx or --chunk, or another board"
GRAPH = "mend the model; what comes behind it in the graph was not looked at"


@dataclass
class Findings:
    """`problems` stand in the way of a build; `notes` do not. Each has `where` and `what`, a problem a `hint` too."""

    model: str
    problems: list[dict[str, str]] = field(default_factory=list)
    notes: list[dict[str, str]] = field(default_factory=list)

    def add(self, where: str, what: str, hint: str) -> None:
        self.problems.append({"where": where, "what": what, "hint": hint})

    def attempt(self, function: Callable[[], T], hint: str) -> T | None:
        """What the function returns; None where it raises a DlavmError: a problem of the model then, or several."""
        try:
            return function()
        except Problems as error:
            for where, what in error.problems:
                self.add(where, what, hint)
            return None
        except DlavmError as error:
            self.add(self.model, str(error), hint)
            return None


def check(model: Model, spec: TargetSpec, options: Options) -> Findings:
    """All problems of options, graph, weights, ops and memory. A graph that cannot be built hides what comes behind it.
    The values of weights are not read: a NaN is found by `build`."""
    found = Findings(model.name, notes=[{"where": model.name, "what": note} for note in model.notes])
    options = _possible(model, spec, options, found)
    sizes = options.sizes(model, spec)
    graph = found.attempt(lambda: model.graph_alone(*sizes), GRAPH)
    if graph is None:
        return found
    for what in interface_problems(graph, *sizes):
        found.add(model.name, what, "mend the model")
    found.notes += [{"where": where, "what": what} for where, what in _notes(graph)]
    found.attempt(lambda: _check_weights(model, graph, found), GRAPH)
    passed = found.attempt(lambda: run(pipeline(options, spec, model.weights), graph), GRAPH)
    if passed is not None:
        if model.weights is not None:
            found.notes += [{"where": model.name, "what": note} for note in format_notes(passed, model.weights)]
        _check_target(passed, spec, options, found)
    return found


def _possible(model: Model, spec: TargetSpec, options: Options, found: Findings) -> Options:
    """The options, or those that the model can have in place of what is a problem."""
    if found.attempt(lambda: quantisation(options.quant, spec, model.weights), OPTIONS) is None:
        options = replace(options, quant=Options().quant)
    if found.attempt(lambda: cache_format(options.kv, spec), OPTIONS) is None:
        options = replace(options, kv=cache_formats(spec)[0])
    count = len(found.problems)
    found.attempt(lambda: options.sizes(model, spec), OPTIONS)
    found.attempt(lambda: model.check_ctx(options.ctx or 0), OPTIONS)
    return options if len(found.problems) == count else replace(options, ctx=None, chunk=None)


def _notes(graph: Graph) -> Iterator[tuple[str, str]]:
    """What is in a graph for nothing: parts that no output is connected with, and what else nothing depends on."""
    idle = unused(graph)
    outputs = {value.name for value in graph.outputs.values()}
    alone = set(idle)
    apart = [names for names in components(graph) if len(names) > 1 and not names & outputs and names <= alone]
    part_of = {name: names for names in apart for name in names}
    firsts: dict[frozenset[str], Node] = {}
    for node in graph.nodes:
        if node.name in part_of:
            firsts.setdefault(part_of[node.name], node)
    for names in apart:
        yield firsts[names].where or firsts[names].name, f"{len(names)} values are not connected with any output"
    for name in idle:
        if name not in part_of:
            made = graph.producers.get(name)
            kind = f"the result of {made.op}" if made else f"{graph.values[name].role} {name}"
            yield (made.where or name) if made else name, f"no output depends on {kind}"


def _check_weights(model: Model, graph: Graph, found: Findings) -> None:
    if model.weights is None:
        if not model.shapes_only:
            found.add(model.name, "no weights", WEIGHTS_HINT)
        return
    for tensor, what in weight_problems(graph, model.weights):
        found.add(tensor, what, "mend the model or its weights")


def _check_target(graph: Graph, spec: TargetSpec, options: Options, found: Findings) -> None:
    problems, tasks = lowering_problems(graph, spec)
    for where, what in problems:
        found.add(where, what, f"see `dlavm targets` for what {spec.name} can do")
    if problems:
        found.attempt(lambda: check_capacity(assign(tasks, spec), spec), BOARD)  # what was lowered may be too large
    elif compiled := found.attempt(lambda: compile_graph(graph, spec, options), BOARD):
        found.attempt(lambda: check_capacity(compiled.memory, spec), BOARD)
        found.notes += [{"where": found.model, "what": note} for note in displaced(spec, compiled.memory)]
