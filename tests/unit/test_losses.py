"""What is said of tensors that came quantised: how they were taken, and what that changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlavm.formats import FORMATS, Grid, quantize
from dlavm.pack.losses import Loss, summary
from dlavm.pack.sources import Quantised, Tensor
from dlavm.verbs.build import kept

RNG = np.random.default_rng(2)
W = RNG.standard_normal((24, 256)).astype(np.float32)


def tensor(name: str, values: Any, grid: Grid | None = None, note: str = "") -> Tensor:
    def rows(part: slice) -> Grid | None:
        return None if grid is None else grid.rows(*part.indices(len(grid.codes))[:2])

    return Tensor(name, values.shape, lambda part: values[part], rows, note)


def losses(target: str, *parts: Tensor) -> list[Loss]:
    found: list[Loss] = []
    source = Quantised(parts, FORMATS[target], found.append)
    total = sum(part.shape[0] for part in parts)
    for start in range(0, total, 7):
        source.rows(start, min(start + 7, total))
    assert not found  # a tensor is told of when all of it is read
    source.finish()
    return found


def relative(values: Any, wanted: Any) -> float:
    return float(np.sqrt(((values - wanted).astype(np.float64) ** 2).sum() / (wanted.astype(np.float64) ** 2).sum()))


def test_floats_are_not_told_of() -> None:
    assert losses("int4g128", tensor("w", W)) == []


def test_exact_and_converted() -> None:
    grid = quantize(W, FORMATS["int4g64"])
    values = grid.values()
    assert losses("int4g64", tensor("w", values, grid)) == [Loss("w", "int4g64", "int4g64", "exact")]
    assert losses("int8g32z", tensor("w", values, grid)) == [Loss("w", "int4g64", "int8g32z", "converted")]


def test_requantised_is_measured() -> None:
    grid = quantize(W, FORMATS["int8g32"])
    (loss,) = losses("int4g128", tensor("w", grid.values(), grid))
    (row,) = summary([loss])
    wanted = relative(quantize(grid.values(), FORMATS["int4g128"]).values(), grid.values())
    assert (loss.source, loss.how) == ("int8g32", "requantised") and row["relative_rms"] == pytest.approx(
        wanted, rel=1e-6
    )
    (loss,) = losses("int4g128", tensor("w", W, note="Q4_K: why"))
    wanted = relative(quantize(W, FORMATS["int4g128"]).values(), W)
    assert loss.source == "Q4_K: why" and summary([loss])[0]["relative_rms"] == pytest.approx(wanted, rel=1e-6)


def test_rounded_scales_are_measured() -> None:
    grid = quantize(W, FORMATS["fp8g128"])
    own = grid.values() * np.float32(1.0003)
    (loss,) = losses("fp8g128", tensor("w", own, grid, note="scales rounded"))
    assert loss.how == "rounded" and summary([loss])[0]["relative_rms"] == pytest.approx(0.0003, rel=0.01)


def test_tensors_that_stand_one_below_the_other() -> None:
    first, second = quantize(W[:10], FORMATS["int4g128"]), quantize(W[10:], FORMATS["int8g128"])
    parts = tensor("a", first.values(), first), tensor("b", second.values(), second), tensor("c", W)
    assert [(loss.name, loss.how) for loss in losses("int4g128", *parts)] == [("a", "exact"), ("b", "requantised")]


def test_rows_of_a_summary() -> None:
    told = [Loss("a", "int8g32", "int4g128", "requantised", 1.0, 100.0), Loss("b", "int4g128", "int4g128", "exact"),
            Loss("c", "int8g32", "int4g128", "requantised", 3.0, 300.0)]  # fmt: skip
    rows = summary(told)
    assert rows == [
        {"from": "int4g128", "to": "int4g128", "how": "exact", "tensors": 1, "relative_rms": 0.0},
        {"from": "int8g32", "to": "int4g128", "how": "requantised", "tensors": 2, "relative_rms": 0.1},
    ]
    assert [kept(row) for row in rows] == [
        "1 tensor taken exactly, int4g128",
        "2 tensors requantised to int4g128 with a relative RMS error of 10 % (int8g32)",
    ]
    converted = summary([Loss("a", "mxfp4", "int8g32", "converted")])[0]
    assert kept(converted) == "1 tensor taken exactly, mxfp4 as int8g32"
    assert summary([Loss("z", "int8g32", "int4g128", "requantised")])[0]["relative_rms"] == 0.0
