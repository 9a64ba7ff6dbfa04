"""A memory channel's timing on random traffic (clib/test/timing.cpp) under sanitizers: what is foretold comes, and
short ways change nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROUNDS = 100


def test_random_traffic(repository: Path, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    clib, program = repository / "clib", tmp_path / "timing"
    sources = [clib / "test/timing.cpp", *sorted((clib / "src/timing").glob("*.cpp"))]
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-fsanitize=address,undefined",
               "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS", f"-I{clib / 'src'}", f"-I{clib / 'include'}",
               *map(str, sources), "-o", str(program)]  # fmt: skip
    build = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in build.stderr and "san" in build.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert build.returncode == 0, build.stderr[-4000:]
    run = subprocess.run([str(program), str(ROUNDS)], capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    words = run.stdout.split()
    seen = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert seen["beats"] > 50 * ROUNDS and seen["responses"] > 5 * ROUNDS
    assert seen["together"] > 10 * ROUNDS and seen["full"] > ROUNDS and seen["foretold"] > 10 * ROUNDS
