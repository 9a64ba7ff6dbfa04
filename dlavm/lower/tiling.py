"""How a linear is cut into commands: the cheapest way by what a board can move and multiply.

A command takes rows into the activation buffer and streams weights past them, so there are two ways of reuse:

* activations stationary: whole rows of some tokens; each row is fetched once, the weights once a token tile.
* weights stationary: tiles along K, so that more tokens share a fetch of the weights; sums wait in the accumulators,
  and rows are fetched again for each block of outputs whose sums fit there.

The core has one set of accumulators and no way to spill them, so K is always the innermost loop. A command fetches its
operands itself: in which order tokens and outputs go around it does not change what is moved.

Activations count in the memory that the target prefers for them: where they will lie is not known yet.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlavm.formats import BLOCK
from dlavm.support.errors import DlavmError
from dlavm.sym import align
from dlavm.target.layout import PackedWeights, ceildiv
from dlavm.target.sizes import matrix_lanes
from dlavm.target.spec import Memory, TargetSpec

COMMAND_CYCLES = 65  # 25 to fetch a command and 40 for the pipeline behind its last weight (doc/budget.md)
TOKENS_PER_MULTIPLIER = 2  # share a weight on its way through the lanes (doc/hardware.md)
HALF = 2  # bytes of an fp16


@dataclass(frozen=True)
class Tiling:
    """Tokens, outputs and contraction length of one LINEAR; `n` and `k` are the whole matrix unless K is tiled."""

    tokens: int
    n: int
    k: int


@dataclass(frozen=True)
class Cost:
    """Of a linear over some tokens, in core cycles. `bound`: what it waits for: a memory by name, or the lanes."""

    cycles: float
    bound: str
    weight_bytes: int
    activation_bytes: int
    commands: int


@dataclass(frozen=True)
class Choice:
    """A linear over up to `tokens` tokens somewhere in the model, and the way that was chosen."""

    where: str
    packed: PackedWeights
    tokens: int
    tiling: Tiling


def choose_tiling(spec: TargetSpec, packed: PackedWeights, tokens: int) -> Tiling:
    """The way of the fewest cycles for a step of `tokens` tokens and as many steps of one; of equal ones that which
    moves less, then that with fewer commands, then the larger token tile.

    Raises DlavmError where not even one row fits the buffers in pieces.
    """
    found = list(candidates(spec, packed, tokens))
    if not found:
        what = f"[{packed.n}, {packed.k}] linear in {packed.format}"
        raise DlavmError(f"board {spec.board.name}: buffers too small for a {what}")

    def rank(tiling: Tiling) -> tuple[float, int, int, int]:
        step, single = (cost(spec, packed, tiling, count) for count in (tokens, 1))
        return (step.cycles + tokens * single.cycles, step.weight_bytes + step.activation_bytes, step.commands,
                -tiling.tokens)  # fmt: skip

    return min(found, key=rank)


def candidates(spec: TargetSpec, packed: PackedWeights, tokens: int) -> Iterator[Tiling]:
    """For each token tile whole rows if they fit, else the largest tiles along K and N that do."""
    board, row_tile, row = spec.board, packed.memory.row_tile, int(align(packed.k, BLOCK))
    for count in range(1, tokens + 1):
        k = board.activation_elements // count // packed.section_k * packed.section_k
        n = min(packed.n, board.accumulators // count // row_tile * row_tile)
        if count * row <= board.activation_elements:
            yield Tiling(count, packed.n, packed.k)
        elif k and n:
            yield Tiling(count, n, k)


def is_legal(spec: TargetSpec, packed: PackedWeights, tiling: Tiling) -> bool:
    """Whether the buffers hold the tiles, which begin with sections and row tiles."""
    board, tiled = spec.board, tiling.k < packed.k
    aligned = tiling.k == packed.k or tiling.k % packed.section_k == 0
    aligned &= tiling.n == packed.n or tiling.n % packed.memory.row_tile == 0
    fits = tiling.tokens * int(align(tiling.k, BLOCK)) <= board.activation_elements
    return aligned and fits and (not tiled or tiling.tokens * tiling.n <= board.accumulators)


def cost(spec: TargetSpec, packed: PackedWeights, tiling: Tiling, tokens: int) -> Cost:
    """What `tokens` rows cost. Memories and lanes work at the same time; commands follow each other."""
    fetches, blocks = ceildiv(tokens, tiling.tokens), ceildiv(packed.n, tiling.n)
    commands = fetches * blocks * ceildiv(packed.k, tiling.k)
    weights = fetches * packed.bytes
    activations = HALF * tokens * (blocks * packed.k + packed.n)
    whole, rest = divmod(tokens, tiling.tokens)
    products = (whole * _paired(tiling.tokens) + _paired(rest)) * packed.tiles * packed.memory.row_tile
    waits = {"lanes": products * packed.blocks * BLOCK / matrix_lanes(spec)}
    for memory, count in ((packed.memory, weights), (spec.space("activations"), activations)):
        waits[memory.name] = waits.get(memory.name, 0) + _cycles(spec, memory, count)
    bound = max(waits, key=lambda name: waits[name])
    return Cost(waits[bound] + commands * COMMAND_CYCLES, bound, weights, activations, commands)


def _paired(tokens: int) -> int:
    return ceildiv(tokens, TOKENS_PER_MULTIPLIER) * TOKENS_PER_MULTIPLIER


def _cycles(spec: TargetSpec, memory: Memory, count: int) -> float:
    return count / memory.bytes_s * spec.board.clock_mhz * 1e6
