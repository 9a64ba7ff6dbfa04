"""The RTL blocks on Verilator: one build, one cocotb run a bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dlavm.rtl import build
from dlavm.support.errors import CheckFailed

TB = Path(__file__).parent / "tb"
TOP = "rtl_bench"


def built(top: str, tmp_path_factory: pytest.TempPathFactory, parameters: Mapping[str, int] | None = None) -> Path:
    """The build directory of a bench."""
    reason = build.missing_tools()
    if reason is not None:
        pytest.skip(reason)
    build_dir = tmp_path_factory.mktemp(top)
    build.build_bench(top, [TB / f"{top}.sv"], build_dir, parameters)
    return build_dir


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(TOP, tmp_path_factory)


def test_tables(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert build.run_bench("table_bench", "tests.rtl.bench_table", built("table_bench", tmp_path_factory)) > 0


@pytest.mark.parametrize("name", ["fp32", "quantizer", "matrix"])
def test_bench(bench: Path, name: str) -> None:
    assert build.run_bench(TOP, f"tests.rtl.bench_{name}", bench) > 0


@pytest.mark.parametrize(("lanes", "virtual"), [
    (8, 128), pytest.param(16, 128, marks=pytest.mark.slow), pytest.param(8, 8, marks=pytest.mark.slow)])
def test_vector_engine(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, lanes: int, virtual: int
) -> None:
    """Reductions of one row at a time, of two; of eight with one accumulator each, as 128 lanes have it."""
    directory = built("vector_bench", tmp_path_factory, {"LANES": lanes, "VIRTUAL": virtual})
    monkeypatch.setenv("RTL_VIRTUAL", str(virtual))
    assert build.run_bench("vector_bench", "tests.rtl.bench_vector", directory) > 0


@pytest.mark.slow
def test_fp32_over_millions(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTL_ROUNDS", "8")
    assert build.run_bench(TOP, "tests.rtl.bench_fp32", bench) > 0


def test_a_module_without_tests_is_a_failure(bench: Path) -> None:
    with pytest.raises(CheckFailed, match="expected all tests to pass"):
        build.run_bench(TOP, "tests.rtl.model", bench)
