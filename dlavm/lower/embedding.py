"""embedding and argmax, on the device or left to the host."""
from __future__ import annotations

from dlavm.graph import Node
from dlavm.lower.context import Context, Rows
from dlavm.lower.rules import rule
from dlavm.support.errors import DlavmError


@rule("embedding")
def lower_host_embedding(c: Context, node: Node) -> None:
    """The host writes the rows; a copy takes them to where activations lie: the first layer is like the others."""
    out = c.place(node.output)
    rows = c.host_rows(node)
    c.tasks.launch("COPY", **rows.fields("src"), **out.fields("dst"), **out.counts(), dim=out.dim)


@rule("embedding", "gather")
def lower_embedding(c: Context, node: Node) -> None:
    table, out = c.table(node["table"]), c.place(node.output)
    base = c.input(node["ids"])
    c.tasks.launch("GATHER", ids=base, table=table.base, table_so=table.outer_stride, dst=out.base,
                   dst_so=out.outer_stride, rows_o=out.outer, dim=out.dim, limit=table.outer)


@rule("argmax")
def lower_host_argmax(c: Context, node: Node) -> None:
    """The host finds the largest logit. Raises DlavmError where the program itself needs it."""
    if not c.graph.is_output(node.output) or c.graph.users.get(node.name) or not c.graph.is_output(node["x"]):
        raise DlavmError(f"{node}: {c.spec.name} leaves argmax to the host: expected an output, of an output")


@rule("argmax", "argmax")
def lower_argmax(c: Context, node: Node) -> None:
    x = c.flat(node["x"])
    role = "output" if c.graph.is_output(node.output) else "activations"
    base = c.storage(node.output.name, role, 4 * x.outer.hi, str(node.output.type))
    c.bind(node.output, Rows(base, x.outer, 0, 1, 0, 1))
    c.tasks.launch("ARGMAX", src=x.base, src_so=x.outer_stride, rows_o=x.outer, n=x.dim, dst=base)
