"""moe: the router's choice of experts is memory that the program reads; the weights of an expert are an address."""
from __future__ import annotations

from collections.abc import Iterator

from dlavm.graph import Node
from dlavm.lower.context import Context, Rows
from dlavm.lower.linear import product
from dlavm.lower.rules import rule
from dlavm.sym import Expr, IntoExpr, wrap
from dlavm.target.layout import row_bytes
from dlavm.target.spec import ADDRESS_UNIT


@rule("moe", "topk", "scalars", "loops")
def lower_moe(c: Context, node: Node) -> None:
    """For each token and each of its experts three products of one row; the first expert writes the token's result, the
    others add to it."""
    x, out = c.flat(node["x"]), c.place(node.output)
    matrices = {name: c.weights(node[name], node) for name in ("gate", "up", "down")}
    inner = matrices["gate"][1].n
    hidden = Rows(c.storage(f"{node.name}.hidden", "activations", row_bytes(inner), f"f16[{inner}]"), wrap(1), 0, 1, 0,
                  inner)
    modes = c.spec.enums["aux_mode"]
    gated: dict[str, IntoExpr] = {"use_act": 1, "act_slot": c.act_slot(str(node.attrs["act"]), node)}
    for first, token, expert, share in _choices(c, node):
        wgt = {name: base + expert * (packed.bytes // ADDRESS_UNIT) for name, (base, packed) in matrices.items()}
        row, result = x.at(token, 1), out.at(token, 1)
        product(c, row, hidden, wgt["gate"], matrices["gate"][1], gated)
        product(c, row, hidden, wgt["up"], matrices["up"][1], {"aux_mode": modes["mul"]}, hidden)
        weighted: dict[str, IntoExpr] = {"use_scale": 1, "scale": share}
        if first:
            product(c, hidden, result, wgt["down"], matrices["down"][1], weighted)
        else:
            product(c, hidden, result, wgt["down"], matrices["down"][1], {**weighted, "aux_mode": modes["add"]}, result)


def _choices(c: Context, node: Node) -> Iterator[tuple[bool, Expr, Expr, Expr]]:
    """The router, then for each token and rank: whether it is the first rank, the token, the number of the expert and
    the bits of its weight."""
    logits, top_k = c.flat(node["logits"]), int(node.number("top_k"))
    tokens, size = logits.outer, 4 * logits.outer.hi * top_k
    ids = c.storage(f"{node.name}.experts", "activations", size, f"u32[{tokens}, {top_k}]")
    weights = c.storage(f"{node.name}.shares", "activations", size, f"f32[{tokens}, {top_k}]")
    c.tasks.launch("TOPK", renormalize=int(bool(node.attrs["renormalize"])), src=logits.base,
                   src_so=logits.outer_stride, rows_o=tokens, n=logits.dim, k=top_k, ids=ids, weights=weights)
    c.tasks.await_()  # what engines wrote is in memory only behind a fence
    with c.tasks.loop("t", tokens) as token:
        for first, count in ((0, 1), (1, top_k - 1)):
            with c.tasks.loop("j", count) as j:
                place = token * top_k + first + j
                expert = c.tasks.load("expert", ids, place, 0, logits.dim - 1)
                yield first == 0, token, expert, c.tasks.load("share", weights, place)
