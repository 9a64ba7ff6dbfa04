"""`lower`: runs the rules over a graph."""
from __future__ import annotations

from dlavm.graph import Graph, Node, Value
from dlavm.lower import attention, elementwise, embedding, linear, moe, views  # noqa: F401  (they register their rules)
from dlavm.lower.context import Content, Context, Lowered, Rows, buffer_name
from dlavm.lower.rules import select
from dlavm.support.errors import DlavmError
from dlavm.sym import wrap
from dlavm.target import TargetSpec
from dlavm.target.tables import SEGMENTS
from dlavm.task import Launch, Program


def lower(graph: Graph, spec: TargetSpec, batch: bool = False) -> Lowered:
    """The task program of a graph on a target; `batch`: for a token of each of several sequences.

    Raises DlavmError naming op, place and the missing capability.
    """
    context = Context(graph, spec, batch)
    for node in graph.nodes:
        _emit(context, node)
    return _finished(context)


def _emit(context: Context, node: Node) -> None:
    try:
        emit = select(node.op, context.spec).emit
    except DlavmError as e:
        raise DlavmError(f"{node}: {e}") from None
    with context.tasks.place(node.where or node.name):
        emit(context, node)


def _finished(context: Context) -> Lowered:
    graph = context.graph
    loads = tuple(_load_table(context, fn, slot) for fn, slot in context.act_slots.items())
    program = context.tasks.finish(prologue=loads)
    outputs = {label: context.rows(value) for label, value in graph.outputs.items() if context.placed(value)}
    return Lowered(program, context.contents, context.inputs, outputs, context.kv, tuple(context.choices))


def lowering_problems(graph: Graph, spec: TargetSpec) -> tuple[list[tuple[str, str]], Program]:
    """(place, reason) of every node that cannot be lowered, and the tasks of all others.

    What such a node would have made gets storage, so that those behind it are looked at too.
    """
    context = Context(graph, spec)
    problems = []
    for node in graph.nodes:
        try:
            _emit(context, node)
        except DlavmError as e:
            problems.append((node.where or node.name, str(e).removeprefix(f"{node}: ")))
            if not context.placed(node.output):
                _stand_in(context, node.output)
    return problems, context.tasks.finish()


def _stand_in(context: Context, value: Value) -> None:
    if value.role == "kv" or value.type.rank not in (2, 3):
        context.bind(value, Rows(wrap(0), value.type.shape[0], 0, 1, 0, 1))
    else:
        context.place(value)


def _load_table(context: Context, fn: str, slot: int) -> Launch:
    name = buffer_name(f"table.{fn}")
    context.contents[name] = Content("activation", fn)
    base = context.storage(name, "tables", SEGMENTS * 8, f"f32[{SEGMENTS}, 2]")
    return Launch("LOAD_TABLE", {"act_slot": slot, "table": base}, f"activation {fn}")
