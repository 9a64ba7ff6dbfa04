"""The block of doc/accuracy.md that scripts/accuracy.py writes: two tables and a chart a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench_table import table

from dlavm.formats import FORMATS
from dlavm.quantize.budget import stored_bits

MB = 1e6
MEASURED = ("perplexity, float32", "perplexity, simulator", "simulator against float32")
WIDTH = 48  # of the longest bar of a chart
FLOOR = 0.0001  # a loss that has no bar
COLUMNS = 4096  # of a matrix whose bits a weight are told


@dataclass(frozen=True)
class Row:
    """One build. `quantised`: perplexity in float32, of the artifact's weights and what its caches hold; `engine`: that
    of the simulator, over the same `tokens` of `documents`. `token_bytes`: read in a step of one token; `cache_bytes`:
    of a token in all caches."""

    model: str
    format: str
    kv: str
    tokens: int
    documents: int
    quantised: float
    engine: float
    weights_bytes: int
    token_bytes: int
    cache_bytes: int

    @property
    def case(self) -> tuple[str, str, str]:
        return self.model, self.format, self.kv

    @property
    def engine_difference(self) -> float:
        """Of the simulator against float32, as a part of the latter."""
        return self.engine / self.quantised - 1


def bits_of(format: str) -> float:
    """Bits a weight, scales and zero points included, the padding of layouts not."""
    return stored_bits(FORMATS[format], 1, COLUMNS) / COLUMNS


def block(floats: Mapping[str, float], rows: Sequence[Row]) -> str:
    """Everything between the markers. `floats`: perplexity of each model's own weights."""
    parts = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        plain, cached = ([row for row in own if row.kv == kv] for kv in ("fp16", "mxint8"))
        parts += [f"### {model}", about(floats[model], own), weights_table(floats[model], plain)]
        parts += [chart(floats[model], plain), cache_table({row.format: row for row in plain}, cached)]
    return "\n\n".join(parts)


def about(plain: float, rows: Sequence[Row]) -> str:
    """What was evaluated. Raises ValueError where rows are not about the same text."""
    if len({(row.tokens, row.documents) for row in rows}) != 1:
        raise ValueError("accuracy: expected rows of the same text, got several lengths")
    return (f"{rows[0].tokens:,} predicted tokens, those of the first {rows[0].documents} documents of the held-out "
            f"text. In float32 with its own weights the perplexity is **{plain:.4f}**.")  # fmt: skip


def weights_table(plain: float, rows: Sequence[Row]) -> str:
    """Formats of weights, with an fp16 cache."""
    head = ["weights", "bits a weight", "all weights, MB", "read a token, MB", *MEASURED[:1], "loss by the weights",
            *MEASURED[1:]]  # fmt: skip
    return table(head, (
        [row.format, f"{bits_of(row.format):.5g}", f"{row.weights_bytes / MB:.2f}", f"{row.token_bytes / MB:.2f}",
         f"{row.quantised:.4f}", f"{row.quantised / plain - 1:+.2%}", *engine(row)]
        for row in rows
    ))  # fmt: skip


def cache_table(plain: Mapping[str, Row], rows: Sequence[Row]) -> str:
    """An MXINT8 cache against an fp16 one, for the same weights."""
    head = ["weights, MXINT8 cache", "cached token, bytes", *MEASURED[:1], "loss by the cache", *MEASURED[1:]]
    return table(head, (
        [row.format, f"{row.cache_bytes:,} (fp16: {plain[row.format].cache_bytes:,})", f"{row.quantised:.4f}",
         f"{row.quantised / plain[row.format].quantised - 1:+.4%}", *engine(row)]
        for row in rows
    ))  # fmt: skip


def engine(row: Row) -> list[str]:
    return [f"{row.engine:.4f}", f"{row.engine_difference:+.4%}"]


def chart(plain: float, rows: Sequence[Row]) -> str:
    """Loss by bits a weight: a bar a format on a logarithmic scale, formats of few bits first."""
    losses = {row.format: row.quantised / plain - 1 for row in rows}
    ordered = sorted(losses, key=lambda name: (bits_of(name), losses[name]))
    decades = math.log10(max(max(losses.values()), 10 * FLOOR) / FLOOR)
    lines = [f"bits    format     loss of perplexity, logarithmic from {FLOOR:.2%}"]
    for name in ordered:
        filled = math.log10(max(losses[name], FLOOR) / FLOOR) / decades
        bar = "#" * round(WIDTH * filled)
        lines.append(f"{bits_of(name):<7.5g} {name:<10} {bar}{' ' if bar else ''}{losses[name]:+.2%}")
    return "```text\n" + "\n".join(lines) + "\n```"
