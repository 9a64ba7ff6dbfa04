"""How linears are cut, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable

from dlavm.lower.tiling import Choice, cost
from dlavm.report.steps import group_of
from dlavm.report.text import size
from dlavm.target import TargetSpec

HEAD = ("linear", "matrix", "format", "tokens", "tile", "n", "k", "commands", "weights", "activations", "waits for",
        "times")  # fmt: skip
RIGHT = (*range(3, 10), 11)  # the columns of numbers


def tiling_rows(choices: Iterable[Choice], spec: TargetSpec) -> list[tuple[object, ...]]:
    """A row for each kind of linear: the tile, and what a step of all tokens costs; equal layers share it."""
    times: dict[tuple[object, ...], int] = {}
    for choice in choices:
        tile, matrix = choice.tiling, choice.packed
        said = cost(spec, matrix, tile, choice.tokens)
        row = (group_of(choice.where), f"{matrix.n}x{matrix.k}", matrix.format.name, choice.tokens, tile.tokens, tile.n,
               tile.k, said.commands, size(said.weight_bytes), size(said.activation_bytes), said.bound)  # fmt: skip
        times[row] = times.get(row, 0) + 1
    return [(*row, count) for row, count in times.items()]
