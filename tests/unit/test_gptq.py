"""GPTQ: the triangular factor, the errors that are made good for, against the definition by least squares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.formats import FORMATS, Format, Grid, nearest, quantize, scales
from dlavm.quantize.gptq import compensate
from dlavm.quantize.hessian import Factor, Hessian
from dlavm.support.errors import DlavmError

F32 = NDArray[np.float32]


def inputs(tokens: int, k: int, seed: int = 0) -> F32:
    """Correlated: a few directions hold most of their energy."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((k, k)) * np.exp(-3 * np.arange(k) / k)[:, None]
    return (rng.standard_normal((tokens, k)) @ mix).astype(np.float32)


def hessian(x: F32) -> Hessian:
    found = Hessian(x.shape[1])
    for start in range(0, len(x), 100):
        found.add(x[start : start + 100])
    found.mirror()
    return found


def weights(n: int, k: int, seed: int = 1) -> F32:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


def error(h: NDArray[np.float64], w: F32, grid: Grid) -> float:
    d = grid.values().astype(np.float64) - w
    return float(np.sum((d @ h) * d))


def by_least_squares(h: NDArray[np.float64], w: F32, format: Format) -> NDArray[np.uint8]:
    """GPTQ as it is defined: a column is rounded, then all later columns move to where the output changes least."""
    moved, d = w.astype(np.float64), np.zeros(w.shape)
    codes = np.empty(w.shape, np.uint8)
    k = w.shape[1]
    for i in range(k):
        if i % format.group == 0:
            scale, zero = scales(moved[:, i : i + format.group].astype(np.float32), format)
        codes[:, i] = nearest(moved[:, i : i + 1].astype(np.float32), scale, zero, format)[:, 0]
        one = Grid(format, codes[:, i : i + 1], scale[:, None], None if zero is None else zero[:, None])
        d[:, i] = one.values()[:, 0] - w[:, i]
        rest = slice(i + 1, k)
        if i + 1 < k:
            shift = -np.linalg.solve(h[rest, rest], h[rest, : i + 1] @ d[:, : i + 1].T).T
            moved[:, rest] = w[:, rest] + shift
    return codes


@pytest.mark.parametrize("k", [5, 128, 300])
def test_the_factor_is_one_of_h_with_its_damping(k: int) -> None:
    found = hessian(inputs(500, k))
    h = found.h.copy()
    factor = Factor(found)
    assert factor.damping == pytest.approx(0.01 * np.diagonal(h).mean())
    v = np.triu(factor.v)
    np.testing.assert_allclose(v @ v.T, h + factor.damping * np.eye(k), rtol=1e-9, atol=1e-9 * h.max())


def test_h_is_that_of_all_inputs_and_symmetric() -> None:
    x = inputs(333, 1100)
    found = hessian(x)
    np.testing.assert_allclose(found.h, x.astype(np.float64).T @ x, rtol=1e-3, atol=1e-4 * found.h.max())
    assert np.array_equal(found.h, found.h.T) and found.tokens == 333
    np.testing.assert_allclose(found.magnitudes, np.abs(x).sum(axis=0), rtol=1e-4)


def test_both_ways_to_the_change_of_the_outputs() -> None:
    x, d = inputs(400, 200), weights(7, 200)
    found = hessian(x)
    wanted = float(np.sum(np.square(x.astype(np.float64) @ d.T)))
    assert found.energy(d) == pytest.approx(wanted, rel=1e-4)
    assert Factor(found).energy(np.ascontiguousarray(d.T)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["int4g32", "int4g32z", "mxfp4", "int8g32", "mxfp6"])
def test_codes_are_those_of_the_definition(name: str) -> None:
    """Damping is part of H there; a code on the edge between two numbers may fall to either side."""
    w, found = weights(5, 70), hessian(inputs(600, 70))
    h = found.h + 0.01 * np.diagonal(found.h).mean() * np.eye(70)
    wanted = by_least_squares(h, w, FORMATS[name])
    grid, _ = compensate(w, Factor(found), FORMATS[name])
    assert (grid.codes != wanted).mean() < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_between_the_best_of_all_roundings_and_rounding_to_nearest(seed: int) -> None:
    """All that lie within two steps of the weights, for three columns: 125 an output."""
    x, format = inputs(100, 3, seed), FORMATS["int4g128"]
    w = weights(1, 3, seed)
    found = hessian(x)
    h = found.h.copy()
    plain = quantize(w, format)
    choices = []
    for steps in itertools.product(range(-2, 3), repeat=3):
        codes = np.clip(plain.codes.astype(int) + steps, 0, 15).astype(np.uint8)
        choices.append(error(h, w, Grid(format, codes, plain.scale)))
    mine = error(h, w, compensate(w, Factor(found, damping=1e-9), format)[0])
    assert min(choices) <= mine * (1 + 1e-6)
    assert mine <= error(h, w, plain) * (1 + 1e-6) or mine <= 2 * min(choices)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_correlated_inputs_lose_less_than_by_rounding_to_nearest(name: str) -> None:
    w, found = weights(24, 200), hessian(inputs(1000, 200))
    h = found.h.copy()
    grid, told = compensate(w, Factor(found), FORMATS[name])
    assert told == pytest.approx(error(h, w, grid), rel=1e-2)
    assert error(h, w, grid) < 0.6 * error(h, w, quantize(w, FORMATS[name]))


@pytest.mark.parametrize("name", ["int4g64", "int4g32z", "fp8g128", "mxint8"])
def test_inputs_without_correlation_leave_rounding_to_nearest(name: str) -> None:
    found, w = Hessian(160), weights(9, 160)
    found.h = np.diag(np.linspace(1, 5, 160))
    grid, wanted = compensate(w, Factor(found), FORMATS[name])[0], quantize(w, FORMATS[name])
    np.testing.assert_array_equal(grid.codes, wanted.codes)
    np.testing.assert_array_equal(grid.scale, wanted.scale)


@pytest.mark.parametrize("name", ["int4g32", "int4g128z", "mxfp4"])
def test_the_order_of_activations_keeps_groups_in_place(name: str) -> None:
    """Scales are those of the weights as they are, wherever a column's turn comes, and the order pays."""
    w, found = weights(16, 200), hessian(inputs(1000, 200) * np.linspace(0.1, 4, 200, dtype=np.float32))
    h = found.h.copy()
    order = np.argsort(-np.diagonal(h), kind="stable")
    found.permute(order)
    grid, told = compensate(w, Factor(found), FORMATS[name], order=order)
    np.testing.assert_array_equal(grid.scale, quantize(w, FORMATS[name]).scale)
    assert told == pytest.approx(error(h, w, grid), rel=1e-2)
    assert told < 0.5 * error(h, w, quantize(w, FORMATS[name]))


def test_inputs_that_are_all_zero() -> None:
    w, found = weights(4, 40), hessian(np.zeros((10, 40), np.float32))
    grid, told = compensate(w, Factor(found), FORMATS["int4g32"])
    np.testing.assert_array_equal(grid.codes, quantize(w, FORMATS["int4g32"]).codes)
    assert told == 0


def test_rows_do_not_depend_on_each_other() -> None:
    w, factor = weights(30, 150), Factor(hessian(inputs(500, 150)))
    whole = compensate(w, factor, FORMATS["int4g64"])[0]
    part = compensate(w[10:20], factor, FORMATS["int4g64"])[0]
    assert (whole.codes[10:20] != part.codes).mean() < 1e-3  # sums of another shape round otherwise


def test_inputs_that_are_not_finite() -> None:
    x = inputs(10, 8)
    x[3, 3] = np.nan
    with pytest.raises(DlavmError, match="calibration, q_proj: expected finite activations"):
        Hessian(8).add(x, "q_proj")
