"""The C++ library under sanitizers: random and malformed input, and threads that stop others, find nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROUNDS = 1500
TRANSPORT_ROUNDS = 150

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")


def build(repository: Path, folder: Path, sanitizers: str, *targets: str) -> None:
    """Builds the library and test programs with `sanitizers`; skips where the compiler has none."""
    ninja = shutil.which("ninja")
    configure = ["cmake", "-S", str(repository / "clib"), "-B", str(folder), "-DCMAKE_BUILD_TYPE=None",
                 f"-DDLAVM_SANITIZE={sanitizers}", "-DDLAVM_OPTIMIZE=-O1", "-DDLAVM_TESTS=ON"]
    subprocess.run(configure + (["-G", "Ninja"] if ninja else []), check=True, capture_output=True)
    command = ["cmake", "--build", str(folder), "-j", "2", "--target", *targets]
    done = subprocess.run(command, capture_output=True, text=True)
    output = done.stdout + done.stderr
    if "cannot find" in output and ("asan" in output or "tsan" in output):
        pytest.skip("the compiler has no sanitizer libraries")
    assert done.returncode == 0, output[-8000:]


def reached(*command: object) -> dict[str, int]:
    """Runs a test program, which has to find nothing; how often it says that it reached each thing."""
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, env=environment)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    return {name.rstrip(":"): int(count) for name, count in (line.rsplit(" ", 1) for line in run.stdout.splitlines())}


def test_stress_finds_nothing(repository: Path, tmp_path: Path) -> None:
    build(repository, tmp_path, "address,undefined", "dlavm_stress", "dlavm_transport")
    seen = reached(tmp_path / "dlavm_stress", ROUNDS)
    # The input is worth something only if it gets through as well as being refused for every reason.
    assert {name for name, count in seen.items() if count} == set(seen) - {"bus"}
    check_transports(tmp_path)


@pytest.mark.slow
def test_threads_of_transports(repository: Path, tmp_path: Path) -> None:
    build(repository, tmp_path, "thread", "dlavm_transport")
    check_transports(tmp_path)


def check_transports(folder: Path) -> None:
    (folder / "card").mkdir()
    seen = reached(folder / "dlavm_transport", TRANSPORT_ROUNDS, folder / "card")
    assert set(seen) == {"accesses by tcp", "accesses by xdma", "calls against any server", "calls that failed",
                         "calls that worked", "cards that take nothing", "connections", "reads", "stops"}  # fmt: skip
    assert all(seen.values())
