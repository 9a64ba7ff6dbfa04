"""Norms, activations, elementwise ops and permutations on the vector engine; copy."""
from __future__ import annotations

from dlavm.graph import Node
from dlavm.lower.context import Context, Rows
from dlavm.lower.rules import rule
from dlavm.support.errors import DlavmError
from dlavm.sym import IntoExpr
from dlavm.target.isa import f32_bits


def _norm(c: Context, node: Node, kind: str, beta: dict[str, IntoExpr]) -> None:
    x, out = c.rows(node["x"]), c.place(node.output)
    c.tasks.launch("NORM", norm=c.spec.enums["norm_kind"][kind], **x.fields("src"), **out.fields("dst"), **x.counts(),
                   dim=x.dim, gamma=c.vector(node["gamma"]), eps=f32_bits(node.number("eps")),
                   inv_n=f32_bits(1 / x.dim), **beta)


@rule("rms_norm")
def lower_rms_norm(c: Context, node: Node) -> None:
    _norm(c, node, "rms", {})


@rule("layer_norm")
def lower_layer_norm(c: Context, node: Node) -> None:
    beta = node.get("beta")
    _norm(c, node, "layer", {"use_beta": 1, "beta": c.vector(beta)} if beta else {})


@rule("act")
def lower_act(c: Context, node: Node) -> None:
    x, out = c.rows(node["x"]), c.place(node.output)
    c.tasks.launch("ACT", act_slot=c.act_slot(str(node.attrs["fn"]), node), **x.fields("src"), **out.fields("dst"),
                   **x.counts(), dim=x.dim)


def _eltwise(c: Context, node: Node, x: Rows, fn: str, extra: dict[str, IntoExpr]) -> None:
    out = c.place(node.output)
    c.tasks.launch("ELTWISE", fn=c.spec.enums["eltwise_fn"][fn], **x.fields("src"), **out.fields("dst"), **x.counts(),
                   dim=x.dim, **extra)


def _binary(c: Context, node: Node) -> None:
    a, b = node["a"], node["b"]
    if b.type.rank == 1:  # a vector that every row takes
        second: dict[str, IntoExpr] = {"b": c.vector(b), "b_so": 0, "b_si": 0}
    else:
        second = c.rows(b).fields("b")
    _eltwise(c, node, c.rows(a), node.op, second)


@rule("add")
def lower_add(c: Context, node: Node) -> None:
    _binary(c, node)


@rule("mul")
def lower_mul(c: Context, node: Node) -> None:
    _binary(c, node)


@rule("scale")
def lower_scale(c: Context, node: Node) -> None:
    _eltwise(c, node, c.rows(node["x"]), "scale", {"scale": f32_bits(node.number("value"))})


@rule("add_positions")
def lower_add_positions(c: Context, node: Node) -> None:
    """Raises DlavmError for a table that ends before the context does."""
    x, table, ctx = c.rows(node["x"]), c.table(node["table"]), int(str(c.graph.meta["ctx"]))
    if table.outer.lo < ctx:
        raise DlavmError(f"{node}: table expected at least {ctx} positions, got {table.outer}")
    out = c.place(node.output)
    for part in c.sequences(x.outer):
        rows, position = x.at(part.first, part.count), table.at(part.kv_len, part.count)
        c.tasks.launch("ELTWISE", fn=c.spec.enums["eltwise_fn"]["add"], **rows.fields("src"),
                       **out.at(part.first, part.count).fields("dst"), **position.fields("b"), **rows.counts(),
                       dim=x.dim)


@rule("permute", "permute")
def lower_permute(c: Context, node: Node) -> None:
    x, index, out = c.rows(node["x"]), c.index(node["index"]), c.place(node.output)
    c.tasks.launch("PERMUTE", **x.fields("src"), **out.fields("dst"), **x.counts(), dim=x.dim, limit=x.dim, index=index)


@rule("copy")
def lower_copy(c: Context, node: Node) -> None:
    x, out = c.rows(node["x"]), c.place(node.output)
    c.tasks.launch("COPY", **x.fields("src"), **out.fields("dst"), **x.counts(), dim=x.dim)
