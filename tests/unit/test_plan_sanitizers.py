"""The planner on random problems (clib/test/plan.cpp) under sanitizers: plans and verdicts hold, no memory error, no
data race."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROUNDS = 300


@pytest.mark.parametrize("sanitizers", ["address,undefined", pytest.param("thread", marks=pytest.mark.slow)])
def test_random_problems(sanitizers: str, repository: Path, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    clib, program = repository / "clib", tmp_path / "plan"
    sources = [clib / "test/plan.cpp", clib / "src/abi/misuse.cpp", *sorted((clib / "src/plan").glob("*.cpp"))]
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1", "-g", f"-fsanitize={sanitizers}",
               "-fno-sanitize-recover=all", f"-I{clib / 'src'}", f"-I{clib / 'include'}", *map(str, sources),
               "-pthread", "-o", str(program)]  # fmt: skip
    build = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in build.stderr and "san" in build.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert build.returncode == 0, build.stderr[-4000:]
    run = subprocess.run([str(program), str(ROUNDS)], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    words = run.stdout.split()
    seen = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    # Plans, proofs and searches must all be among it, or the run says little.
    assert min(seen[name] for name in ("optimal", "infeasible", "searched", "found")) > ROUNDS / 4, run.stdout
    assert seen["none"] > 0, run.stdout
