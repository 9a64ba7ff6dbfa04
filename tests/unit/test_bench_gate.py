"""The regression gate of `make bench`. Nothing here measures time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_gate.py"


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def test_counts_are_those_committed(gate: ModuleType) -> None:
    """A program that grows or needs more memory is noticed here; `make bench` writes the new figures."""
    committed, counts = gate.read(), gate.counts()
    assert counts.keys() <= committed.keys()
    worse, better = gate.changes(committed, counts)
    assert not worse
    assert not better


def test_a_count_has_no_noise_and_a_ratio_has(gate: ModuleType) -> None:
    old = {"bytes": gate.Figure(1000, "less"), "rate": gate.Figure(0.5, "more", 0.1), "gone": gate.Figure(1, "less")}
    new = {"bytes": gate.Figure(1001, "less"), "rate": gate.Figure(0.455, "more", 0.05), "new": gate.Figure(1, "less")}
    worse, better = gate.changes(old, new)
    assert worse == ["bytes: 1000 -> 1001 (+0.1%), less is better"]
    assert better == []
    assert gate.missing(old, new) == ["gone"]
    worse, better = gate.changes(old, {"bytes": gate.Figure(999, "less"), "rate": gate.Figure(0.4, "more")})
    assert worse == ["rate: 0.5 -> 0.4 (-20.0%), more is better"]
    assert better == ["bytes: 1000 -> 999 (-0.1%), less is better"]
    assert gate.changes({"zero": gate.Figure(0, "less")}, {"zero": gate.Figure(3, "less")})[0]


def test_noise_of_a_ratio_is_what_its_rounds_scatter(gate: ModuleType) -> None:
    assert gate.ratio([0.5] * 7) == gate.Figure(0.5, "more", 0.05)
    assert gate.ratio([0.4, 0.4, 0.5, 0.6, 0.6]).noise == pytest.approx(0.4)


def test_figures_round_trip(gate: ModuleType, tmp_path: Path) -> None:
    figures = {"b": gate.Figure(2.5, "more", 0.1), "a": gate.Figure(3, "less")}
    path = tmp_path / "figures.json"
    assert gate.read(path) == {}
    path.write_text(gate.text(figures))
    assert gate.read(path) == figures
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
