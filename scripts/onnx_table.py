"""Writes the table of operators in doc/onnx.md from the importer's own tables: `python scripts/onnx_table.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx.defs
from bench_table import replace_block, table

from dlavm.frontend.onnx_import import decoder  # noqa: F401 - fills the table of handlers
from dlavm.frontend.onnx_import.load import NEWEST, OLDEST
from dlavm.frontend.onnx_import.meaning import CONTRIB, MEANINGS
from dlavm.frontend.onnx_import.trace import HANDLERS

PAGE = Path(__file__).resolve().parents[1] / "doc" / "onnx.md"
CONTROL = (("", "Constant"), ("", "If"))


def versions(domain: str, op: str) -> str:
    """The opsets from the oldest that is read on in which the operator's definition changed."""
    if domain == CONTRIB:
        return "1"
    schemas = onnx.defs.get_all_schemas_with_history()
    every = sorted(s.since_version for s in schemas if (s.domain, s.name) == (domain, op))
    before = [v for v in every if v <= OLDEST][-1:]
    return ", ".join(str(max(v, OLDEST)) for v in [*before, *(v for v in every if v > OLDEST)])


def rows() -> list[tuple[str, str, str, str]]:
    """Operator, domain, opsets, how it may stand between ids and logits."""
    found = []
    for domain, op in sorted({*MEANINGS, *CONTROL}, key=lambda x: (x[0], x[1])):
        meaning = MEANINGS.get((domain, op))
        moves = meaning is not None and meaning.moves == "first"
        used = "yes" if (domain, op) in HANDLERS or moves or (domain, op) in CONTROL else "no"
        used = "in an activation" if HANDLERS.get((domain, op)) is HANDLERS["", "Erf"] else used
        found.append((op, domain or "ai.onnx", versions(domain, op), used))
    return found


def render(page: str) -> str:
    """The page with the table as it is now."""
    head = ("operator", "domain", "opsets", "on values of the tokens")
    block = f"Opsets {OLDEST} to {NEWEST} of ai.onnx.\n\n{table(head, rows())}"
    return replace_block(page, "onnx operators", block)


def main() -> int:
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
