"""The matrix engine on Verilator: whole LINEAR commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.rtl import build

TOP = "matrix_engine"


def run(build_dir: Path) -> int:
    return build.run_bench(TOP, "tests.rtl.bench_linear", build_dir)


def compile_engine(build_dir: Path, channels: int, port_bytes: int) -> None:
    reason = build.missing_tools()
    if reason is not None:
        pytest.skip(reason)
    parameters = {"UNITS": channels * port_bytes // 16, "PORT_BYTES": port_bytes}
    build.build_bench(TOP, [build.module_path(TOP)], build_dir, parameters)


def test_nano(tmp_path: Path) -> None:
    compile_engine(tmp_path, 2, 16)
    assert run(tmp_path) > 0


@pytest.mark.slow
def test_one_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats of 16 bytes, row tiles of 8 rows: the least that there is."""
    monkeypatch.setenv("LINEAR_MEMORY", "1x16")
    compile_engine(tmp_path, 1, 16)
    assert run(tmp_path) > 0
