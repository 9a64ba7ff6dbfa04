"""The table of families in the README is that of the tests' registry."""

from __future__ import annotations

from pathlib import Path

from dlavm.frontend.families import FAMILIES
from tests.e2e.families import CASES, table


def test_the_readme_has_the_table(repository: Path) -> None:
    page = (repository / "README.md").read_text(encoding="utf-8")
    assert f"\n{table()}\n<!-- end families -->" in page, "run `make gen`"


def test_every_family_has_a_case() -> None:
    assert {case.model_type for case in CASES} == FAMILIES.keys()
    assert len({case.name for case in CASES}) == len(CASES)
