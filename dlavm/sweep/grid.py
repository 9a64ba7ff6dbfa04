"""The points of a grid and the file of their results, of which a sweep that was stopped goes on."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from dlavm.frontend import split_shape
from dlavm.support.errors import DlavmError
from dlavm.support.kept import stamp
from dlavm.support.paths import data_root, native_library


@dataclass(frozen=True)
class Point:
    """What is timed: a model compiled for a board, at a depth of its cache. None: the board's or the model's own.
    `build`: see `build_of`."""

    model: str
    weights: str
    target: str
    board: str
    activation_elements: int | None
    accumulators: int | None
    quant: str
    kv: str
    ctx: int | None
    chunk: int | None
    depth: int
    prompt: int  # tokens of the prompt; 0: none
    build: str = ""

    def cells(self) -> dict[str, str]:
        """Its columns of the file."""
        return {name: "" if value is None else str(value) for name, value in asdict(self).items()}


KEYS = tuple(field.name for field in fields(Point))
RESULTS = ("tg_cycles", "tg_tok_s", "tg_bytes", "tg_memory_share", "tg_control_share", "tg_bound", "pp_cycles",
           "pp_tok_s", "pp_memory_share", "lacks", "seconds", "error")  # fmt: skip
COLUMNS = (*KEYS, *RESULTS)
AXES = ("board", "activation_elements", "accumulators", "quant", "kv", "chunk", "depth")

Row = dict[str, str]


def grid(fixed: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of `axes` (a name of AXES each), the last axis fastest."""
    names = [name for name in AXES if name in axes]
    return [Point(**{**fixed, **dict(zip(names, values, strict=True))})
            for values in product(*(axes[name] for name in names))]  # fmt: skip


def row_of(point: Point, results: Mapping[str, object]) -> Row:
    """The row of a point. `results`: some of RESULTS."""
    given = {name: results.get(name) for name in RESULTS}
    return {**point.cells(), **{name: _cell(value) for name, value in given.items()}}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else " ".join(str(value).split())


def build_of(model: str) -> str:
    """Another text where dlavm, its targets or the files of the model may be others: rows of those say nothing now."""
    path, package = split_shape(model)[0], Path(__file__).resolve().parent.parent
    state = [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else stamp(path)
    told = sha256(f"{path.resolve()} {state}".encode())
    for path in sorted([*package.rglob("*.py"), *(data_root() / "targets").rglob("*.yaml"), native_library()]):
        told.update(path.read_bytes())
    return told.hexdigest()[:12]


class Results:
    """The file of the rows: whole rows only, each written as soon as it is there."""

    def __init__(self, path: Path) -> None:
        """Reads what an earlier sweep left; rows with an error are left out, to be tried again, and so is a row that
        was cut off. Raises DlavmError for another file."""
        self._path = path
        self.rows = _read(path) if path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".part")
        fresh.write_text("".join(map(_line, [dict(zip(COLUMNS, COLUMNS, strict=True)), *self.rows])), encoding="utf-8")
        fresh.replace(path)
        self._known = {_key(row) for row in self.rows}

    def has(self, point: Point) -> bool:
        """Whether there is a row of the point without an error."""
        return _key(point.cells()) in self._known

    def of(self, points: Iterable[Point]) -> list[Row]:
        """The rows of these points, in their order; of a point that was tried again the last one."""
        by_key = {_key(row): row for row in self.rows}
        return [by_key[key] for point in points if (key := _key(point.cells())) in by_key]

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if not row["error"]:
            self._known.add(_key(row))
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_line(row))


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEYS)


def _line(row: Mapping[str, str]) -> str:
    """A line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([row[name] for name in COLUMNS])
    return text.getvalue()


def _read(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise DlavmError(f"{path}: expected the results of a sweep, got no text") from None
    whole = text[: text.rfind("\n") + 1]  # a last line without its end was cut off
    rows = list(csv.reader(whole.splitlines()))
    if rows and tuple(rows[0]) != COLUMNS:
        lacks = [name for name in COLUMNS if name not in rows[0]]
        raise DlavmError(f"{path}: expected the results of a sweep by this dlavm, got a file without the columns "
                         f"{', '.join(lacks[:4]) or 'in their order'}; choose another -o, or remove it")
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:] if len(row) == len(COLUMNS) and not row[-1]]


def varying(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """The axes of which there are several values."""
    kept = list(rows)
    return [name for name in AXES if len({row[name] for row in kept}) > 1]
