"""Symbolic expressions: simplification, refusals, text."""

from __future__ import annotations

import copy
import pickle

import pytest

from dlavm.support.errors import DlavmError
from dlavm.sym import (
    Const,
    Expr,
    Var,
    add,
    align,
    ceildiv,
    eq,
    evaluate,
    free_vars,
    le,
    lt,
    maximum,
    minimum,
    parse,
    postorder,
    select,
    substitute,
    wrap,
)

x, y, n = Var("x", 0, 100), Var("y", -5, 5), Var("n", 1, 64)
NAMES = {"x": x, "y": y, "n": n}

SIMPLIFIED = [
    (x + 0, "x"),
    (x * 1, "x"),
    (x // 1, "x"),
    (x % 1, "0"),
    (x * 0, "0"),
    (0 - x, "-x"),
    (0 - (0 - x), "x"),
    (x - x, "0"),
    (x + x + 3 - 1, "2 * x + 2"),
    (2 * (x + y) - 2 * x, "2 * y"),
    (3 * x * y - y * x * 3, "0"),
    (3 * (x - 1) * (x - 1), "3 * (x - 1) * (x - 1)"),
    ((x - 1) * (2 - 2 * x), "-2 * (x - 1) * (x - 1)"),
    ((4 * x + 8) // 4, "x + 2"),
    (2 * x // 3 // 2, "x // 3"),
    ((4 * x + 3) // 4, "x"),
    ((2 * x) // 4, "x // 2"),
    (x // 4 // 8, "x // 32"),
    ((x + 5) // 4, "(x + 1) // 4 + 1"),
    ((-x) // 4 + n, "n + (-x) // 4"),
    (x // -4, "(-x) // 4"),
    ((8 * x + y) % 4, "y % 4"),
    ((4 * x) % 8, "4 * (x % 2)"),
    (x % 8 % 4, "x % 4"),
    (x % 101, "x"),
    (x // 101, "0"),
    (minimum(x, 100), "x"),
    (minimum(x, x + 1), "x"),
    (maximum(x, y - 10), "x"),
    (minimum(minimum(x, n), x), "min(n, x)"),
    (lt(x, x + 1), "1"),
    (le(x, 100), "1"),
    (lt(x, 0), "0"),
    (eq(x, y + 200), "0"),
    (select(lt(x, 3), y, y), "y"),
    (select(lt(x, 101), n, y), "n"),
    (ceildiv(n, 64), "1"),
    (align(x, 32), "32 * ((x + 31) // 32)"),
]


@pytest.mark.parametrize(("expr", "text"), SIMPLIFIED, ids=[t for _, t in SIMPLIFIED])
def test_simplified_form_reads_back(expr: Expr, text: str) -> None:
    assert str(expr) == text
    assert parse(text, NAMES) is expr


def test_equal_expressions_are_one_object() -> None:
    assert (x + 2 * y) is (y + x + y)
    assert copy.deepcopy(x + 1) is x + 1
    assert pickle.loads(pickle.dumps(minimum(x + 1, 3 * n))) is minimum(x + 1, 3 * n)
    assert Const(3) == 3 and hash(Const(3)) == hash(3) and x != 3
    assert Var("x", 0, 7) is not x


def test_bounds_of_common_forms() -> None:
    assert (x * y).bounds() == (-500, 500)
    assert (x // n).bounds() == (0, 100)
    assert (y % n).bounds() == (0, 63)
    assert select(lt(y, 0), x, y).bounds() == (-5, 100)


def test_free_vars_and_substitute() -> None:
    expr = minimum(x * n, y + 3)
    assert free_vars(expr) == (n, x, y)
    assert substitute(expr, {x: 0}) is minimum(0, y + 3)
    assert substitute(x // 4, {x: 4 * n}) is n


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Var("x", 3, 2), r"variable x: expected lo <= hi, got lo=3, hi=2"),
        (lambda: Var("a b", 0, 1), r"identifier, got 'a b'"),
        (lambda: x // y, r"divisor that cannot be zero, got 'y' in \[-5, 5\]"),
        (lambda: x % 0, r"remainder: .* got '0'"),
        (lambda: wrap("x"), r"integer or an expression, got 'x'"),  # type: ignore[arg-type]
        (lambda: wrap(1.5), r"got 1.5"),  # type: ignore[arg-type]
        (lambda: int(x), r"expected a constant, got 'x'"),
        (lambda: bool(x), r"no truth value"),
        (lambda: evaluate(x + n, {"x": 1}), r"variable n: expected a value, got only \['x'\]"),
        (lambda: evaluate(x, {"x": 101}), r"variable x: expected a value in \[0, 100\], got 101"),
        (lambda: substitute(x, {x + 1: 2}), r"substitute: expected a variable"),
        (lambda: parse("x + ", NAMES), r"bad syntax at column"),
        (lambda: parse("x $ 1", NAMES), r"bad syntax at column 3"),
        (lambda: parse("x + z", NAMES), r"unknown variable, got 'z'"),
        (lambda: parse("pow(x, 2)", NAMES), r"got 'pow'"),
        (lambda: parse("min(x)", NAMES), r"min expected 2 arguments, got 1"),
    ],
)
def test_refusals(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DlavmError, match=message):
        make()


def test_deep_expressions_need_no_recursion() -> None:
    expr = x
    for i in range(5000):
        expr = minimum(expr + i % 3, 50 + n)
    assert evaluate(expr, {"x": 1, "n": 2}) <= 52
    assert sum(1 for _ in postorder(expr)) > 5000
    assert substitute(expr, {x: Var("z", 0, 9)}).hi <= 114


def test_wide_sum_is_flat() -> None:
    parts = [Var(f"v{i}", 0, 1) for i in range(300)]
    assert len(add(*parts).args) == 300
