"""Simplification, bounds and text of expressions, held against direct evaluation."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from dlavm.sym import (
    Const,
    Expr,
    Var,
    align,
    ceildiv,
    eq,
    evaluate,
    le,
    lt,
    maximum,
    minimum,
    parse,
    rebuild,
    select,
    substitute,
)

VARS = {"a": Var("a", 0, 7), "b": Var("b", -4, 9), "c": Var("c", 1, 5), "d": Var("d", -6, -1)}
# An expression beside what it must mean, computed by Python alone.
Meaning = Callable[[dict[str, int]], int]
Pair = tuple[Expr, Meaning]

BINARY: list[tuple[Callable[[Expr, Expr], Expr], Callable[[int, int], int]]] = [
    (lambda p, q: p + q, lambda p, q: p + q),
    (lambda p, q: p - q, lambda p, q: p - q),
    (lambda p, q: p * q, lambda p, q: p * q),
    (minimum, min),
    (maximum, max),
    (lt, lambda p, q: int(p < q)),
    (le, lambda p, q: int(p <= q)),
    (eq, lambda p, q: int(p == q)),
]
DIVIDING: list[tuple[Callable[[Expr, Expr], Expr], Callable[[int, int], int]]] = [
    (lambda p, q: p // q, lambda p, q: p // q),
    (lambda p, q: p % q, lambda p, q: p % q),
]
ROUNDING: list[tuple[Callable[[Expr, Expr], Expr], Callable[[int, int], int]]] = [
    (ceildiv, lambda p, q: -(-p // q)),
    (align, lambda p, q: -(-p // q) * q),
]


def _leaf(draw: st.DrawFn) -> Pair:
    if draw(st.booleans()):
        value = draw(st.integers(-12, 12))
        return Const(value), lambda env: value
    name = draw(st.sampled_from(sorted(VARS)))
    return VARS[name], lambda env: env[name]


def _apply2(f: Callable[[int, int], int], p: Meaning, q: Meaning) -> Meaning:
    return lambda env: f(p(env), q(env))


def _select(c: Meaning, p: Meaning, q: Meaning) -> Meaning:
    return lambda env: p(env) if c(env) else q(env)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    pool = [_leaf(draw) for _ in range(4)]
    for _ in range(draw(st.integers(1, 8))):
        (p, mp), (q, mq), (r, mr) = (draw(st.sampled_from(pool)) for _ in range(3))
        rules = list(BINARY)
        if not q.lo <= 0 <= q.hi:
            rules += DIVIDING * 3
        if q.lo > 0:
            rules += ROUNDING
        index = draw(st.integers(0, len(rules)))
        if index == len(rules):
            pool.append((select(p, q, r), _select(mp, mq, mr)))
        else:
            make, mean = rules[index]
            pool.append((make(p, q), _apply2(mean, mp, mq)))
    return pool[-1]


environments = st.fixed_dictionaries({n: st.integers(v.lo, v.hi) for n, v in VARS.items()})


@settings(max_examples=600, deadline=None)
@given(pairs(), environments)
def test_value_and_bounds(pair: Pair, env: dict[str, int]) -> None:
    expr, meaning = pair
    value = evaluate(expr, env)
    assert value == meaning(env)
    lo, hi = expr.bounds()
    assert lo <= value <= hi


@settings(max_examples=600, deadline=None)
@given(pairs())
def test_text_and_canonical_form(pair: Pair) -> None:
    expr, _ = pair
    assert parse(str(expr), VARS) is expr
    if expr.args:
        assert rebuild(expr.op, expr.args) is expr


@settings(max_examples=300, deadline=None)
@given(pairs(), environments)
def test_substitution(pair: Pair, env: dict[str, int]) -> None:
    expr, meaning = pair
    a, k = VARS["a"], Var("k", 0, 3)
    replaced = substitute(expr, {a: 2 * k + 1, VARS["b"]: env["b"]})
    for value in range(4):
        assert evaluate(replaced, {**env, "k": value}) == meaning({**env, "a": 2 * value + 1})
