"""The matrix engine on Verilator: whole LINEAR commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.rtl import build

TOP = "matrix_engine"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = build.missing_tools()
    if reason is not None:
        pytest.skip(reason)
    build_dir = tmp_path_factory.mktemp(TOP)
    build.build_bench(TOP, [build.module_path(TOP)], build_dir)
    return build_dir


def test_commands(engine: Path) -> None:
    assert build.run_bench(TOP, "tests.rtl.bench_linear", engine) > 0
