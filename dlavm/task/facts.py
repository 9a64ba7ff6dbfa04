"""Bounds in context: what the loops, conditions and definitions around a statement say about its expressions.

The interval of `token - 10 * t` alone reaches below zero; inside `for t in ceildiv(token, 10)` it is at least 1. A fact
is a linear inequality `sum of coefficient * base >= low`; a bound is refined by adding facts so that bases cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd, prod

from dlavm.sym import Expr, mul, postorder

Bounds = tuple[int, int]
Terms = Mapping[Expr, int]
_Lookup = Callable[[Expr], Bounds]

ELIMINATIONS = 2  # facts combined for one bound
INFINITE = 1 << 80  # beyond every bound
HOPS = 3  # facts that share a base with a fact that shares a base ... with the expression


@dataclass(frozen=True)
class Fact:
    """sum(coefficient * base) >= low."""

    terms: Terms
    low: int


def linear(expr: Expr) -> tuple[int, dict[Expr, int]]:
    """The constant and the coefficient of each base; a base is neither a sum nor a multiple."""
    constant, terms = 0, dict[Expr, int]()
    for term in expr.args if expr.op == "add" else (expr,):
        if term.is_const:
            constant += term.value
        elif term.op == "mul" and term.args[0].is_const:
            terms[mul(*term.args[1:])] = term.args[0].value
        else:
            terms[term] = 1
    return constant, terms


@dataclass(frozen=True)
class Facts:
    """An immutable set of facts; each method that learns returns a new one."""

    facts: tuple[Fact, ...] = ()
    _known: dict[Expr, Bounds] = field(default_factory=dict, compare=False, repr=False)
    _inner: dict[tuple[Expr, ...], Facts] = field(default_factory=dict, compare=False, repr=False)

    def loop(self, var: Expr, count: Expr) -> Facts:
        """Inside `for var in count`."""
        return self._once((var, count), lambda: self._with(count - var, 1)._with(var, 0))

    def let(self, var: Expr, value: Expr) -> Facts:
        """Behind `let var = value`."""
        return self._with(var - value, 0)._with(value - var, 0)

    def when(self, cond: Expr) -> Facts:
        """Inside `if cond`."""
        return self._once((cond,), lambda: self._holds(cond))

    def _once(self, key: tuple[Expr, ...], make: Callable[[], Facts]) -> Facts:
        # The loops of all layers are alike; what was found out in the first serves the others.
        if key not in self._inner:
            self._inner[key] = make()
        return self._inner[key]

    def _holds(self, cond: Expr) -> Facts:
        if cond.op in ("lt", "le"):
            return self._with(cond.args[1] - cond.args[0], int(cond.op == "lt"))
        if cond.op == "eq":
            return self.let(*cond.args)
        return self._with(cond, 1) if cond.lo >= 0 else self

    def bounds(self, expr: Expr) -> Bounds:
        """The smallest interval found that holds every value here. Low above high: the place is never reached."""
        if expr.is_const:
            return expr.bounds()
        if expr not in self._known:
            self._known[expr] = self._refined(expr)
        return self._known[expr]

    @cached_property
    def empty(self) -> bool:
        """True where the facts contradict each other: the place is never reached."""
        if any(not fact.terms for fact in self.facts):  # 0 >= low, kept only where that is false
            return True
        return any(lo > hi for lo, hi in (self.bounds(base) for fact in self.facts for base in fact.terms))

    def never(self, cond: Expr) -> bool:
        """True where the condition is proven zero."""
        return self.bounds(cond) == (0, 0)

    def always(self, cond: Expr) -> bool:
        """True where the condition is proven not zero."""
        lo, hi = self.bounds(cond)
        return lo > 0 or hi < 0

    def _with(self, expr: Expr, low: int) -> Facts:
        return Facts(self.facts + _consequences(expr, low))

    def _refined(self, expr: Expr) -> Bounds:
        facts = self._relevant(expr)
        differences = [n.args[0] - n.args[1] for n in postorder(expr) if n.op in ("lt", "le", "eq")]
        nodes = list(postorder(*(base for fact in facts for base in fact.terms), *differences, expr))
        facts += tuple(fact for node in nodes for fact in _meaning(node))
        if not facts:
            return expr.bounds()
        known: dict[Expr, Bounds] = {}

        def lookup(node: Expr) -> Bounds:
            return known.get(node) or node.bounds()

        for _ in range(2):  # the bounds of a variable may need those of the expression that defines it
            for node in nodes:
                known[node] = _meet(lookup(node), _meet(_interval(node, lookup), _combined(node, facts, lookup)))
        return known[expr]

    def _relevant(self, expr: Expr) -> tuple[Fact, ...]:
        bases = set(postorder(expr))
        chosen: dict[int, Fact] = {}
        for _ in range(HOPS):
            more = {i: f for i, f in enumerate(self.facts) if i not in chosen and not bases.isdisjoint(f.terms)}
            if not more:
                break
            chosen |= more
            bases.update(node for f in more.values() for base in f.terms for node in postorder(base))
        return tuple(chosen[i] for i in sorted(chosen))


def _consequences(expr: Expr, low: int) -> tuple[Fact, ...]:
    """expr >= low, and what follows when a quotient, min or max in it is replaced by what bounds it from above."""
    found: list[Fact] = []
    waiting = [(expr, low)]
    while waiting and len(found) < 16:
        expr, low = waiting.pop()
        found += _plain(expr, low)
        for base, k in linear(expr)[1].items():
            rest = expr - base * k
            if base.op == "floordiv" and base.args[1].is_const:
                a, c = base.args[0], base.args[1].value
                slack = 0 if k > 0 else k * (c - 1)  # c*q <= a, and c*q >= a - (c - 1)
                waiting.append((a * k + rest * c, low * c + slack))
            elif (base.op == "min" and k > 0) or (base.op == "max" and k < 0):
                waiting += [(arg * k + rest, low) for arg in base.args]
    return tuple(found)


def _meaning(node: Expr) -> tuple[Fact, ...]:
    """What holds for a quotient, min or max by definition."""
    if node.op == "floordiv" and node.args[1].is_const:
        a, c = node.args
        remainder = a - node * c
        return _plain(remainder, 0) + _plain(-remainder, 1 - c.value)
    if node.op == "min":
        return tuple(fact for arg in node.args for fact in _plain(arg - node, 0))
    if node.op == "max":
        return tuple(fact for arg in node.args for fact in _plain(node - arg, 0))
    return ()


def _plain(expr: Expr, low: int) -> tuple[Fact, ...]:
    constant, terms = linear(expr)
    return (Fact(terms, low - constant),) if terms or low > constant else ()


def _combined(node: Expr, facts: Iterable[Fact], lookup: _Lookup) -> Bounds:
    constant, terms = linear(node)
    if not terms:
        return node.bounds()
    facts = tuple(facts)
    lo, hi = _combine(terms, facts, lookup, ELIMINATIONS)
    for factor in {abs(k) for k in terms.values()} - {1}:
        lo, hi = _meet((lo, hi), _factored(terms, factor, facts, lookup))
    return lo + constant, hi + constant


def _factored(terms: Terms, factor: int, facts: tuple[Fact, ...], lookup: _Lookup) -> Bounds:
    """Bounds where the terms with that factor are taken together: their sum without it is bounded as an integer."""
    inner = {base: k // factor for base, k in terms.items() if abs(k) == factor}
    outer = {base: k for base, k in terms.items() if abs(k) != factor}
    if len(inner) < 2 or not outer:
        return -INFINITE, INFINITE
    lo, hi = _combine(inner, facts, lookup, ELIMINATIONS)
    rest_lo, rest_hi = _combine(outer, facts, lookup, ELIMINATIONS)
    return factor * lo + rest_lo, factor * hi + rest_hi


def _combine(terms: Terms, facts: tuple[Fact, ...], lookup: _Lookup, depth: int) -> Bounds:
    """Bounds of a linear form: m * form = n * fact + rest, with m > 0 and one base less in the rest."""
    lo, hi = _sum(terms, lookup)
    if depth == 0 or lo >= hi:
        return lo, hi
    for fact in facts:
        for base in terms.keys() & fact.terms.keys():
            e, g = terms[base], fact.terms[base]
            scale = gcd(e, g)
            m, n = abs(g) // scale, e * (1 if g > 0 else -1) // scale
            rest = {b: m * terms.get(b, 0) - n * fact.terms.get(b, 0) for b in terms.keys() | fact.terms.keys()}
            rest_lo, rest_hi = _combine({b: k for b, k in rest.items() if k}, facts, lookup, depth - 1)
            if n > 0:
                lo = max(lo, -(-(n * fact.low + rest_lo) // m))
            else:
                hi = min(hi, (n * fact.low + rest_hi) // m)
    return lo, hi


def _sum(terms: Terms, lookup: _Lookup) -> Bounds:
    lo = hi = 0
    for base, k in terms.items():
        ends = [k * end for end in lookup(base)]
        lo, hi = lo + min(ends), hi + max(ends)
    return lo, hi


def _interval(node: Expr, lookup: _Lookup) -> Bounds:
    """Interval arithmetic over the refined bounds of the arguments."""
    args = [lookup(arg) for arg in node.args]
    if not args or any(lo > hi for lo, hi in args):
        return node.bounds()
    if node.op == "add":
        return sum(lo for lo, _ in args), sum(hi for _, hi in args)
    if node.op == "mul":
        corners = [1]
        for ends in args:
            corners = [prod((c, end)) for c in (min(corners), max(corners)) for end in ends]
        return min(corners), max(corners)
    if node.op == "floordiv" and not args[1][0] <= 0 <= args[1][1]:
        quotients = [a // b for a in args[0] for b in args[1]]
        return min(quotients), max(quotients)
    if node.op == "mod" and args[0][0] >= 0 and args[0][1] < args[1][0]:
        return args[0]
    if node.op in ("min", "max"):
        pick = min if node.op == "min" else max
        return pick(a[0] for a in args), pick(a[1] for a in args)
    if node.op == "select" and not args[0][0] <= 0 <= args[0][1]:
        return args[1]
    if node.op == "select":
        return (args[2] if args[0] == (0, 0) else (min(args[1][0], args[2][0]), max(args[1][1], args[2][1])))
    if node.op in ("lt", "le", "eq"):
        return _comparison(node, lookup)
    return node.bounds()


def _comparison(node: Expr, lookup: _Lookup) -> Bounds:
    lo, hi = lookup(node.args[0] - node.args[1])
    always = {"lt": hi < 0, "le": hi <= 0, "eq": lo == hi == 0}[node.op]
    never = {"lt": lo >= 0, "le": lo > 0, "eq": lo > 0 or hi < 0}[node.op]
    return int(always), int(not never)


def _meet(a: Bounds, b: Bounds) -> Bounds:
    return max(a[0], b[0]), min(a[1], b[1])
