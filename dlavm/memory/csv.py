"""The CSV form of minimalloc: `id,lower,upper,size` and, of a solution, `offset`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlavm.memory.liveness import Interval
from dlavm.support.errors import DlavmError

COLUMNS = ["id", "lower", "upper", "size"]


def read_csv(path: Path) -> tuple[list[Interval], dict[str, int]]:
    """Intervals and offsets (empty where the file has none). Raises DlavmError with the line of what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DlavmError(f"{path}: expected a CSV file, got {type(error).__name__}: {error}") from None
    return parse_csv(text, str(path))


def parse_csv(text: str, name: str = "CSV") -> tuple[list[Interval], dict[str, int]]:
    """As `read_csv`, of a text; columns in any order, spaces around values ignored."""
    rows = csv.reader(io.StringIO(text))
    header = [cell.strip() for cell in next(rows, [])]
    if not set(COLUMNS) <= set(header) or len(set(header)) != len(header) or set(header) - {*COLUMNS, "offset"}:
        raise DlavmError(f"{name}: line 1: expected the columns {','.join(COLUMNS)}[,offset], got {','.join(header)!r}")
    intervals: list[Interval] = []
    offsets: dict[str, int] = {}
    seen: set[str] = set()
    for row in rows:
        if not row:
            continue
        where = f"{name}: line {rows.line_num}"
        if len(row) != len(header):
            raise DlavmError(f"{where}: expected {len(header)} values, got {len(row)!r}")
        cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
        label = cells["id"]
        if not label or label in seen:
            raise DlavmError(f"{where}: id expected a name that is free, got {label!r}")
        seen.add(label)
        lower, upper, size = (_number(cells[column], column, where) for column in COLUMNS[1:])
        if lower >= upper:
            raise DlavmError(f"{where}: expected lower < upper, got {lower!r} and {upper!r}")
        intervals.append(Interval(label, lower, upper, size))
        if "offset" in cells:
            offsets[label] = _number(cells["offset"], "offset", where)
    return intervals, offsets


def to_csv(intervals: Sequence[Interval], offsets: Mapping[str, int] | None = None) -> str:
    """The text, with an offset column where offsets are given."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS + (["offset"] if offsets is not None else []))
    for i in intervals:
        writer.writerow([i.name, i.lower, i.upper, i.size] + ([offsets[i.name]] if offsets is not None else []))
    return out.getvalue()


def _number(text: str, column: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise DlavmError(f"{where}: {column} expected a number of at least 0, got {text!r}")
    return int(text)
