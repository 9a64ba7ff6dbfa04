"""The command line in this process, and the bundled model built once."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlavm import cli


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


Command = Callable[..., Outcome]


def run_command(*arguments: object) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def dlavm() -> Command:
    """`dlavm("run", path, "--json")` runs the command line and returns code, stdout and stderr."""
    return run_command


@pytest.fixture(scope="session")
def stories_py(repository: Path) -> Path:
    """The model file of the bundled model."""
    return repository / "models" / "stories.py"


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory, stories_py: Path) -> Path:
    """The bundled model built for v3 on vcu128."""
    path = tmp_path_factory.mktemp("artifacts") / "stories"
    outcome = run_command("build", stories_py, "--target", "v3", "-o", path, "--json")
    assert outcome.code == 0, outcome.err
    return path
