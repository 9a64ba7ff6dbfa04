"""The service of a generated host, driven by tests/native/service_main.cpp under sanitizers."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dlavm.codegen.host import HostCache
from dlavm.describe import host_context
from dlavm.target import load_target
from tests.unit.fake_runtime import manifest
from tests.unit.test_host import CODES, hashed, write

SERVICE = ("service", "messages", "turns", "connection", "driver", "program", "bus", "files", "sampling", "net")
NATIVE = ("service_main.cpp", "fake_device.cpp")
CASES = (
    "a_state_that_is_refused", "an_unread_answer_waits", "deadlines", "device_error", "device_error_in_a_load",
    "leaving_during_a_turn", "no_wake_is_lost", "pieces", "shutdown_during_a_turn", "slow_readers", "turns_go_round",
    "when_to_ask_again",
)  # fmt: skip


@pytest.fixture(scope="session")
def program(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases, compiled once for all worker processes of a run: 64 positions in four caches of a megabyte."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "service"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "program").exists():
            build(compiler, repository, folder)
    return folder / "program"


def build(compiler: str, repository: Path, folder: Path) -> None:
    small = host_context(hashed(manifest()), load_target("v3", "nano"), CODES)
    host = write(folder, replace(small, sequences=4, caches=(HostCache(0, 2, 1 << 20, 1 << 19),)))
    command = [compiler, "-std=c++17", "-pthread", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GLIBCXX_ASSERTIONS",
               "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{host}", f"-I{host / 'include'}",
               *(str(host / f"{name}.cpp") for name in SERVICE),
               *(str(repository / "tests/native" / name) for name in NATIVE), "-o", str(folder / "program")]
    run = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in run.stderr and "asan" in run.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert run.returncode == 0, run.stderr[-4000:]


def test_every_case_is_run(program: Path) -> None:
    assert subprocess.run([program], capture_output=True, text=True).stdout.split() == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_service(case: str, program: Path) -> None:
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # processes may not be traced everywhere
    done = subprocess.run([program, case], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
