"""Formats under a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dlavm.formats import FORMATS
from dlavm.quantize.budget import Candidate, candidates, choose, stored_bits
from dlavm.support.errors import DlavmError


@pytest.mark.parametrize(
    ("name", "bits"),
    [("int4g128", 4.125), ("int4g32z", 4.75), ("int8g64", 8.25), ("mxfp4", 4.25), ("mxfp6", 6.25), ("fp8g128", 8.125)],
)
def test_bits_of_whole_groups(name: str, bits: float) -> None:
    assert stored_bits(FORMATS[name], 16, 256) / (16 * 256) == bits


def test_a_short_group_has_a_scale_too() -> None:
    assert stored_bits(FORMATS["int4g128"], 2, 130) == 2 * (130 * 4 + 2 * 16)


def unit(*points: tuple[float, float]) -> list[Candidate]:
    return [Candidate(f"f{i}", bits, error) for i, (bits, error) in enumerate(points)]


def test_the_step_that_saves_most_error_a_bit_comes_first() -> None:
    units = [unit((4, 10), (8, 1)), unit((4, 3), (8, 0)), unit((8, 20), (16, 10))]
    assert [c.bits for c in choose(units, 20)] == [8, 4, 8]
    assert [c.bits for c in choose(units, 28)] == [8, 4, 16]
    assert [c.bits for c in choose(units, 100)] == [8, 8, 16]


def test_formats_that_others_beat_are_never_taken() -> None:
    units = [unit((4, 10), (5, 11), (6, 9.9), (8, 1), (9, 1))]
    assert {choose(units, bits)[0].bits for bits in range(4, 12)} == {4, 8}


def test_never_above_the_budget_and_near_the_best_of_all_choices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        units = [unit(*zip(np.sort(rng.integers(4, 30, 3)), -np.sort(-rng.random(3)), strict=True)) for _ in range(5)]
        least = sum(u[0].bits for u in units)
        budget = least + int(rng.integers(0, 40))
        found = choose(units, budget)
        assert sum(c.bits for c in found) <= budget
        possible = [p for p in itertools.product(*units) if sum(c.bits for c in p) <= budget]
        best = min(sum(c.error for c in p) for p in possible)
        largest_step = max(u[0].error for u in units)
        assert best - 1e-9 <= sum(c.error for c in found) <= best + largest_step  # at most one step is missing


def test_a_budget_that_nothing_fits() -> None:
    with pytest.raises(DlavmError, match="expected at least 8 bits, what the smallest formats take, got 7"):
        choose([unit((4, 1)), unit((4, 1))], 7)


def test_candidates_of_a_unit_count_all_its_matrices() -> None:
    formats = [FORMATS["int4g128"], FORMATS["int8g128"]]
    found = candidates({"int4g128": 2.0, "int8g128": 1.0}, formats, [(4, 128), (8, 128)])
    assert [(c.format, c.bits, c.error) for c in found] == [("int4g128", 12 * 528, 2.0), ("int8g128", 12 * 1040, 1.0)]
