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
@pytest.mark.parametrize(("channels", "port_bytes"), [(1, 16), (2, 32), (1, 64)])
def test_other_memories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, port_bytes: int) -> None:
    """Row tiles of 8 and 32 rows; several quads a channel."""
    monkeypatch.setenv("LINEAR_MEMORY", f"{channels}x{port_bytes}")
    monkeypatch.setenv("LINEAR_COMMANDS", "4")
    compile_engine(tmp_path, channels, port_bytes)
    assert run(tmp_path) > 0
