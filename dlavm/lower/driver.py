"""`lower`: runs the rules over a graph."""
from __future__ import annotations

from dlavm.graph import Graph
from dlavm.lower import attention, elementwise, embedding, linear, views  # noqa: F401  (they register their rules)
from dlavm.lower.context import Content, Context, Lowered
from dlavm.lower.rules import select
from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.target.tables import SEGMENTS
from dlavm.task import Launch


def lower(graph: Graph, spec: TargetSpec) -> Lowered:
    """The task program of a graph on a target. Raises DlavmError naming op, place and the missing capability."""
    context = Context(graph, spec)
    for node in graph.nodes:
        try:
            emit = select(node.op, spec).emit
        except DlavmError as e:
            raise DlavmError(f"{node}: {e}") from None
        with context.tasks.place(node.where or node.name):
            emit(context, node)
    loads = tuple(_load_table(context, fn, slot) for fn, slot in context.act_slots.items())
    program = context.tasks.finish(prologue=loads)
    outputs = {label: context.rows(value) for label, value in graph.outputs.items() if context.placed(value)}
    return Lowered(program, context.contents, context.inputs, outputs, context.kv)


def lowering_problems(graph: Graph, spec: TargetSpec) -> list[tuple[str, str]]:
    """(place, reason) of every node that no rule lowers."""
    problems = []
    for node in graph.nodes:
        try:
            select(node.op, spec)
        except DlavmError as e:
            problems.append((node.where or node.name, str(e)))
    return problems


def _load_table(context: Context, fn: str, slot: int) -> Launch:
    name = f"table.{fn}"
    context.contents[name] = Content("activation", fn)
    base = context.storage(name, "tables", SEGMENTS * 8, f"f32[{SEGMENTS}, 2]")
    return Launch("LOAD_TABLE", {"act_slot": slot, "table": base}, f"activation {fn}")
