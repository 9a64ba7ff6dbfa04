"""Fixtures for every test: the checkpoints beside the repository, golden files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests" / "golden"


# A time limit per example measures how busy the machine is, not the code.
settings.register_profile("dlavm", deadline=None)
settings.load_profile("dlavm")


def examples(count: int) -> int:
    """Examples of a property test: `count`, or more where the variable TEST_EXAMPLES says so (`make sweep`)."""
    return max(count, int(os.environ.get("TEST_EXAMPLES", "0")))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory `shared` beside the checkout, with more models; skips where it is missing."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("no directory ../shared beside the checkout")
    return path


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares `text` with tests/golden/NAME, or writes it there."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.is_file():
            pytest.fail(f"tests/golden/{name} is missing; write it with --update-golden", pytrace=False)
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), f"tests/golden/{name}", "this run", lineterm="", n=2
            )
            shown = "\n".join(list(lines)[:80])
            pytest.fail(f"differs; if that is meant, rerun with --update-golden\n{shown}", pytrace=False)

    return check
