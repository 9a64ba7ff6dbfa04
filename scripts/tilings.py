"""How large linears are cut on boards: the table of doc/architecture.md, "Tiling".

python scripts/tilings.py

Beside the chosen way stands the plain one: as many whole rows as the activation buffer holds; where it does not hold
one, a token at a time in the largest tiles.
"""

from __future__ import annotations

import sys

from dlavm.formats import FORMATS
from dlavm.lower.tiling import Tiling, candidates, choose_tiling, cost
from dlavm.target import TargetSpec, load_target
from dlavm.target.layout import PackedWeights

TOKENS = 128
CASES = [
    ("vcu128", "Llama-2-7B gate", 11008, 4096, "int4g128"),
    ("vcu128", "Llama-2-7B down", 4096, 11008, "int4g128"),
    ("vcu128", "Qwen2-72B gate", 29568, 8192, "int4g128"),
    ("vcu128", "Qwen2-72B down", 8192, 29568, "int4g128"),
    ("kv260", "Llama-2-7B gate", 11008, 4096, "int4g128"),
    ("kv260", "Llama-2-7B down", 4096, 11008, "int4g128"),
    ("kv260", "Qwen2-72B down", 8192, 29568, "int4g128"),
    ("kv260", "Qwen2-72B down", 8192, 29568, "int8g128"),
    ("nano", "Llama-2-7B gate", 11008, 4096, "int4g128"),
    ("nano", "Llama-2-7B down", 4096, 11008, "int4g128"),
    ("nano", "Qwen2-72B down", 8192, 29568, "int4g128"),
]
WAY = ["k cycles", "MiB read"]
HEAD = ["board, linear", "plain: tokens x k", *WAY, "chosen: tokens x k", *WAY, "waits for"]


def plain(spec: TargetSpec, packed: PackedWeights) -> Tiling:
    """As many whole rows as fit; else one row in tiles."""
    fitting = list(candidates(spec, packed, TOKENS))
    return next((t for t in reversed(fitting) if t.k == packed.k), fitting[0])


def cells(spec: TargetSpec, packed: PackedWeights, tiling: Tiling) -> list[str]:
    said = cost(spec, packed, tiling, TOKENS)
    read = said.weight_bytes + said.activation_bytes - 2 * TOKENS * packed.n
    return [f"{tiling.tokens} x {tiling.k}", f"{said.cycles / 1000:,.1f}", f"{read / 2**20:,.1f}"]


def report() -> str:
    """The table, in Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 2) + "|---|"]
    for board, name, n, k, form in CASES:
        spec = load_target("v3", board)
        packed = PackedWeights(spec.space("weights"), n, k, FORMATS[form])
        chosen = choose_tiling(spec, packed, TOKENS)
        ways = [cell for way in (plain(spec, packed), chosen) for cell in cells(spec, packed, way)]
        row = [f"{board}, {name} {n}x{k} {form}", *ways, cost(spec, packed, chosen, TOKENS).bound]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
