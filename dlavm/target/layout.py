"""Sizes of the tensor layouts that the engines read (doc/numerics.md section 3, doc/architecture.md "Layouts")."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dlavm.formats import BLOCK, Format
from dlavm.target.spec import Board, Memory

ROW_BYTES = 2  # of a row in a beat of scales or zero points: one fp16, or a byte of each of two groups
IntArray = NDArray[np.int64]
# The scores of a token tile lie in memory, heads x tile x ctx fp16: the largest activation of a long context.
# Keys and values are fetched once a tile; beyond 32 tokens the matrix lanes, not the fetch, bound the product.
MAX_TOKEN_TILE = 32


def ceildiv(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class PackedWeights:
    """A quantised matrix [n, k], packed for one memory: row tiles of sections. A section is the fewest groups that fill
    their beats of scales and of zero points; the last one may be short."""

    memory: Memory
    n: int
    k: int
    format: Format

    @property
    def tiles(self) -> int:
        return ceildiv(self.n, self.memory.row_tile)

    @property
    def blocks(self) -> int:
        return ceildiv(self.k, BLOCK)

    @property
    def groups(self) -> int:
        return self.format.groups(self.k)

    @property
    def scale_groups(self) -> int:
        """Groups whose scales share a beat."""
        return ROW_BYTES if self.format.scale == "e8m0" else 1

    @property
    def section_groups(self) -> int:
        return ROW_BYTES if self.format.zero else self.scale_groups

    @property
    def section_k(self) -> int:
        """Weights of a row in a section: K tiles start at multiples."""
        return self.section_groups * self.format.group

    @property
    def unit_beats(self) -> int:
        """Beats of a channel for one block of 32 k of its rows."""
        return BLOCK * self.format.element.bits // 8 // ROW_BYTES

    @property
    def tile_beats(self) -> int:
        """Beats of one channel in one tile."""
        return self._beats(self.k)

    def _beats(self, k: int) -> int:
        """Beats of one channel for the first k weights of its rows."""
        groups = self.format.groups(k)
        zeros = ceildiv(groups, ROW_BYTES) if self.format.zero else 0
        return zeros + ceildiv(groups, self.scale_groups) + self.unit_beats * ceildiv(k, BLOCK)

    @property
    def tile_bytes(self) -> int:
        return self.tile_beats * self.memory.beat_row

    @property
    def bytes(self) -> int:
        return self.tiles * self.tile_bytes

    def k_offset(self, k: int) -> int:
        """Bytes from a tile's start to the section that begins with weight `k` of each row."""
        return self._beats(k) * self.memory.beat_row

    @cached_property
    def zero_beats(self) -> IntArray:
        """Where in a tile the beats of zero points stand, one for each two groups; none without zero points."""
        return self._starts[:: self.section_groups] - 1 if self.format.zero else np.empty(0, dtype=np.int64)

    @cached_property
    def scale_beats(self) -> IntArray:
        """Where in a tile the beats of scales stand."""
        return self._starts[:: self.scale_groups]

    @cached_property
    def block_beats(self) -> IntArray:
        """[blocks]: where in a tile the units of the blocks begin."""
        blocks = np.arange(self.blocks)
        per_scale = self.scale_groups * self.format.group // BLOCK
        return self.scale_beats[blocks // per_scale] + 1 + blocks % per_scale * self.unit_beats

    @property
    def _starts(self) -> IntArray:
        """[groups]: the beat of the scale of the group, or of that of the first of the groups that share one."""
        first = np.arange(self.groups) // self.scale_groups * self.scale_groups
        before = first * self.format.group // BLOCK * self.unit_beats + first // self.scale_groups
        return before + (first // ROW_BYTES + 1 if self.format.zero else 0)


@dataclass(frozen=True)
class KvFormat:
    """How a cache holds 32 elements of a token: `row_bytes`, and `exponent_bytes` apart from them. A block of 32 tokens
    is [dim / 32][32 tokens] rows, then as many exponents, and a multiple of `align` bytes. `keys` and `values` are the
    weight formats of its products, `dtype` the cache's in the graph."""

    row_bytes: int
    exponent_bytes: int
    align: int
    keys: str
    values: str
    dtype: str

    @property
    def unit_bytes(self) -> int:
        """Of 32 tokens with 32 elements each."""
        return BLOCK * (self.row_bytes + self.exponent_bytes)

    def block_bytes(self, units: int) -> int:
        """Between blocks of `units` times 32 elements a token."""
        return ceildiv(units * self.unit_bytes, self.align) * self.align

    def units(self, block_bytes: int) -> int:
        """Undoes `block_bytes`, of which padding is less than a unit."""
        return block_bytes // self.unit_bytes


KV_FORMATS = {
    "fp16": KvFormat(64, 0, 64, "kv_k", "kv_v", "f16"),
    "mxint8": KvFormat(32, 1, 64, "kvq_k", "kvq_v", "mxint8"),
}
KV_PRODUCTS = {name: form for form in KV_FORMATS.values() for name in (form.keys, form.values)}  # by weight format


@dataclass(frozen=True)
class KvLayout:
    """Cache of `heads` heads: [head][token / 32] blocks. `format`: a name of KV_FORMATS. In `memory`, if it is given,
    heads may have a gap between them."""

    heads: int
    ctx: int
    dim: int
    format: str = "fp16"
    memory: Memory | None = None

    @property
    def units(self) -> int:
        """Rows of 32 elements of a token and head."""
        return ceildiv(self.dim, BLOCK)

    @property
    def stored(self) -> KvFormat:
        return KV_FORMATS[self.format]

    @property
    def block_bytes(self) -> int:
        """Between blocks of 32 tokens of one head."""
        return self.stored.block_bytes(self.units)

    @property
    def head_bytes(self) -> int:
        """From a head to the next."""
        least = ceildiv(self.ctx, BLOCK) * self.block_bytes
        return least + (_head_gap(self.memory, least) if self.memory else 0)

    @property
    def bytes(self) -> int:
        return self.heads * self.head_bytes


def _head_gap(memory: Memory, head_bytes: int) -> int:
    """Bytes behind each head. Where a row tile is wider than a block of values, several heads are read side by side: an
    odd number of banks apart they meet in a bank least. Not at the cost of more than an eighth of the cache."""
    timing = memory.timing.values
    bank = memory.channels * timing["page_bytes"] * timing["interleave"]
    gap = (bank - head_bytes) % (2 * bank)
    return gap if memory.row_tile > BLOCK and 8 * gap <= head_bytes else 0


def row_bytes(elements: int, size: int = 2) -> int:
    """Distance of rows of `elements` values: rows start at multiples of 16 bytes."""
    return ceildiv(elements * size, 16) * 16


def score_columns(ctx: int, window: int, tokens: int) -> int:
    """Columns of the scores of `tokens` tokens at most. A row sees `window` positions (0: all); blocks of 32 that none
    of the tokens sees are left out in front."""
    return min(ctx, window + tokens + BLOCK - 2) if window else ctx


def attention_tile(board: Board, group: int, dim: int, tokens: int) -> int:
    """Tokens whose scores are computed at once: their queries, `group` heads of `dim`, fit the activation buffer, and
    their outputs the accumulators. Zero if those of one token do not fit."""
    elements = group * ceildiv(dim, BLOCK) * BLOCK
    return min(MAX_TOKEN_TILE, tokens, board.activation_elements // elements, board.accumulators // elements)
