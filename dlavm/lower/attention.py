"""rope, kv_append, attention: scores, softmax and mixing of all heads in three commands a token tile."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dlavm.formats import BLOCK
from dlavm.graph import Node
from dlavm.graph.activations import softcap
from dlavm.graph.attention import alibi_slopes
from dlavm.lower.context import Context, Part, Rows
from dlavm.lower.linear import token_tiles
from dlavm.lower.rules import rule
from dlavm.schedule.cost import Cost
from dlavm.schedule.order import Node as Work
from dlavm.schedule.order import begin_times
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, minimum, wrap
from dlavm.target.isa import f32_bits
from dlavm.target.layout import KV_FORMATS, MAX_TOKEN_TILE, KvLayout, attention_tile, row_bytes, score_columns
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import Launch

MOST_GROUPS = 8
SLOPE = 4  # bytes
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
    tile = min(batch, _token_tile(c, node, q, q.inner // layout.heads))
    unit = ADDRESS_UNIT // SLOPE if node.number("alibi") else 1  # heads whose slopes begin at an address
    of_tile = partial(_tile, c, node, q, out, (keys, values), layout, tile)
    for part, first, count in _tiles(c, q.outer, tile):
        for index in range(groups := _groups(c, q, layout, unit, partial(of_tile, part, first, count))):
            scratch = _scratch(c, node, layout, tile * (q.inner // layout.heads), Group(index, groups), tile)
            for launch in of_tile(part, first, count, Group(index, groups), scratch):
                c.tasks.launch(launch.op, **launch.fields)


@dataclass(frozen=True)
class Group:
    """Part `index` of `count` equal ones of the key/value heads."""

    index: int
    count: int


@dataclass(frozen=True)
class Scratch:
    """Scores of a group of heads in rows of `row` address units, and the reciprocals of their sums."""

    scores: Expr
    recip: Expr
    row: int


def _scratch(c: Context, node: Node, layout: KvLayout, rows: int, group: Group, tile: int) -> Scratch:
    """`rows` of each key/value head."""
    heads, columns = layout.heads // group.count, score_columns(layout.ctx, _window(node, layout), tile)
    name, end = f"{node.name}.", f".{group.index}" if group.count > 1 else ""
    scores = c.storage(f"{name}scores{end}", "activations", heads * rows * row_bytes(columns),
                       f"f16[{heads}, {tile}, {rows // tile}, {columns}]")
    recip = c.storage(f"{name}recip{end}", "activations", 4 * heads * rows, f"f32[{heads}, {tile}, {rows // tile}]")
    return Scratch(scores, recip, row_bytes(columns) // ADDRESS_UNIT)


def _tile(c: Context, node: Node, q: Rows, out: Rows, caches: tuple[Expr, Expr], layout: KvLayout, tile: int,
          part: Part, first: Expr, count: Expr, group: Group, scratch: Scratch) -> Iterator[Launch]:
    """Scores, softmax and mixing of a group of heads for `count` tokens from `first` on."""
    window, inner, heads = _window(node, layout), q.inner // layout.heads, layout.heads // group.count
    # Positions that the tile's first and last token see, without the blocks that no token of the tile sees.
    seen = part.kv_len + first + 1
    blocks = (seen - minimum(seen, window)) // BLOCK if window else wrap(0)
    seen, total = seen - blocks * BLOCK, seen + count - 1 - blocks * BLOCK
    begin = group.index * heads
    skipped = part.kv_base + blocks * (layout.block_bytes // ADDRESS_UNIT) + begin * (layout.head_bytes // ADDRESS_UNIT)
    here, there = q.at(part.first + first, count), out.at(part.first + first, count)
    here, there = (replace(x, base=x.base + begin * inner * x.inner_stride) for x in (here, there))
    row, step = scratch.row, tile * inner * scratch.row
    rows: dict[str, IntoExpr] = {"rows_o": count, "rows_i": inner, "batch": heads}
    cache: dict[str, IntoExpr] = {"wgt_tile": layout.block_bytes // ADDRESS_UNIT,
                                  "wgt_b": layout.head_bytes // ADDRESS_UNIT}
    src: dict[str, IntoExpr] = {"src": scratch.scores, "src_so": inner * row, "src_si": row, "src_b": step}
    dst: dict[str, IntoExpr] = {"dst": scratch.scores, "dst_so": inner * row, "dst_si": row, "dst_b": step}
    formats = [c.spec.enums["weight_format"][name] for name in (layout.stored.keys, layout.stored.values)]
    yield Launch("LINEAR", {
        "format": formats[0], **here.fields("src"), "src_b": inner * q.inner_stride, **dst, **rows, **cache,
        "wgt": caches[0] + skipped, "k": layout.dim, "n": total, "use_scale": 1,
        "scale": f32_bits(node.number("scale")), **_bend(c, node)})  # fmt: skip
    yield Launch("SOFTMAX", {**src, **dst, **rows, "visible": seen, "width": total, "recip": scratch.recip,
                             **_mask(c, node, q.inner, window, begin * inner)})
    yield Launch("LINEAR", {
        "format": formats[1], **src, **there.fields("dst"), "dst_b": inner * out.inner_stride, **rows, **cache,
        "wgt": caches[1] + skipped, "k": total, "n": layout.dim, "use_row_scale": 1,
        "row_scale": scratch.recip})  # fmt: skip


def _groups(
    c: Context, q: Rows, layout: KvLayout, unit: int, launches: Callable[[Group, Scratch], Iterator[Launch]]
) -> int:
    """Into how many groups of heads attention is cut, so that the softmax of one runs beside the products of others:
    the fewest of those with which a token is done first. One where commands follow each other anyway. `unit`: query
    heads of which a group has a multiple."""
    if not c.spec.has("decoupled"):
        return 1
    fits = [n for n in range(1, MOST_GROUPS + 1) if layout.heads % n == 0 and (n == 1 or q.inner // n % unit == 0)]
    somewhere, cost = Scratch(wrap(0), wrap(0), 1), Cost(c.spec)

    def end(count: int) -> int:
        nodes: list[Work] = []
        for number, launch in enumerate(launches(Group(0, count), somewhere) for _ in range(count)):
            for place, one in enumerate(launch):
                engine = c.spec.commands[one.op].engine or ""
                needs = frozenset([3 * number + place - 1] if place else [])
                nodes.append(Work((), frozenset([engine]), cost(one), needs))
        return max(begin + work.cycles for begin, work in zip(begin_times(nodes), nodes, strict=True))

    return min(fits, key=lambda count: (end(count), count))


def _window(node: Node, layout: KvLayout) -> int:
    """Positions that a token sees at most; 0 where the context is no longer than that."""
    window = int(node.number("window"))
    return window if window < layout.ctx else 0


def _bend(c: Context, node: Node) -> dict[str, IntoExpr]:
    """Fields of the scores that a soft cap needs."""
    cap = node.number("softcap")
    return {"use_act": 1, "act_slot": c.act_slot(softcap(cap), node)} if cap else {}


def _mask(c: Context, node: Node, heads: int, window: int, first: int) -> dict[str, IntoExpr]:
    """Fields of SOFTMAX for a window and for ALiBi, whose slopes are alike in all layers, from a head on."""
    most, scale = node.number("alibi"), node.number("alibi_scale")
    fields: dict[str, IntoExpr] = {"window": window} if window else {}
    if most:
        slopes = (alibi_slopes(heads, most) * scale).astype(np.float32)
        fields |= {"use_slopes": 1, "slopes": c.floats(f"alibi.{heads}.{most}.{scale}", tuple(slopes.tolist()))
                   + first * SLOPE // ADDRESS_UNIT}
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
