"""rope, kv_append, attention: scores, softmax and mixing of all heads in three commands a token tile."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlavm.formats import BLOCK
from dlavm.graph import Node
from dlavm.graph.activations import softcap
from dlavm.graph.attention import alibi_slopes
from dlavm.lower.context import Context, Part, Rows
from dlavm.lower.linear import token_tiles
from dlavm.lower.rules import rule
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, minimum, wrap
from dlavm.target.isa import f32_bits
from dlavm.target.layout import KV_FORMATS, MAX_TOKEN_TILE, KvLayout, attention_tile, row_bytes, score_columns
from dlavm.target.spec import ADDRESS_UNIT

CACHE = "|".join(f"kv_{name}" for name in KV_FORMATS)  # capabilities, of which the format of the cache takes one


@rule("rope")
def lower_rope(c: Context, node: Node) -> None:
    x, out, table = c.rows(node["x"]), c.place(node.output), c.table(node["table"])
    form = c.spec.enums["rope_form"]["interleaved" if node.attrs["interleaved"] else "half"]
    for part in c.sequences(x.outer):
        rows, position = x.at(part.first, part.count), table.at(part.kv_len, part.count)
        c.tasks.launch("ROPE", form=form, **rows.fields("src"), **out.at(part.first, part.count).fields("dst"),
                       **rows.counts(), dim=x.dim, rot=int(node.number("rotary_dim")), table=position.base,
                       table_so=table.outer_stride)


@rule("kv_append", CACHE)
def lower_kv_append(c: Context, node: Node) -> None:
    x = c.rows(node["x"])
    base, layout = c.cache(node["cache"], node)
    form = c.spec.enums["kv_format"][layout.format]
    for part in c.sequences(x.outer):
        rows = x.at(part.first, part.count)
        c.tasks.launch("KV_APPEND", format=form, **rows.fields("src"), **rows.counts(), dim=x.dim,
                       cache=base + part.kv_base, cache_head=layout.head_bytes // ADDRESS_UNIT, pos=part.kv_len)


@rule("attention", CACHE)
def lower_attention(c: Context, node: Node) -> None:
    _attention(c, node, 1)


@rule("attention", CACHE, "token_batch")
def lower_attention_batch(c: Context, node: Node) -> None:
    _attention(c, node, MAX_TOKEN_TILE)


def _attention(c: Context, node: Node, batch: int) -> None:
    q, out = c.rows(node["q"]), c.place(node.output)
    keys, layout = c.cache(node["k_cache"], node)
    values, _ = c.cache(node["v_cache"], node)
    group, window = q.inner // layout.heads, _window(node, layout)
    tile = min(batch, _token_tile(c, node, q, group))
    columns = score_columns(layout.ctx, window, tile)
    score_row = row_bytes(columns) // ADDRESS_UNIT
    scores = Rows(c.storage(f"{node.name}.scores", "activations", layout.heads * tile * group * row_bytes(columns),
                            f"f16[{layout.heads}, {tile}, {group}, {columns}]"),
                  q.outer, group * score_row, group, score_row, columns)
    recip = c.storage(f"{node.name}.recip", "activations", 4 * layout.heads * tile * group,
                      f"f32[{layout.heads}, {tile}, {group}]")
    score_step = tile * group * score_row
    cache: dict[str, IntoExpr] = {"batch": layout.heads, "wgt_tile": layout.block_bytes // ADDRESS_UNIT,
                                  "wgt_b": layout.head_bytes // ADDRESS_UNIT}
    formats = [c.spec.enums["weight_format"][name] for name in (layout.stored.keys, layout.stored.values)]
    bend, mask = _bend(c, node), _mask(c, node, q.inner, window)
    for part, first, count in _tiles(c, q.outer, tile):
        # Positions that the tile's first and last token see, without the blocks that no token of the tile sees.
        seen = part.kv_len + first + 1
        blocks = (seen - minimum(seen, window)) // BLOCK if window else wrap(0)
        seen, total = seen - blocks * BLOCK, seen + count - 1 - blocks * BLOCK
        skipped = part.kv_base + blocks * (layout.block_bytes // ADDRESS_UNIT)
        here, there = q.at(part.first + first, count), out.at(part.first + first, count)
        rows: dict[str, IntoExpr] = {"rows_o": count, "rows_i": group}
        c.tasks.launch("LINEAR", format=formats[0], **here.fields("src"), src_b=group * q.inner_stride,
                       **scores.fields("dst"), dst_b=score_step, **rows, **cache, wgt=keys + skipped, k=layout.dim,
                       n=total, use_scale=1, scale=f32_bits(node.number("scale")), **bend)
        c.tasks.launch("SOFTMAX", **scores.fields("src"), src_b=score_step, **scores.fields("dst"), dst_b=score_step,
                       **rows, batch=layout.heads, visible=seen, width=total, recip=recip, **mask)
        c.tasks.launch("LINEAR", format=formats[1], **scores.fields("src"), src_b=score_step,
                       **there.fields("dst"), dst_b=group * out.inner_stride, **rows, **cache, wgt=values + skipped,
                       k=total, n=layout.dim, use_row_scale=1, row_scale=recip)


def _window(node: Node, layout: KvLayout) -> int:
    """Positions that a token sees at most; 0 where the context is no longer than that."""
    window = int(node.number("window"))
    return window if window < layout.ctx else 0


def _bend(c: Context, node: Node) -> dict[str, IntoExpr]:
    """Fields of the scores that a soft cap needs."""
    cap = node.number("softcap")
    return {"use_act": 1, "act_slot": c.act_slot(softcap(cap), node)} if cap else {}


def _mask(c: Context, node: Node, heads: int, window: int) -> dict[str, IntoExpr]:
    """Fields of SOFTMAX for a window and for ALiBi, whose slopes are alike in all layers."""
    most, scale = node.number("alibi"), node.number("alibi_scale")
    fields: dict[str, IntoExpr] = {"window": window} if window else {}
    if most:
        slopes = (alibi_slopes(heads, most) * scale).astype(np.float32)
        fields |= {"use_slopes": 1, "slopes": c.floats(f"alibi.{heads}.{most}.{scale}", tuple(slopes.tolist()))}
    return fields


def _tiles(c: Context, tokens: Expr, tile: int) -> Iterator[tuple[Part, Expr, Expr]]:
    """The tokens in parts of one sequence each, and in those (first token of the part, count) of each tile."""
    for part in c.sequences(tokens):
        for first, count in token_tiles(c, part.count, tile):
            yield part, first, count


def _token_tile(c: Context, node: Node, q: Rows, group: int) -> int:
    """Tokens whose queries fit the activation buffer and whose outputs fit the accumulators."""
    board = c.spec.board
    tile = attention_tile(board, group, q.dim, q.outer.hi)
    if tile == 0:
        raise DlavmError(f"{node}: {group} query heads of {q.dim} exceed the buffers of board {board.name}")
    return tile
