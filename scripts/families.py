"""Writes the table of model families into README.md, from the registry of the tests; `--check` only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the registry is a module of the tests

from tests.e2e.families import table  # noqa: E402

BEGIN, END = "<!-- begin families, written by make gen -->", "<!-- end families -->"


def with_table(page: str) -> str:
    """The page with the table between the two markers. Raises ValueError unless each stands there once."""
    for marker in (BEGIN, END):
        if page.count(marker) != 1:
            raise ValueError(f"page: expected the line {marker!r} once, got it {page.count(marker)} times")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the table is not that of the tests")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    page = path.read_text(encoding="utf-8")
    made = with_table(page)
    if check and made != page:
        print(f"{path}: the table of families is not up to date; run `make gen`", file=sys.stderr)
        return 1
    if not check:
        path.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
