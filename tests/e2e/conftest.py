"""The command line in this process, and the bundled model built once."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlavm import cli
from tests.e2e.server_tools import Server, build_host


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


@pytest.fixture(scope="session")
def server_program(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server of the bundled model, built once for all the workers of a run."""
    return built_server(stories, tmp_path_factory, "server-build")


def built_server(artifact: Path, tmp_path_factory: pytest.TempPathFactory, folder: str) -> Path:
    """The server of an artifact, in a folder of all the workers of a run."""
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("needs cmake, g++")
    base = tmp_path_factory.getbasetemp()
    build = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / folder
    build.mkdir(exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (build / "server").is_file():
            build_host(artifact / "host", build, "server")
    return build / "server"


@pytest.fixture
def start(server_program: Path, stories: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`start("--conversations", 2)` is a running server with these options."""
    with contextlib.ExitStack() as stack:
        count = itertools.count()

        def run(*options: object, descriptors: int | None = None) -> Server:
            log = tmp_path / f"log{next(count)}"
            return stack.enter_context(Server(server_program, stories, log, options, descriptors))

        yield run
