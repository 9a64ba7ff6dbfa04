"""The order check of the simulator against a model byte by byte (clib/test/order.cpp), under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = 500


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_verdicts_are_those_of_the_model(repository: Path, tmp_path: Path) -> None:
    ninja = shutil.which("ninja")
    configure = ["cmake", "-S", str(repository / "clib"), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=None",
                 "-DDLAVM_SANITIZE=address,undefined", "-DDLAVM_OPTIMIZE=-O1", "-DDLAVM_TESTS=ON"]
    subprocess.run(configure + (["-G", "Ninja"] if ninja else []), check=True, capture_output=True)
    build = subprocess.run(["cmake", "--build", str(tmp_path), "--target", "dlavm_order", "-j", "2"],
                           capture_output=True, text=True)
    if "cannot find" in build.stderr + build.stdout and "asan" in build.stderr + build.stdout:
        pytest.skip("the compiler has no sanitizer libraries")
    assert build.returncode == 0, build.stdout[-4000:] + build.stderr[-4000:]
    run = subprocess.run([str(tmp_path / "dlavm_order"), str(PROGRAMS)], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    words = run.stdout.split()
    # Both verdicts must be common, or the comparison says little.
    assert words[::2] == ["allowed", "refused"] and all(int(count) > 20 * PROGRAMS for count in words[1::2])
