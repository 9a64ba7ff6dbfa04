"""doc/numerics.md: the bound of every table over all of its inputs, and the rules at their edges."""
from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from dlavm.sim.reference import numerics as nm
from dlavm.support.errors import DlavmError
from dlavm.target.tables import ACTIVATIONS, FLT_MAX, activation_table, unit_tables

ALL_HALF = np.arange(1 << 16, dtype=np.uint16)
FINITE_HALF = ALL_HALF[(ALL_HALF & 0x7C00) != 0x7C00]
MANTISSAS = np.arange(1 << 23, dtype=np.uint32)

EXACT = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / (1 + np.exp(-math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}


# The bounds that doc/numerics.md section 10 states: over all 65,536 inputs, and relative where |f| > 2^-10.
CAPS = (0.125, 2.5, 30.0, 50.0, 1000.0)
ACT_BOUNDS = {"silu": (6.5e-5, 6.2e-3), "gelu": (5.5e-5, 5.2e-3), "gelu_tanh": (5.5e-5, 6.0e-3),
              "sigmoid": (4.0e-5, 2.0e-3), "tanh": (8.0e-5, 1.1e-4), "relu": (0.0, 0.0)}
for cap in CAPS:
    EXACT[f"softcap({cap})"] = partial(lambda c, x: c * np.tanh(x / c), cap)
    ACT_BOUNDS[f"softcap({cap})"] = (9.0e-5 * cap, 1.1e-4)


@pytest.mark.parametrize("name", sorted(ACT_BOUNDS))
def test_activation_over_all_fp16_inputs(name: str) -> None:
    x = nm.load16(FINITE_HALF)
    with np.errstate(over="ignore"):
        exact = EXACT[name](x.astype(np.float64))
    got = nm.activation(x, activation_table(name)).astype(np.float64)
    absolute, relative = ACT_BOUNDS[name]
    error = np.abs(got - exact)
    large = np.abs(exact) > 2**-10
    # where the function is as large as x, its half ulp of fp32 is not an error of the table
    slack = np.abs(exact) * 2**-23
    assert (error <= absolute + slack).all()
    assert (error[large] <= (relative + 2**-23) * np.abs(exact[large])).all()


def test_every_activation_has_a_bound() -> None:
    assert set(ACTIVATIONS) < set(ACT_BOUNDS)
    for name in ("softcap", "softcap()", "softcap(-1)", "softcap(1e3)", "Tanh"):
        with pytest.raises(DlavmError, match="activation: expected one of .* or softcap"):
            activation_table(name)


def test_special_halves_act_like_the_largest() -> None:
    special = ALL_HALF[(ALL_HALF & 0x7C00) == 0x7C00]
    x = nm.load16(special)
    assert set(x.tolist()) == {65504.0, -65504.0}
    assert (x > 0).tolist() == (special < 0x8000).tolist()
    table = activation_table("silu")
    assert nm.activation(np.array([np.float32(65504)]), table)[0] == 65504


def test_exp_over_all_codes() -> None:
    """Every fixed-point argument from 0 down to where P becomes zero."""
    q = -np.arange(40 * 65536 + 1, dtype=np.int64)
    x = (q / 65536 / math.log2(math.e)).astype(np.float32)
    got = nm.exp(x).astype(np.float64)
    exact = np.exp(x.astype(np.float64))
    relative = np.abs(got / exact - 1)
    assert relative.max() < 2.0e-6
    assert nm.exp(np.array([0.0], np.float32))[0] == 1
    assert (np.diff(got) <= 0).all()  # monotone
    assert nm.rn16(nm.exp(np.array([-1e30, -70000], np.float32))).tolist() == [0, 0]


def test_reciprocal_over_all_mantissas() -> None:
    x = (MANTISSAS | 127 << 23).view(np.float32)
    relative = np.abs(nm.reciprocal(x).astype(np.float64) * x - 1)
    assert relative.max() < 4.0e-6
    assert nm.reciprocal(np.array([1, 2, 0.25], np.float32)).tolist() == [1, 0.5, 4]


@pytest.mark.parametrize("exponent", [126, 127])
def test_rsqrt_over_all_mantissas(exponent: int) -> None:
    x = (MANTISSAS | exponent << 23).view(np.float32)
    relative = np.abs(nm.rsqrt(x).astype(np.float64) * np.sqrt(x.astype(np.float64)) - 1)
    assert relative.max() < 1.5e-6
    assert nm.rsqrt(np.array([1, 4, 0.25], np.float32)).tolist() == [1, 0.5, 2]


@pytest.mark.parametrize("function", [nm.reciprocal, nm.rsqrt])
def test_reciprocals_at_the_edges(function: object) -> None:
    tiny = np.array([1], np.uint32).view(np.float32)
    x = np.array([0, -1, tiny[0], np.finfo(np.float32).tiny, FLT_MAX], np.float32)
    y = function(x)  # type: ignore[operator]
    assert y[0] == FLT_MAX and y[1] == FLT_MAX
    assert np.isfinite(y).all() and (y > 0).all() and (np.diff(y[2:]) <= 0).all()


def test_exponent_range_of_reciprocals() -> None:
    """The exponent is exact: scaling x by 2^k scales the result, also into subnormal results."""
    x = np.float32(1.37) * np.ldexp(np.float32(1), np.arange(-126, 127)).astype(np.float32)
    base = nm.reciprocal(np.array([1.37], np.float32)).astype(np.float64)[0]
    assert (nm.reciprocal(x) == np.ldexp(base, -np.arange(-126, 127)).astype(np.float32)).all()
    base = nm.rsqrt(np.array([1.37], np.float32)).astype(np.float64)[0]
    even = np.arange(-126, 127, 2)
    assert (nm.rsqrt(x[::2]) == np.ldexp(base, -even // 2).astype(np.float32)).all()


def test_tables_fit_their_words() -> None:
    for table in unit_tables().values():
        assert table.min() >= 0 and table.max() < 1 << 24
        assert np.abs(np.diff(table)).max() < 1 << 17


def test_rn16_rounds_to_even_and_saturates() -> None:
    x = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519, 65520, 1e30, -1e30, 2**-25, 3 * 2**-26], np.float32)
    assert nm.rn16(x).tolist() == [1, 1 + 2**-9, 65504, 65504, 65504, -65504, 0, 2**-24]


def test_fp32_saturates() -> None:
    big = np.array([FLT_MAX, -FLT_MAX], np.float32)
    assert nm.add(big, big).tolist() == big.tolist()
    assert nm.mul(big, np.float32(2)).tolist() == big.tolist()
    bits = np.array([0x7F800000, 0xFF800000, 0x7FC00001, 0x3F800000], np.uint32)
    assert nm.load32(bits).tolist() == [FLT_MAX, -FLT_MAX, FLT_MAX, 1]


@pytest.mark.parametrize("bits", [8, 12])
def test_quantizer_rules(bits: int) -> None:
    limit = (1 << (bits - 1)) - 1
    x = nm.load16(FINITE_HALF)
    m, e = nm.quantize(x[:, None], bits)  # blocks of one value and 31 padding zeros
    assert np.abs(m).max() <= limit
    assert (m[:, 0, 1:] == 0).all() and (m[x == 0] == 0).all()
    value = m[:, 0, 0] * np.ldexp(1.0, e[:, 0])
    if bits == 12:
        assert (value == x).all()  # eleven significant bits are exact
    assert (np.abs(value - x) <= np.ldexp(1.0, e[:, 0])).all()
    zero_exponent = nm.quantize(np.zeros((1, 32), np.float32), bits)[1]
    assert zero_exponent[0, 0] == -24 - (bits - 2)


def test_quantizer_rounds_half_to_even_below_the_largest() -> None:
    block = np.zeros((1, 32), np.float32)
    block[0, :4] = [1024, 0.5, 1.5, 2.5]  # one unit of the block's grid is 1
    m, e = nm.quantize(block, 12)
    assert m[0, 0, :4].tolist() == [1024, 0, 2, 2] and e[0, 0] == 0


def test_lane_sum_order() -> None:
    """The order of section 4, computed term by term in plain Python."""
    x = np.random.default_rng(1).standard_normal(300).astype(np.float32)
    lanes = [np.float32(0)] * 128
    for i, v in enumerate(x):
        lanes[i % 128] = np.float32(lanes[i % 128] + v)
    step = 64
    while step:
        lanes = [np.float32(lanes[i] + lanes[i + step]) for i in range(step)]
        step //= 2
    assert nm.lane_sum(x) == lanes[0]
