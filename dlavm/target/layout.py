"""Sizes of the tensor layouts that the engines read (doc/numerics.md section 3, doc/architecture.md "Layouts")."""
from __future__ import annotations

from dataclasses import dataclass

from dlavm.target.spec import Memory

BLOCK = 32  # elements that share an exponent
GROUP = 128  # weights that share a scale
UNIT_BEATS = 8  # beats of a channel for one block of 32 k of its rows
KV_UNIT_BYTES = 2048  # 32 tokens x 32 fp16
# The scores of a token tile lie in memory, heads x tile x ctx fp16: the largest activation of a long context.
# Keys and values are fetched once a tile; beyond 32 tokens the matrix lanes, not the fetch, bound the product.
MAX_TOKEN_TILE = 32


def ceildiv(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class PackedWeights:
    """INT4 groups of 128, [n, k], packed for one memory: row tiles of (scale beat, up to 4 units) a group."""

    memory: Memory
    n: int
    k: int

    @property
    def tiles(self) -> int:
        return ceildiv(self.n, self.memory.row_tile)

    @property
    def blocks(self) -> int:
        return ceildiv(self.k, BLOCK)

    @property
    def groups(self) -> int:
        return ceildiv(self.k, GROUP)

    @property
    def tile_beats(self) -> int:
        """Beats of one channel in one tile."""
        return self.groups + UNIT_BEATS * self.blocks

    @property
    def tile_bytes(self) -> int:
        return self.tile_beats * self.memory.beat_row

    @property
    def bytes(self) -> int:
        return self.tiles * self.tile_bytes

    def k_offset(self, k: int) -> int:
        """Bytes from a tile's start to the group that holds element `k`, a multiple of 128."""
        return k // GROUP * (1 + UNIT_BEATS * GROUP // BLOCK) * self.memory.beat_row


@dataclass(frozen=True)
class KvLayout:
    """fp16 cache of `heads` heads: [head][token / 32][dim / 32][32 tokens][32 elements]."""

    heads: int
    ctx: int
    dim: int

    @property
    def block_bytes(self) -> int:
        """Between blocks of 32 tokens of one head."""
        return ceildiv(self.dim, BLOCK) * KV_UNIT_BYTES

    @property
    def head_bytes(self) -> int:
        return ceildiv(self.ctx, BLOCK) * self.block_bytes

    @property
    def bytes(self) -> int:
        return self.heads * self.head_bytes


def row_bytes(elements: int, size: int = 2) -> int:
    """Distance of rows of `elements` values: rows start at multiples of 16 bytes."""
    return ceildiv(elements * size, 16) * 16


def score_columns(ctx: int, window: int, tokens: int) -> int:
    """Columns of the scores of `tokens` tokens at most. A row sees `window` positions (0: all); blocks of 32 that none
    of the tokens sees are left out in front."""
    return min(ctx, window + tokens + BLOCK - 2) if window else ctx
