"""The table writer of scripts/benchmark.py. Nothing here measures time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_table", ROOT / "scripts" / "bench_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.05123, "0.0512"),
        (0.5, "0.500"),
        (1.234, "1.23"),
        (45.67, "45.7"),
        (789.4, "789"),
        (12345.6, "12,346"),
        (-3.0, "-3.00"),
    ],
)
def test_numbers_have_about_three_digits(tables: ModuleType, value: float, text: str) -> None:
    assert tables.number(value) == text


def test_spread_is_the_median_with_both_ends(tables: ModuleType) -> None:
    assert tables.spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"
    assert tables.spread([1.0, 2.0]) == "1.50 (1.00 to 2.00)"
    assert tables.spread([7.0]) == "7.00"
    with pytest.raises(ValueError, match="at least one value"):
        tables.spread([])


def test_ratios_pair_the_values_of_a_round(tables: ModuleType) -> None:
    assert tables.ratios([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        tables.ratios([1.0, 2.0], [1.0])


def test_table(tables: ModuleType) -> None:
    assert tables.table(["engine", "tok/s"], [["sim", 3], ["a|b\nc", "4 (3 to 5)"]]) == (
        "| engine | tok/s |\n|---|---:|\n| sim | 3 |\n| a\\|b c | 4 (3 to 5) |"
    )
    with pytest.raises(ValueError, match="rows of 2 cells, got"):
        tables.table(["engine", "tok/s"], [["sim"]])


def test_a_block_replaces_what_stood_there(tables: ModuleType) -> None:
    begin, end = tables.BEGIN.format("m"), tables.END.format("m")
    once = tables.replace_block(f"before\n{begin}\nold\n{end}\nafter\n", "m", "new\n")
    assert once == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    assert tables.replace_block(once, "m", "new") == once


def test_blocks_of_other_names_stay(tables: ModuleType) -> None:
    page = "".join(f"{tables.BEGIN.format(n)}\n{n}\n{tables.END.format(n)}\n" for n in ("a", "b"))
    changed = tables.replace_block(page, "b", "new")
    assert "\na\n" in changed
    assert "\nb\n" not in changed


@pytest.mark.parametrize("page", ["", "{begin}", "{end}\n{begin}", "{begin}{begin}{end}", "{begin}{end}{end}"])
def test_a_page_without_its_markers_is_refused(tables: ModuleType, page: str) -> None:
    begin, end = tables.BEGIN.format("m"), tables.END.format("m")
    with pytest.raises(ValueError, match="page: expected"):
        tables.replace_block(page.format(begin=begin, end=end), "m", "new")


def test_the_page_has_a_place_for_the_bundled_model(tables: ModuleType) -> None:
    page = (ROOT / "doc" / "benchmarks.md").read_text()
    assert "filled" in tables.replace_block(page, "stories", "filled")
