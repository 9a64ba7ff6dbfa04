"""Interned, immutable integer expressions.

One node class; two structurally equal expressions are the same object, so `is` and `==` agree. Every
constructor simplifies, and what it returns is canonical: building it again from its parts gives the same
node. Division and remainder floor, as Python's do.

Node kinds (`Expr.op`) and their `args`, which is all that a consumer such as a code generator meets:

    const     -                `value`
    var       -                `name`, bounds `lo`, `hi` (inclusive)
    add       2 or more terms  a term is anything but an add; at most one constant, the last
    mul       2 or more        factors are neither mul nor (but for the first) const; no zero, no leading 1
    floordiv  a, b             b is never zero (its bounds exclude it) and never a negative constant
    mod       a, b             the same
    min, max  a, b
    lt, le, eq  a, b           0 or 1
    select    c, a, b          a where c is not zero, else b
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from math import gcd
from typing import Union
from weakref import WeakValueDictionary

from dlavm.support.errors import DlavmError

IntoExpr = Union["Expr", int]
_Key = tuple[object, ...]


class Expr:
    """One node. Made only by the functions of this module; attributes are never assigned again."""

    __slots__ = ("op", "args", "value", "name", "lo", "hi", "order", "__weakref__")

    op: str
    args: tuple[Expr, ...]
    value: int  # of a const, else 0
    name: str  # of a var, else ""
    lo: int
    hi: int
    order: tuple[int, str, bytes]  # structural, the same in every process: sorts commutative arguments

    def bounds(self) -> tuple[int, int]:
        """The inclusive interval that holds every value the expression can take."""
        return self.lo, self.hi

    @property
    def is_const(self) -> bool:
        return self.op == "const"

    def __int__(self) -> int:
        """The value of a constant. Raises DlavmError for any other expression."""
        if self.op != "const":
            raise DlavmError(f"expression: expected a constant, got {str(self)!r}")
        return self.value

    def __eq__(self, other: object) -> bool:
        """Structural equality; a constant also equals its int. (The 0/1 comparison is `eq`.)"""
        return self is other or (isinstance(other, int) and self.op == "const" and self.value == other)

    def __hash__(self) -> int:
        return hash(self.value) if self.op == "const" else id(self)

    def __bool__(self) -> bool:
        if self.op != "const":
            raise DlavmError(f"expression {self} has no truth value while it is symbolic; use select or bounds()")
        return self.value != 0

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: object) -> Expr:
        return self

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Unpickling goes through the constructors, so that a copy is the interned node again."""
        if self.op == "const":
            return Const, (self.value,)
        return (Var, (self.name, self.lo, self.hi)) if self.op == "var" else (rebuild, (self.op, self.args))

    def __str__(self) -> str:
        from dlavm.sym.text import to_text  # text needs this module

        return to_text(self)

    def __repr__(self) -> str:
        return f"Expr({str(self)!r})"

    def __add__(self, other: IntoExpr) -> Expr:
        return add(self, other)

    def __radd__(self, other: int) -> Expr:
        return add(other, self)

    def __sub__(self, other: IntoExpr) -> Expr:
        return add(self, mul(-1, other))

    def __rsub__(self, other: int) -> Expr:
        return add(other, mul(-1, self))

    def __neg__(self) -> Expr:
        return mul(-1, self)

    def __mul__(self, other: IntoExpr) -> Expr:
        return mul(self, other)

    def __rmul__(self, other: int) -> Expr:
        return mul(other, self)

    def __floordiv__(self, other: IntoExpr) -> Expr:
        return floordiv(self, other)

    def __rfloordiv__(self, other: int) -> Expr:
        return floordiv(other, self)

    def __mod__(self, other: IntoExpr) -> Expr:
        return mod(self, other)

    def __rmod__(self, other: int) -> Expr:
        return mod(other, self)


_interned: WeakValueDictionary[_Key, Expr] = WeakValueDictionary()


def _node(op: str, args: tuple[Expr, ...], bounds: tuple[int, int], value: int = 0, name: str = "") -> Expr:
    key: _Key = (op, args, value, name, *(bounds if op == "var" else ()))
    found = _interned.get(key)
    if found is not None:
        return found
    node = Expr()
    node.op, node.args, node.value, node.name = op, args, value, name
    node.lo, node.hi = bounds
    digest = blake2b(repr((op, value, name, bounds)).encode(), digest_size=12)
    for arg in args:
        digest.update(arg.order[2])
    node.order = (0, name, digest.digest()) if op == "var" else (1, op, digest.digest())
    _interned[key] = node
    return node


def Const(value: int) -> Expr:
    """The integer `value`."""
    return _node("const", (), (int(value), int(value)), value=int(value))


def Var(name: str, lo: int, hi: int) -> Expr:
    """A variable with lo <= value <= hi. One name with other bounds is another variable.

    Raises DlavmError for a name that is not an identifier or an empty range.
    """
    if not name.isidentifier():
        raise DlavmError(f"variable name: expected an identifier, got {name!r}")
    return Symbol(name, lo, hi)


def Symbol(name: str, lo: int, hi: int) -> Expr:
    """A variable whose name another text form spells (`@buffer`); otherwise as Var."""
    if lo > hi:
        raise DlavmError(f"variable {name}: expected lo <= hi, got lo={lo!r}, hi={hi!r}")
    return Const(lo) if lo == hi else _node("var", (), (int(lo), int(hi)), name=name)


def wrap(value: IntoExpr) -> Expr:
    """An int (also a numpy one) as an expression; an expression as it is. Raises DlavmError for others."""
    if isinstance(value, Expr):
        return value
    try:
        return Const(value.__index__())
    except AttributeError:
        raise DlavmError(f"expression: expected an integer or an expression, got {value!r}") from None


# A linear form is a constant and {base: coefficient}; a base is neither an add nor a multiple.
_Linear = tuple[int, dict[Expr, int]]


def _linear(expr: Expr) -> _Linear:
    constant, terms = 0, {}
    for term in expr.args if expr.op == "add" else (expr,):
        if term.op == "const":
            constant += term.value
        elif term.op == "mul" and term.args[0].op == "const":
            terms[_product(term.args[1:])] = term.args[0].value
        else:
            terms[term] = 1
    return constant, terms


def _product(factors: tuple[Expr, ...]) -> Expr:
    """The node for sorted factors that need no more simplification."""
    if len(factors) == 1:
        return factors[0]
    lo = hi = 1
    for factor in factors:
        corners = (lo * factor.lo, lo * factor.hi, hi * factor.lo, hi * factor.hi)
        lo, hi = min(corners), max(corners)
    return _node("mul", factors, (lo, hi))


def _from_linear(constant: int, terms: dict[Expr, int]) -> Expr:
    parts: list[Expr] = []
    for base in sorted((b for b, c in terms.items() if c), key=lambda b: b.order):
        coefficient = terms[base]
        factors = base.args if base.op == "mul" else (base,)
        parts.append(base if coefficient == 1 else _product((Const(coefficient), *factors)))
    if constant or not parts:
        parts.append(Const(constant))
    if len(parts) == 1:
        return parts[0]
    return _node("add", tuple(parts), (sum(p.lo for p in parts), sum(p.hi for p in parts)))


def add(*operands: IntoExpr) -> Expr:
    """The sum, flattened, with equal terms collected."""
    constant, terms = 0, dict[Expr, int]()
    for operand in operands:
        c, more = _linear(wrap(operand))
        constant += c
        for base, coefficient in more.items():
            terms[base] = terms.get(base, 0) + coefficient
    return _from_linear(constant, terms)


def mul(*operands: IntoExpr) -> Expr:
    """The product, flattened; a constant is distributed over a single sum, nothing else is."""
    coefficient, factors = 1, list[Expr]()
    for operand in map(wrap, operands):
        for factor in operand.args if operand.op == "mul" else (operand,):
            if factor.op == "const":
                coefficient *= factor.value
            else:
                factors.append(factor)
    if not factors or coefficient == 0:
        return Const(coefficient)
    if len(factors) == 1:
        constant, terms = _linear(factors[0])
        return _from_linear(constant * coefficient, {b: c * coefficient for b, c in terms.items()})
    for i, factor in enumerate(factors):
        content, factors[i] = _primitive(factor)
        coefficient *= content
    factors.sort(key=lambda f: f.order)
    return _from_linear(0, {_product(tuple(factors)): coefficient})


def _primitive(factor: Expr) -> tuple[int, Expr]:
    """A sum as content * sum without a common factor and a leading minus: then (2a + 2) * b is 2 * ((a + 1) * b)."""
    if factor.op != "add":
        return 1, factor
    constant, terms = _linear(factor)
    content = gcd(constant, *terms.values()) * (1 if next(iter(terms.values())) > 0 else -1)
    return content, _from_linear(constant // content, {base: c // content for base, c in terms.items()})


def _divisor(b: Expr, what: str) -> Expr:
    if b.lo <= 0 <= b.hi:
        raise DlavmError(f"{what}: expected a divisor that cannot be zero, got {str(b)!r} in [{b.lo}, {b.hi}]")
    return b


def _quotient_bounds(a: Expr, b: Expr) -> tuple[int, int]:
    corners = [x // y for x in a.bounds() for y in b.bounds()]
    return min(corners), max(corners)


def floordiv(a: IntoExpr, b: IntoExpr) -> Expr:
    """floor(a / b). Raises DlavmError when the bounds of b allow zero."""
    a, b = wrap(a), _divisor(wrap(b), "division")
    lo, hi = _quotient_bounds(a, b)
    if lo == hi:
        return Const(lo)
    if a is b:
        return Const(1)
    if b.is_const:
        return _div_const(a, b.value) if b.value > 0 else _div_const(-a, -b.value)
    return _node("floordiv", (a, b), (lo, hi))


def _div_const(a: Expr, n: int) -> Expr:
    """floor(a / n), n > 0: multiples of n come out, a common factor and nested divisions fold."""
    constant, terms = _linear(a)
    whole = {base: c // n for base, c in terms.items() if c % n == 0}
    rest = {base: c for base, c in terms.items() if c % n}
    factor = gcd(n, *rest.values())
    n, constant = n // factor, constant // factor
    outer, constant = divmod(constant, n)
    inner = _from_linear(constant, {base: c // factor for base, c in rest.items()})
    return add(_from_linear(outer, whole), _quotient(inner, n))


def _quotient(inner: Expr, n: int) -> Expr:
    """floor(inner / n) of a linear form that has no multiple of n and no factor in common with it."""
    if inner.lo // n == inner.hi // n:
        return Const(inner.lo // n)
    if n == 1:
        return inner
    if inner.op == "floordiv" and inner.args[1].is_const:
        return _div_const(inner.args[0], n * inner.args[1].value)
    return _node("floordiv", (inner, Const(n)), (inner.lo // n, inner.hi // n))


def mod(a: IntoExpr, b: IntoExpr) -> Expr:
    """a - b * floor(a / b): the sign is b's. Raises DlavmError when the bounds of b allow zero."""
    a, b = wrap(a), _divisor(wrap(b), "remainder")
    lo, hi = _quotient_bounds(a, b)
    if lo == hi:
        return a - b * lo
    if a is b:
        return Const(0)
    if b.is_const:
        return _mod_const(a, b.value) if b.value > 0 else -_mod_const(-a, -b.value)
    bounds = (0, b.hi - 1) if b.lo > 0 else (b.lo + 1, 0)
    return _node("mod", (a, b), bounds)


def _mod_const(a: Expr, n: int) -> Expr:
    """a mod n, n > 0: multiples of n vanish, a common factor comes out."""
    constant, terms = _linear(a)
    terms = {base: c for base, c in terms.items() if c % n}
    factor = gcd(n, *terms.values())
    n = n // factor
    constant, offset = divmod(constant, factor)
    inner = _from_linear(constant % n, {base: c // factor for base, c in terms.items()})
    if inner.lo // n == inner.hi // n:
        remainder = inner - n * (inner.lo // n)
    elif inner.op == "mod" and inner.args[1].is_const and inner.args[1].value % n == 0:
        remainder = _mod_const(inner.args[0], n)
    else:
        remainder = _node("mod", (inner, Const(n)), (0, n - 1))
    return remainder * factor + offset


def minimum(a: IntoExpr, b: IntoExpr) -> Expr:
    """The smaller one; folds where the bounds of a - b decide."""
    return _extreme("min", wrap(a), wrap(b))


def maximum(a: IntoExpr, b: IntoExpr) -> Expr:
    """The larger one; folds where the bounds of a - b decide."""
    return _extreme("max", wrap(a), wrap(b))


def _extreme(op: str, a: Expr, b: Expr) -> Expr:
    difference = a - b
    if difference.lo >= 0 or difference.hi <= 0:
        return a if (difference.lo >= 0) == (op == "max") else b
    for x, y in ((a, b), (b, a)):
        if x.op == op and any(arg is y for arg in x.args):
            return x
    pick = min if op == "min" else max
    first, second = sorted((a, b), key=lambda e: e.order)
    return _node(op, (first, second), (pick(a.lo, b.lo), pick(a.hi, b.hi)))


def lt(a: IntoExpr, b: IntoExpr) -> Expr:
    """1 where a < b, else 0."""
    return _compare("lt", wrap(a), wrap(b))


def le(a: IntoExpr, b: IntoExpr) -> Expr:
    """1 where a <= b, else 0."""
    return _compare("le", wrap(a), wrap(b))


def eq(a: IntoExpr, b: IntoExpr) -> Expr:
    """1 where a and b have the same value, else 0."""
    a, b = sorted((wrap(a), wrap(b)), key=lambda e: e.order)
    return _compare("eq", a, b)


def _compare(op: str, a: Expr, b: Expr) -> Expr:
    lo, hi = (a - b).bounds()
    always = {"lt": hi < 0, "le": hi <= 0, "eq": lo == hi == 0}[op]
    never = {"lt": lo >= 0, "le": lo > 0, "eq": lo > 0 or hi < 0}[op]
    if always or never:
        return Const(int(always))
    return _node(op, (a, b), (0, 1))


def select(condition: IntoExpr, a: IntoExpr, b: IntoExpr) -> Expr:
    """a where the condition is not zero, else b."""
    c, a, b = wrap(condition), wrap(a), wrap(b)
    if a is b or c.lo > 0 or c.hi < 0:
        return a
    if c.is_const:
        return b
    return _node("select", (c, a, b), (min(a.lo, b.lo), max(a.hi, b.hi)))


def ceildiv(a: IntoExpr, b: IntoExpr) -> Expr:
    """The smallest integer that is at least a / b, for b > 0."""
    b = wrap(b)
    return floordiv(add(a, b, -1), b)


def align(a: IntoExpr, b: IntoExpr) -> Expr:
    """a rounded up to a multiple of b, for b > 0."""
    return mul(ceildiv(a, b), b)


BUILD: dict[str, Callable[..., Expr]] = {
    "add": add,
    "mul": mul,
    "floordiv": floordiv,
    "mod": mod,
    "min": minimum,
    "max": maximum,
    "lt": lt,
    "le": le,
    "eq": eq,
    "select": select,
}


def rebuild(op: str, args: Iterable[Expr]) -> Expr:
    """The simplified node of kind `op` (any but const and var) over new arguments."""
    return BUILD[op](*args)
