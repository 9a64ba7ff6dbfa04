"""The C++ library under address and undefined-behaviour sanitizers: random and malformed input finds nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROUNDS = 1500


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_stress_finds_nothing(repository: Path, tmp_path: Path) -> None:
    ninja = shutil.which("ninja")
    configure = ["cmake", "-S", str(repository / "clib"), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=None",
                 "-DDLAVM_SANITIZE=address,undefined", "-DDLAVM_OPTIMIZE=-O1", "-DDLAVM_TESTS=ON"]
    subprocess.run(configure + (["-G", "Ninja"] if ninja else []), check=True, capture_output=True)
    build = subprocess.run(["cmake", "--build", str(tmp_path), "-j", "2"], capture_output=True, text=True)
    if "cannot find" in build.stderr + build.stdout and "asan" in build.stderr + build.stdout:
        pytest.skip("the compiler has no sanitizer libraries")
    assert build.returncode == 0, build.stdout[-4000:] + build.stderr[-4000:]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    run = subprocess.run([str(tmp_path / "dlavm_stress"), str(ROUNDS)], capture_output=True, text=True, timeout=100,
                         env=environment)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    seen = {name: int(count) for name, count in (line.split() for line in run.stdout.splitlines())}
    reached = {name for name, count in seen.items() if count}
    # The input is worth something only if it gets through as well as being refused for every reason.
    assert reached == set(seen) - {"bus"}
