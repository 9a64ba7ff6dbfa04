"""Number formats: what codes mean, rounding onto a grid, grids from one format to another."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlavm.formats import FORMATS, Format, Grid, convert, format_of, quantize, substitute
from dlavm.formats.substitute import holds
from dlavm.support.errors import DlavmError

NAMES = sorted(FORMATS)


def weights(n: int = 6, k: int = 200) -> np.ndarray:
    """The same at every call, whatever ran before."""
    return np.random.default_rng(5).standard_normal((n, k)).astype(np.float32)


def test_the_table_has_every_format() -> None:
    assert len(NAMES) == 17 and format_of("int4g64z") == FORMATS["int4g64z"]
    with pytest.raises(DlavmError, match="expected one of .*'mxfp4'.*got 'int5'"):
        format_of("int5")


@pytest.mark.parametrize(("name", "dtype"), [("mxfp4", ml_dtypes.float4_e2m1fn), ("mxfp6", ml_dtypes.float6_e2m3fn)])
def test_every_code_of_a_float_element_is_its_value(name: str, dtype: type) -> None:
    element = FORMATS[name].element
    codes = np.arange(1 << element.bits, dtype=np.uint8)
    np.testing.assert_array_equal(np.ldexp(element.table, element.unit_exponent), codes.view(dtype).astype(np.float64))


def test_nan_codes_stand_for_the_largest_value() -> None:
    table = FORMATS["mxfp8"].element.table
    assert table[0x7F] == 448 * 512 == table[0x7E] and table[0xFF] == -448 * 512
    assert table[1] == 1  # the smallest subnormal is the unit


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_nearest_of_the_grid(name: str) -> None:
    w = weights()
    grid = quantize(w, FORMATS[name])
    levels = np.arange(1 << grid.format.element.bits, dtype=np.uint8)
    for row in range(2):
        for group in range(grid.scale.shape[1]):
            here = slice(group * grid.format.group, (group + 1) * grid.format.group)
            zero = None if grid.zero is None else np.repeat(grid.zero[row : row + 1, group : group + 1], 1, axis=1)
            one = Grid(FORMATS[name], levels[:, None], np.repeat(grid.scale[row, group], len(levels))[:, None],
                       None if zero is None else np.repeat(zero, len(levels), axis=0))  # fmt: skip
            every = one.values()[:, 0].astype(np.float64)
            best = np.abs(every[:, None] - w[row, here]).min(axis=0)
            np.testing.assert_allclose(np.abs(grid.values()[row, here] - w[row, here]), best, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_on_the_grid_stays(name: str) -> None:
    w = quantize(weights(), FORMATS[name]).values()
    again = quantize(w, FORMATS[name]).values()
    worst = 0.0 if FORMATS[name].scale == "e8m0" and name != "mxint8" else np.abs(w).max() / 64
    np.testing.assert_allclose(again, w, atol=worst)


@pytest.mark.parametrize("name", NAMES)
def test_bad_values(name: str) -> None:
    with pytest.raises(DlavmError, match="weight w: expected finite values"):
        quantize(np.array([[np.nan]]), FORMATS[name], "w")
    with pytest.raises(DlavmError, match=r"weight w: .*(fit fp16|within 2\^\+-40)"):
        quantize(np.array([[3e38]]), FORMATS[name], "w")
    with pytest.raises(DlavmError, match=r"weight w: .*(does not make zero|within 2\^\+-40)"):
        quantize(np.array([[1e-20]]), FORMATS[name], "w")
    zeros = quantize(np.zeros((2, 40), np.float32), FORMATS[name])
    assert not zeros.values().any()


EXACT = [("int4g128", "int4g32"), ("int4g128", "int4g64z"), ("int4g128", "int8g128"), ("int4g64z", "int8g32"),
         ("int8g64", "int8g32z"), ("int4g32", "int4g32")]  # fmt: skip


@pytest.mark.parametrize(("name", "other"), EXACT)
def test_conversions_that_are_exact(name: str, other: str) -> None:
    grid = quantize(weights(), FORMATS[name])
    found = convert(grid, FORMATS[other])
    assert found is not None and found.format == FORMATS[other]
    np.testing.assert_array_equal(found.values(), grid.values())


REFUSED = [("int4g32", "int4g128"), ("int4g128z", "int4g128"), ("int8g128", "int4g128"), ("int4g128", "mxfp4"),
           ("mxfp4", "mxfp6"), ("mxint8", "int4g32"), ("fp8g128", "mxfp8")]  # fmt: skip


@pytest.mark.parametrize(("name", "other"), REFUSED)
def test_conversions_that_are_not(name: str, other: str) -> None:
    assert convert(quantize(weights(), FORMATS[name]), FORMATS[other]) is None


@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 300), st.integers(0, 9))
def test_a_conversion_never_changes_a_number(name: str, other: str, k: int, seed: int) -> None:
    scales = np.random.default_rng(seed).choice(np.float16([0.5, 1]), (3, FORMATS[name].groups(k)))
    grid = quantize(np.random.default_rng(seed).integers(-3, 4, (3, k)).astype(np.float32), FORMATS[name])
    if grid.scale.dtype == np.float16:
        grid = Grid(grid.format, grid.codes, scales, grid.zero)
    found = convert(grid, FORMATS[other])
    if found is not None:
        np.testing.assert_array_equal(found.values(), grid.values())


def test_rows_are_views() -> None:
    format: Format = FORMATS["int4g32z"]
    grid = quantize(weights(), format)
    some = grid.rows(2, 5)
    np.testing.assert_array_equal(some.values(), grid.values()[2:5])
    assert np.shares_memory(some.codes, grid.codes) and some.shape == (3, 200)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_a_format_that_holds_another_holds_all_of_its_grids(name: str, other: str) -> None:
    """Of any codes and zero points; `convert` is what makes it so."""
    format, rng = FORMATS[name], np.random.default_rng(1)
    codes = rng.integers(0, 1 << format.element.bits, (4, 200)).astype(np.uint8)
    shape = 4, format.groups(200)
    scale = np.full(shape, 120, np.uint8) if format.scale == "e8m0" else rng.standard_normal(shape).astype(np.float16)
    zero = rng.integers(0, 1 << format.element.bits, shape).astype(np.uint8) if format.zero else None
    grid = Grid(format, codes, scale, zero)
    converted = convert(grid, FORMATS[other])
    if holds(format, FORMATS[other]):
        assert converted is not None
    if converted is not None:
        np.testing.assert_array_equal(converted.values(), grid.values())


V1, V2 = ("int4g128", "int4g128z"), tuple(name for name in NAMES if name.startswith("int"))


@pytest.mark.parametrize(
    ("name", "available", "wanted"),
    [
        ("int4g32", V2, "int4g32"), ("int4g32", V1, "int4g128"), ("int4g64z", V1, "int4g128z"),
        ("int8g32", V1, "int4g128"), ("fp8g128", V2, "int8g128"), ("mxfp4", V2, "int8g32"), ("mxfp8", V2, "int8g32"),
        ("int4g128", ("int4g32", "int8g128", "mxfp4"), "int4g32"), ("int4g128z", ("int4g128", "int8g128"), "int8g128"),
        ("int4g64", ("int4g128", "int8g32"), "int8g32"), ("int4g32", ("mxfp4",), "mxfp4"),
    ],
)  # fmt: skip
def test_what_takes_the_place_of_a_format(name: str, available: tuple[str, ...], wanted: str) -> None:
    found = substitute(FORMATS[name], available)
    assert found is not None and found.name == wanted
    assert substitute(FORMATS[name], ()) is None


@pytest.mark.parametrize("name", ["mxfp4", "mxfp6", "mxint8"])
def test_mx_as_integers(name: str) -> None:
    """Exact as long as the powers of two are numbers of fp16."""
    grid = quantize(weights(), FORMATS[name])
    converted = convert(grid, FORMATS["int8g32"])
    assert converted is not None
    np.testing.assert_array_equal(converted.values(), grid.values())
    tiny = Grid(grid.format, grid.codes, np.full_like(grid.scale, 100))
    assert convert(tiny, FORMATS["int8g32"]) is None
