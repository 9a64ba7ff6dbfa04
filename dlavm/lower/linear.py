"""linear: a command for each tile of tokens, outputs and K, as `tiling.py` cuts them."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dlavm.graph import Node
from dlavm.lower.context import Context, Rows
from dlavm.lower.rules import rule
from dlavm.sym import Expr, IntoExpr, minimum, wrap
from dlavm.target.isa import f32_bits
from dlavm.target.layout import PackedWeights, ceildiv
from dlavm.target.spec import ADDRESS_UNIT


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
    tiling = c.tiling(packed, min(batch, x.outer.hi))
    for block, n in _blocks(c, packed.n, tiling.n):
        column = block * (tiling.n * 2 // ADDRESS_UNIT)
        tile = base + block * (tiling.n // packed.memory.row_tile * packed.tile_bytes // ADDRESS_UNIT)
        for first, count in token_tiles(c, x.outer, tiling.tokens):
            ends = _at_column(epilogue, column)
            ends |= _shift(aux.at(first, count), column).fields("aux") if aux else {}
            for part, k, carried in _parts(c, packed.k, tiling.k):
                fields: dict[str, IntoExpr] = {
                    "format": c.spec.enums["weight_format"][packed.format.name], "k": k, "n": n, "batch": 1,
                    "wgt": tile + part * (packed.k_offset(tiling.k) // ADDRESS_UNIT),
                    "wgt_tile": packed.tile_bytes // ADDRESS_UNIT, **carried,
                    **_shift(x.at(first, count), part * (tiling.k * 2 // ADDRESS_UNIT)).fields("src"),
                    **x.at(first, count).counts(), **_shift(out.at(first, count), column).fields("dst"),
                }
                c.tasks.launch("LINEAR", **fields, **({} if carried["acc_out"] else ends))


def token_tiles(c: Context, rows: Expr, tile: int) -> Iterator[tuple[Expr, Expr]]:
    """(first row, row count) of each tile; a loop in the task only where more than one tile can occur."""
    if rows.hi <= tile:
        yield rows * 0, rows
        return
    with c.tasks.loop("t", (rows + (tile - 1)) // tile) as t:
        yield t * tile, minimum(rows - t * tile, tile)


def _blocks(c: Context, total: int, tile: int) -> Iterator[tuple[Expr, Expr]]:
    """(number, outputs) of each block of outputs; a loop where there are several."""
    with c.tasks.loop("n", ceildiv(total, tile)) as block:
        yield block, wrap(tile) if total % tile == 0 else minimum(total - block * tile, tile)


def _parts(c: Context, total: int, tile: int) -> Iterator[tuple[Expr, int, dict[str, IntoExpr]]]:
    """(number, length) of each tile along K, and whether it takes and leaves accumulators; those in the middle are a
    loop."""
    last = ceildiv(total, tile) - 1
    for number, count in ((0, min(last, 1)), (1, last - 1)):
        if count > 0:
            with c.tasks.loop("k", count) as k:
                yield k + number, tile, {"acc_in": number, "acc_out": 1}
    yield wrap(last), total - last * tile, {"acc_in": int(last > 0), "acc_out": 0}


def _shift(rows: Rows, units: Expr) -> Rows:
    """The same rows from a column on that is `units` address units behind the first one."""
    return rows if units.is_const and units.value == 0 else replace(rows, base=rows.base + units)


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


def _at_column(epilogue: dict[str, IntoExpr], units: Expr) -> dict[str, IntoExpr]:
    return {**epilogue, "bias": epilogue["bias"] + units} if "bias" in epilogue else dict(epilogue)
