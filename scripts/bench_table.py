"""The page that scripts/benchmark.py writes: medians, ratios, Markdown tables, and the place of a block in a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

BEGIN, END = "<!-- begin benchmark: {} -->", "<!-- end benchmark: {} -->"


def number(value: float) -> str:
    """About three digits, never an exponent: 0.0512, 1.23, 45.6, 789, 12,346."""
    for limit, digits in ((0.1, 4), (1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def spread(values: Sequence[float]) -> str:
    """`median (least to largest)`, or the value alone where there is one. Raises ValueError where there is none."""
    if not values:
        raise ValueError("spread: expected at least one value, got none")
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """values / others, round by round: what disturbs a whole round cancels out. Raises ValueError for two lengths."""
    return [a / b for a, b in zip(values, others, strict=True)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers. Raises ValueError for a row of odd length."""
    lines = [_line(head), "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"table: expected rows of {len(head)} cells, got {row!r}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Sequence[object]) -> str:
    """Bars inside a cell would end it, line breaks the table."""
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def replace_block(page: str, name: str, block: str) -> str:
    """The page with `block` between the two markers of that name. Raises ValueError unless each stands there once."""
    begin, end = BEGIN.format(name), END.format(name)
    for marker in (begin, end):
        if page.count(marker) != 1:
            raise ValueError(f"page: expected the line {marker!r} once, got it {page.count(marker)} times")
    before, rest = page.split(begin)
    if end not in rest:
        raise ValueError(f"page: expected {end!r} after {begin!r}, got it before")
    return f"{before}{begin}\n\n{block.strip()}\n\n{end}{rest.split(end)[1]}"
