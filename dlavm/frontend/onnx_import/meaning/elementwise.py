"""Operators that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.meaning.table import Array, Call, as_float, meaning

_erf_of = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    return np.asarray(_erf_of(as_float(x).astype(np.float64)), dtype=np.float64)


def sigmoid(x: Array) -> Array:
    return 0.5 * (np.tanh(0.5 * x) + 1.0)


def _round(x: Array) -> Array:
    return np.asarray(np.round(x))  # ties to even, as ONNX says


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, np.zeros_like(x))


def _gelu(c: Call, x: Array) -> Array:
    if c.attr("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _elu(c: Call, x: Array) -> Array:
    return np.where(x < 0, c.number("alpha", 1.0) * np.expm1(np.minimum(x, 0)), x)


def _selu(c: Call, x: Array) -> Array:
    alpha, gamma = c.number("alpha", 1.67326319217681884765625), c.number("gamma", 1.05070102214813232421875)
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(c: Call, x: Array) -> Array:
    alpha = c.number("alpha", 1.0)
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


# Functions of one number, computed in float64 and rounded to the operand's type.
CURVES: dict[str, Callable[[Call, Array], Array]] = {
    "Acos": lambda c, x: np.arccos(x),
    "Acosh": lambda c, x: np.arccosh(x),
    "Asin": lambda c, x: np.arcsin(x),
    "Asinh": lambda c, x: np.arcsinh(x),
    "Atan": lambda c, x: np.arctan(x),
    "Atanh": lambda c, x: np.arctanh(x),
    "Celu": _celu,
    "Cos": lambda c, x: np.cos(x),
    "Cosh": lambda c, x: np.cosh(x),
    "Elu": _elu,
    "Erf": lambda c, x: erf(x),
    "Exp": lambda c, x: np.exp(x),
    "Gelu": _gelu,
    "HardSigmoid": lambda c, x: _hard_sigmoid(x, c.number("alpha", 0.2), c.number("beta", 0.5)),
    "HardSwish": lambda c, x: x * _hard_sigmoid(x, 1 / 6, 0.5),
    "LeakyRelu": lambda c, x: np.where(x < 0, c.number("alpha", 0.01) * x, x),
    "Log": lambda c, x: np.log(x),
    "Mish": lambda c, x: x * np.tanh(_softplus(x)),
    "Reciprocal": lambda c, x: 1 / x,
    "Selu": _selu,
    "Shrink": lambda c, x: _shrink(x, c.number("bias", 0.0), c.number("lambd", 0.5)),
    "Sigmoid": lambda c, x: sigmoid(x),
    "Sin": lambda c, x: np.sin(x),
    "Sinh": lambda c, x: np.sinh(x),
    "Softplus": lambda c, x: _softplus(x),
    "Softsign": lambda c, x: x / (1 + np.abs(x)),
    "Sqrt": lambda c, x: np.sqrt(x),
    "Swish": lambda c, x: x * sigmoid(c.number("alpha", 1.0) * x),
    "Tan": lambda c, x: np.tan(x),
    "Tanh": lambda c, x: np.tanh(x),
    "ThresholdedRelu": lambda c, x: np.where(x > c.number("alpha", 1.0), x, 0),
}


def _shrink(x: Array, bias: float, lambd: float) -> Array:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0))


def _curve(of: Callable[[Call, Array], Array]) -> Callable[[Call, Array], Array]:
    def apply(c: Call, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(of(c, np.asarray(x, np.float64))).astype(x.dtype)

    return apply


for _name, _of in CURVES.items():
    meaning(_name)(_curve(_of))


@meaning("QuickGelu", domain="com.microsoft")
def _quick_gelu(c: Call, x: Array) -> Array:
    return _curve(lambda c, x: x * sigmoid(c.number("alpha", 1.702) * x))(c, x)


@meaning("FastGelu", domain="com.microsoft")
def _fast_gelu(c: Call, x: Array, bias: Array | None = None) -> Array:
    shifted = x if bias is None else x + bias
    return _curve(lambda c, x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))(c, shifted)


@meaning("Gelu", domain="com.microsoft")
def _contrib_gelu(c: Call, x: Array) -> Array:
    return _curve(lambda c, x: 0.5 * x * (1 + erf(x / math.sqrt(2))))(c, x)


@meaning("BiasGelu", domain="com.microsoft")
def _bias_gelu(c: Call, x: Array, bias: Array) -> Array:
    return _contrib_gelu(c, x + bias)


# Functions of one number of the operand's own type.
PLAIN: dict[str, Callable[[Array], Any]] = {
    "Abs": np.abs,
    "BitwiseNot": np.invert,
    "Ceil": np.ceil,
    "Floor": np.floor,
    "IsNaN": np.isnan,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Relu": lambda x: np.maximum(x, np.zeros((), x.dtype)),
    "Round": _round,
    "Sign": np.sign,
}


def _plain(of: Callable[[Array], Any]) -> Callable[[Call, Array], Array]:
    return lambda c, x: np.asarray(of(x))


for _name, _own in PLAIN.items():
    meaning(_name)(_plain(_own))


@meaning("IsInf")
def _is_inf(c: Call, x: Array) -> Array:
    negative, positive = c.integer("detect_negative", 1), c.integer("detect_positive", 1)
    wide = as_float(x)
    return np.isinf(wide) & ((wide < 0) & bool(negative) | (wide > 0) & bool(positive))


def _div(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.divide(a, b)
    safe = np.where(b == 0, np.ones((), b.dtype), b)
    quotient = np.abs(a) // np.abs(safe)  # towards zero
    return np.asarray(np.where((a < 0) != (safe < 0), -quotient, quotient), dtype=a.dtype)


def _pow(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu" and (b >= 0).all():
        return np.power(a, b.astype(a.dtype))
    return np.power(as_float(a).astype(np.float64), as_float(b)).astype(a.dtype)


# Functions of two numbers, with broadcasting.
PAIRS: dict[str, Callable[[Array, Array], Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "Div": _div,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Mul": np.multiply,
    "Or": np.logical_or,
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x).astype(x.dtype),
    "Pow": _pow,
    "Sub": np.subtract,
    "Xor": np.logical_xor,
}


def _pair(of: Callable[[Array, Array], Any]) -> Callable[[Call, Array, Array], Array]:
    def apply(c: Call, a: Array, b: Array) -> Array:
        c.together(a, b)
        with np.errstate(all="ignore"):
            return np.asarray(of(a, b))

    return apply


for _name, _two in PAIRS.items():
    meaning(_name)(_pair(_two))


@meaning("Mod")
def _mod(c: Call, a: Array, b: Array) -> Array:
    c.together(a, b)
    with np.errstate(all="ignore"):
        if c.integer("fmod", 0):
            return np.asarray(np.fmod(as_float(a), as_float(b)) if a.dtype.kind not in "iu" else np.fmod(a, b), a.dtype)
        return np.asarray(np.mod(a, b))


@meaning("BitShift")
def _bit_shift(c: Call, a: Array, b: Array) -> Array:
    c.together(a, b)
    wide = b >= 8 * a.dtype.itemsize
    count = np.where(wide, np.zeros((), b.dtype), b)
    if c.attr("direction") == "LEFT":
        return np.asarray(np.where(wide, 0, np.left_shift(a, count)), dtype=a.dtype)
    gone = np.where(a < 0, -1, 0) if a.dtype.kind == "i" else 0
    return np.asarray(np.where(wide, gone, np.right_shift(a, count)), dtype=a.dtype)


@meaning("Sum")
def _sum(c: Call, *xs: Array) -> Array:
    c.together(*xs)
    return reduce(np.add, xs)


@meaning("Mean")
def _mean(c: Call, *xs: Array) -> Array:
    c.together(*xs)
    return np.asarray(reduce(np.add, xs) / len(xs), dtype=xs[0].dtype)


@meaning("Max")
def _max(c: Call, *xs: Array) -> Array:
    c.together(*xs)
    return reduce(np.maximum, xs)


@meaning("Min")
def _min(c: Call, *xs: Array) -> Array:
    c.together(*xs)
    return reduce(np.minimum, xs)


@meaning("Clip")
def _clip(c: Call, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


@meaning("Where", moves="where")
def _where(c: Call, condition: Array, a: Array, b: Array) -> Array:
    c.together(condition, a, b)
    return np.where(condition, a, b)


@meaning("SwiGLU")
def _swiglu(c: Call, a: Array, b: Array) -> Array:
    if a.shape != b.shape:
        c.fail("operands expected the same shape", [list(a.shape), list(b.shape)])
    return (_curve(CURVES["Swish"])(c, a) * b).astype(a.dtype)
