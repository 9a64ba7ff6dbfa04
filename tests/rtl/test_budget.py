"""The cycle budget: its figures are those of doc/budget.md, and the model behind them behaves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def budget() -> ModuleType:
    spec = importlib.util.spec_from_file_location("budget", ROOT / "scripts" / "budget.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["budget"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_figures(budget: ModuleType) -> None:
    page = (ROOT / "doc" / "budget.md").read_text()
    for title, text in budget.report().items():
        assert text in page, f"{title}: doc/budget.md is stale, run scripts/budget.py"


def test_without_losses_a_step_takes_the_useful_bytes(budget: ModuleType) -> None:
    stream = budget.Stream("one", 2048.0 * 1000, 2048.0 * 1000, 1000.0)
    overhead = budget.STORES / 7 * budget.TURNAROUND
    assert budget.run([stream] * 3, refresh=0.0, buffer=0) == pytest.approx(3 * (1000 + overhead))


def test_a_buffer_hides_a_gap_only_if_the_engine_is_faster_than_memory(budget: ModuleType) -> None:
    streams = [budget.Stream("one", 2048.0 * 4000, 2048.0 * 4000, 4000.0, gap=100.0)] * 4
    bare = budget.run(streams, refresh=0.1, buffer=0)
    assert bare - budget.run(streams, refresh=0.1, buffer=1 << 20) == pytest.approx(4 * 100)
    assert budget.run(streams, refresh=0.0, buffer=1 << 20) >= 4 * (4000 + 100)


def test_llama_7b_weights(budget: ModuleType) -> None:
    streams = budget.decode_streams(1024)
    weights = sum(s.useful_bytes for s in streams if s.name not in ("keys", "values")) / budget.WEIGHT_BYTES
    assert weights == 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
