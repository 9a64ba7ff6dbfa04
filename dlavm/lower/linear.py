"""linear: token tiles that fit the activation buffer; K tiles that carry accumulators where one row does not fit."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlavm.graph import Node
from dlavm.lower.context import Context, Rows
from dlavm.lower.rules import rule
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, align, minimum
from dlavm.target.isa import f32_bits
from dlavm.target.layout import BLOCK, PackedWeights
from dlavm.target.spec import ADDRESS_UNIT, Board


@dataclass(frozen=True)
class Tiling:
    """Tokens, outputs and contraction length of one LINEAR; `n` and `k` are the whole matrix unless K is tiled."""

    tokens: int
    n: int
    k: int


def choose_tiling(board: Board, packed: PackedWeights, tokens: int) -> Tiling:
    """The largest token tile whose mantissas fit on chip: weights are fetched once a token tile."""
    k = int(align(packed.k, BLOCK))
    if k <= board.activation_elements:
        return Tiling(min(tokens, board.activation_elements // k), packed.n, packed.k)
    row_tile = packed.memory.row_tile
    n = min(packed.n, board.accumulators // row_tile * row_tile)
    k_tile = board.activation_elements // packed.section_k * packed.section_k
    if n == 0 or k_tile == 0:
        what = f"[{packed.n}, {packed.k}] linear in {packed.format}"
        raise DlavmError(f"board {board.name}: buffers too small for a {what}")
    return Tiling(1, n, k_tile)


@rule("linear")
def lower_linear(c: Context, node: Node) -> None:
    _linear(c, node, 1)


@rule("linear", "token_batch")
def lower_linear_batch(c: Context, node: Node) -> None:
    _linear(c, node, c.variable("token").hi)


def _linear(c: Context, node: Node, batch: int) -> None:
    x, out = c.flat(node["x"]), c.place(node.output)
    base, packed = c.weights(node["w"], node)
    aux = c.flat(node["aux"]) if node.get("aux") else None
    product(c, x, out, base, packed, _epilogue(c, node), aux, batch)


def product(c: Context, x: Rows, out: Rows, base: Expr, packed: PackedWeights, epilogue: dict[str, IntoExpr],
            aux: Rows | None = None, batch: int = 1) -> None:
    """Rows of `out` from those of `x` and the matrix at `base`. `epilogue`: the fields of its steps (aux's rows are
    `aux`); `batch`: tokens that share a fetch of the weights at most."""
    tiling = choose_tiling(c.spec.board, packed, min(batch, x.outer.hi))
    for first, count in token_tiles(c, x.outer, tiling.tokens):
        for n0, n in _spans(packed.n, tiling.n):
            for k0, k in _spans(packed.k, tiling.k):
                last = k0 + k == packed.k
                wgt = base + (n0 // packed.memory.row_tile * packed.tile_bytes + packed.k_offset(k0)) // ADDRESS_UNIT
                fields: dict[str, IntoExpr] = {
                    "format": c.spec.enums["weight_format"][packed.format.name], "k": k, "n": n, "batch": 1, "wgt": wgt,
                    "wgt_tile": packed.tile_bytes // ADDRESS_UNIT, "acc_in": int(k0 > 0), "acc_out": int(not last),
                    **_shift(x.at(first, count), k0).fields("src"), **x.at(first, count).counts(),
                    **_shift(out.at(first, count), n0).fields("dst"),
                }
                if last:
                    fields |= _at_column(epilogue, n0)
                    fields |= _shift(aux.at(first, count), n0).fields("aux") if aux else {}
                c.tasks.launch("LINEAR", **fields)


def token_tiles(c: Context, rows: Expr, tile: int) -> Iterator[tuple[Expr, Expr]]:
    """(first row, row count) of each tile; a loop in the task only where more than one tile can occur."""
    if rows.hi <= tile:
        yield rows * 0, rows
        return
    with c.tasks.loop("t", (rows + (tile - 1)) // tile) as t:
        yield t * tile, minimum(rows - t * tile, tile)


def _spans(total: int, tile: int) -> list[tuple[int, int]]:
    return [(start, min(tile, total - start)) for start in range(0, total, tile)]


def _shift(rows: Rows, elements: int) -> Rows:
    """The same rows from column `elements` on, a multiple of 8."""
    return Rows(rows.base + elements * 2 // ADDRESS_UNIT, rows.outer, rows.outer_stride, rows.inner,
                rows.inner_stride, rows.dim - elements)


def _epilogue(c: Context, node: Node) -> dict[str, IntoExpr]:
    a = node.attrs
    fields: dict[str, IntoExpr] = {}
    if node.number("scale") != 1:
        fields |= {"use_scale": 1, "scale": f32_bits(node.number("scale"))}
    if bias := node.get("bias"):
        fields |= {"use_bias": 1, "bias": c.vector(bias)}
    if a["act"] != "none":
        fields |= {"use_act": 1, "act_slot": c.act_slot(str(a["act"]), node)}
    if node.get("aux"):
        fields |= {"aux_mode": c.spec.enums["aux_mode"][str(a["aux_mode"])]}
    return fields


def _at_column(epilogue: dict[str, IntoExpr], n0: int) -> dict[str, IntoExpr]:
    if "bias" not in epilogue:
        return epilogue
    return {**epilogue, "bias": epilogue["bias"] + n0 * 2 // ADDRESS_UNIT}
