"""The matrix engine on Verilator: whole LINEAR commands, at several widths of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.rtl import build

TOP = "matrix_engine"
# Channels x bytes of a beat x beat rows that come at once x units of a beat of the other clients x lanes that share
# what wide formats need.
NANO = "2x16x1x2x1"
SIZES = [
    NANO,
    pytest.param("1x16x1x1x1", marks=pytest.mark.slow),  # the least that there is: row tiles of 8 rows
    pytest.param("4x16x1x4x2", marks=pytest.mark.slow),  # row tiles of 32 rows
    pytest.param("4x32x1x8x1", marks=pytest.mark.slow),  # of 64: a unit of two blocks of the cache
    pytest.param("4x16x2x4x1", marks=pytest.mark.slow),  # two beats a cycle: a slice
    pytest.param("4x32x2x4x2", marks=pytest.mark.slow),  # the same with two blocks of the cache in a unit
]


@pytest.mark.parametrize("size", SIZES)
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    reason = build.missing_tools()
    if reason is not None:
        pytest.skip(reason)
    channels, port_bytes, beat_rows, units, share = (int(x) for x in size.split("x"))
    parameters = {"UNITS": units, "WEIGHT_UNITS": channels * port_bytes * beat_rows // 16, "PORT_BYTES": port_bytes,
                  "HALVES": 2 // beat_rows, "SHARE": share}
    if parameters["WEIGHT_UNITS"] > units:  # as in dlavm/target/sizes.py: the epilogue is slower than the lanes
        parameters["RESULT_BLOCKS"] = 16
    build.build_bench(TOP, [build.module_path(TOP)], tmp_path, parameters)
    monkeypatch.setenv("LINEAR_MEMORY", size)
    assert build.run_bench(TOP, "tests.rtl.bench_linear", tmp_path) > 0
