"""What surrounds the engines, on Verilator: one build and one cocotb run a bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.rtl import build

TB = Path(__file__).parent / "tb"
reason = build.missing_tools()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))


@pytest.mark.parametrize("name", ["control", "memory", "store"])
def test_bench(name: str, tmp_path: Path) -> None:
    top = f"{name}_bench"
    build.build_bench(top, [TB / f"{top}.sv"], tmp_path)
    assert build.run_bench(top, f"tests.rtl.bench_{name}", tmp_path) > 0


def test_bench_of_registers_that_launch(tmp_path: Path) -> None:
    build.build_bench("control_bench", [TB / "control_bench.sv"], tmp_path, {"HEADER_WORDS": 0, "SCALARS": 0})
    assert build.run_bench("control_bench", "tests.rtl.bench_launch", tmp_path) > 0
