"""What surrounds the engines, on Verilator: one build and one cocotb run a bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dlavm.rtl import build

TB = Path(__file__).parent / "tb"
reason = build.missing_tools()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))


def bench(name: str, directory: Path, parameters: Mapping[str, int]) -> int:
    top = f"{name}_bench"
    build.build_bench(top, [TB / f"{top}.sv"], directory, parameters)
    return build.run_bench(top, f"tests.rtl.bench_{name}", directory)


@pytest.mark.parametrize("name", ["control", "memory", "store"])
def test_bench(name: str, tmp_path: Path) -> None:
    assert bench(name, tmp_path, {}) > 0


def test_bench_of_registers_that_launch(tmp_path: Path) -> None:
    build.build_bench("control_bench", [TB / "control_bench.sv"], tmp_path, {"HEADER_WORDS": 0, "SCALARS": 0})
    assert build.run_bench("control_bench", "tests.rtl.bench_launch", tmp_path) > 0


@pytest.mark.parametrize("size", [pytest.param("4x32", id="two beat rows"), pytest.param("16x64", id="wide")])
def test_memory_of_wide_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    """Rows of several beat rows of a space, beats of AXI of several stripes, clients whose beats are smaller."""
    monkeypatch.setenv("MEMORY_ROW", size)
    row_units, port_bytes = (int(x) for x in size.split("x"))
    assert bench("memory", tmp_path, {"ROW_UNITS": row_units, "PORT_BYTES": port_bytes}) > 0
