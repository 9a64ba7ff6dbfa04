"""How wide the parts of the core are on a board (doc/hardware.md, "Boards").

A row of the memory fabric is what the weights' memory brings in a cycle of the core: a beat row, or two where its ports
run at twice the core's clock. All AXI ports of a core have the width that those of the weights then have; the board's
wrapper converts clocks and, for other memories, widths.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlavm.formats import BLOCK
from dlavm.support.errors import DlavmError
from dlavm.target.spec import ADDRESS_UNIT, Board, Memory, TargetSpec

HALF = 2  # bytes of an fp16
BLOCK_UNITS = 4  # 16 bytes each, of 32 fp16
MOST_WIDE_QUADS = 32  # above, the lanes of a matrix_quad share what formats of more than 4 bits need (doc/hardware.md)
QUAD_LANES = 64  # of a matrix_quad; there is one for each unit of a row
LEAST_WEIGHT_ROWS = 64  # of the fabric in the weights' buffer: what is on its way from memory
MOST_ROWS = 4096  # of a LINEAR, on a board whose accumulators do not hold a row tile of as many as the buffer does
LEAST_RESULT_BLOCKS = 4  # pairs of tokens; more make no difference where the epilogue is as fast as the lanes
MOST_RESULT_BLOCKS = 64  # the 128 tokens of a chunk of a prompt
ROW_ELEMENTS = 4096  # of src, as hidden sizes go: what decides how many tokens a board works on at once


@dataclass(frozen=True)
class Sizes:
    """Parameters of dlavm_core that follow from a board. Units have 16 bytes."""

    port_bytes: int
    halves: int
    row_units: int
    units: int
    lanes: int
    rows_most: int
    client_rows: int
    weight_rows: int
    share: int
    result_blocks: int


def beat_rows(memory: Memory, board: Board) -> int:
    """Beat rows that the ports of a memory move in a cycle of the core: 1 or 2."""
    return 2 if memory.port_clock_mhz >= 2 * board.clock_mhz else 1


def row_bytes(spec: TargetSpec) -> int:
    """Bytes of a row of the memory fabric."""
    weights = spec.space("weights")
    return beat_rows(weights, spec.board) * weights.beat_row


def matrix_lanes(spec: TargetSpec) -> int:
    """MACs a cycle that the core can do: as many as the weights' memory feeds with two tokens of 4-bit weights."""
    return QUAD_LANES * row_bytes(spec) // ADDRESS_UNIT


def vector_lanes(spec: TargetSpec) -> int:
    """Elements a cycle that the vector engine of the core takes: as many as the board states, but no more than a beat
    row of the weights' memory has fp16."""
    return min(spec.board.vector_lanes, spec.space("weights").beat_row // HALF)


def weight_rows(board: Board, row: int) -> int:
    """Rows of `row` bytes that the buffer of weights holds. Raises DlavmError where they are not a power of two."""
    rows = max(board.weight_prefetch // row, LEAST_WEIGHT_ROWS)
    if rows & rows - 1 or board.weight_prefetch % row:
        raise DlavmError(f"rtl: expected weight_prefetch of {board.name} to be a power of two rows of {row} bytes, got "
                         f"{board.weight_prefetch}")
    return rows


def result_blocks(board: Board, slower: bool) -> int:
    """Pairs of tokens whose results of a row tile wait for the epilogue, a power of two.

    All of them come with the tile's last products. An epilogue that is `slower` than these has the products of the next
    tile to catch up in, if there is room for the results of as many tokens as the activation buffer holds.
    """
    pairs = board.activation_elements // (2 * ROW_ELEMENTS) if slower else 0
    return 1 << min(max(pairs, LEAST_RESULT_BLOCKS), MOST_RESULT_BLOCKS).bit_length() - 1


def sizes(spec: TargetSpec) -> Sizes:
    """The core's sizes for a target on its board. Raises DlavmError where a memory does not fit the others."""
    board, weights = spec.board, spec.space("weights")
    rows, row = beat_rows(weights, board), row_bytes(spec)
    port = rows * weights.port_bytes
    for memory in board.memories.values():
        least = memory.channels * max(port, memory.port_bytes)
        if row % least or memory.base % row or memory.capacity % row:
            raise DlavmError(f"rtl: expected {memory.name} of {board.name} in rows of {row} bytes, got {least} a beat")
    # Activations, operands and results need not move as fast as weights; the vector lanes are fed from a beat.
    lanes = vector_lanes(spec)
    units = min(weights.beat_row // ADDRESS_UNIT, max(BLOCK_UNITS, HALF * lanes // ADDRESS_UNIT))
    held = 2 * board.accumulators // weights.row_tile
    return Sizes(
        port_bytes=port,
        halves=2 // rows,
        row_units=row // ADDRESS_UNIT,
        units=units,
        lanes=lanes,
        rows_most=min(board.activation_elements // BLOCK, max(held, MOST_ROWS)),
        client_rows=64 if row == units * ADDRESS_UNIT else 32,
        weight_rows=weight_rows(board, row),
        share=2 if row // ADDRESS_UNIT > MOST_WIDE_QUADS else 1,
        result_blocks=result_blocks(board, slower=row > units * ADDRESS_UNIT),  # a lane for each unit of a beat
    )
