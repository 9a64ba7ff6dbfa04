"""What is done with expressions: traversal, evaluation, substitution. All iterative."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from weakref import WeakKeyDictionary

from dlavm.support.errors import DlavmError
from dlavm.sym.expr import Expr, IntoExpr, rebuild, wrap

MEANING: dict[str, Callable[..., int]] = {
    "add": lambda *xs: sum(xs),
    "mul": lambda *xs: prod(xs),
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "eq": lambda a, b: int(a == b),
    "select": lambda c, a, b: a if c else b,
}


_known_vars: WeakKeyDictionary[Expr, tuple[Expr, ...]] = WeakKeyDictionary()


def postorder(*roots: Expr) -> Iterator[Expr]:
    """Every distinct node reachable from the roots, arguments before the nodes that use them."""
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))


def evaluate(expr: IntoExpr, values: Mapping[str, int]) -> int:
    """The value with every variable replaced by `values[name]`.

    Raises DlavmError for a variable that is missing or outside its bounds (simplification relied on them).
    """
    root = wrap(expr)
    done: dict[Expr, int] = {}
    for node in postorder(root):
        if node.op == "const":
            done[node] = node.value
        elif node.op == "var":
            done[node] = _variable(node, values)
        else:
            done[node] = MEANING[node.op](*(done[arg] for arg in node.args))
    return done[root]


def _variable(node: Expr, values: Mapping[str, int]) -> int:
    if node.name not in values:
        raise DlavmError(f"variable {node.name}: expected a value, got only {sorted(values)!r}")
    value = int(values[node.name])
    if not node.lo <= value <= node.hi:
        raise DlavmError(f"variable {node.name}: expected a value in [{node.lo}, {node.hi}], got {value!r}")
    return value


def substitute(expr: IntoExpr, replacements: Mapping[Expr, IntoExpr]) -> Expr:
    """The expression with variables replaced, simplified anew.

    A replacement must only take values within the variable's bounds: folding may already have used them.
    Raises DlavmError for a key that is not a variable.
    """
    for key in replacements:
        if key.op != "var":
            raise DlavmError(f"substitute: expected a variable, got {str(key)!r}")
    root = wrap(expr)
    done: dict[Expr, Expr] = {}
    for node in postorder(root):
        if node in replacements:
            done[node] = wrap(replacements[node])
        elif not node.args:
            done[node] = node
        else:
            done[node] = rebuild(node.op, (done[arg] for arg in node.args))
    return done[root]


def free_vars(*exprs: IntoExpr) -> tuple[Expr, ...]:
    """The variables in the expressions, by name."""
    if len(exprs) == 1:
        return _vars_of(wrap(exprs[0]))
    found = {var for expr in exprs for var in _vars_of(wrap(expr))}
    return tuple(sorted(found, key=lambda v: v.order))


def _vars_of(expr: Expr) -> tuple[Expr, ...]:
    if not expr.args:
        return (expr,) if expr.op == "var" else ()
    if expr not in _known_vars:
        found = (node for node in postorder(expr) if node.op == "var")
        _known_vars[expr] = tuple(sorted(found, key=lambda v: v.order))
    return _known_vars[expr]
