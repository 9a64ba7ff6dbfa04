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
from tests.conftest import examples

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
def pairs(draw: st.DrawFn) -> list[Pair]:
    """Expressions that build on each other, each with its meaning."""
    pool = [_leaf(draw) for _ in range(5)]
    for _ in range(draw(st.integers(2, 8))):
        p, mp = draw(st.sampled_from(pool[-3:]))  # recent ones: deep, not wide
        (q, mq), (r, mr) = (draw(st.sampled_from(pool)) for _ in range(2))
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
    return pool[5:]


environments = st.fixed_dictionaries({n: st.integers(v.lo, v.hi) for n, v in VARS.items()})


@settings(max_examples=examples(500))
@given(pairs(), st.lists(environments, min_size=3, max_size=3))
def test_value_and_bounds(made: list[Pair], envs: list[dict[str, int]]) -> None:
    for expr, meaning in made:
        lo, hi = expr.bounds()
        for env in envs:
            value = evaluate(expr, env)
            assert value == meaning(env)
            assert lo <= value <= hi


@settings(max_examples=examples(500))
@given(pairs())
def test_text_and_canonical_form(made: list[Pair]) -> None:
    for expr, _ in made:
        assert parse(str(expr), VARS) is expr
        if expr.args:
            assert rebuild(expr.op, expr.args) is expr


@settings(max_examples=examples(300))
@given(pairs(), environments)
def test_substitution(made: list[Pair], env: dict[str, int]) -> None:
    k = Var("k", 0, 3)
    for expr, meaning in made:
        replaced = substitute(expr, {VARS["a"]: 2 * k + 1, VARS["b"]: env["b"]})
        for value in range(4):
            assert evaluate(replaced, {**env, "k": value}) == meaning({**env, "a": 2 * value + 1})


small = st.integers(-16, 16)


@settings(max_examples=examples(500))
@given(small, small, small, st.integers(-4, 4), st.integers(1, 24), st.integers(1, 6))
def test_division_of_linear_forms(p: int, q: int, c: int, factor: int, n: int, m: int) -> None:
    """Common factors, multiples and nesting, at every point: where most of the rules are."""
    a, b, d = VARS["a"], VARS["b"], VARS["d"]
    x = factor * (p * a + q * b) + c
    forms = [x // n, x % n, x // -n, x % -n, x // n // m, x % (n * m) % n, x // n - 2 * (x % n), x % (a + n), x // d]
    texts = [str(form) for form in forms]
    assert all(parse(text, VARS) is form for text, form in zip(texts, forms, strict=True))
    for i in range(a.lo, a.hi + 1, 3):
        for j in range(b.lo, b.hi + 1, 4):
            v, e = factor * (p * i + q * j) + c, {"a": i, "b": j, "d": -3}
            wanted = [v // n, v % n, v // -n, v % -n, v // n // m, v % (n * m) % n]
            wanted += [v // n - 2 * (v % n), v % (i + n), v // -3]
            assert [evaluate(form, e) for form in forms] == wanted
            assert all(form.lo <= value <= form.hi for form, value in zip(forms, wanted, strict=True))
