"""The text form of expressions: Python's operators and min, max, lt, le, eq, select, ceildiv, align."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from dlavm.support.errors import DlavmError
from dlavm.sym.expr import BUILD, Const, Expr, add, align, ceildiv, floordiv, mod, mul
from dlavm.sym.walk import postorder

_SUM, _PRODUCT, _ATOM = 0, 1, 2


def to_text(expr: Expr) -> str:
    """One line that `parse` reads back as the same node."""
    done: dict[Expr, tuple[str, int]] = {}
    for node in postorder(expr):
        if node.op == "const":
            done[node] = (str(node.value), _ATOM if node.value >= 0 else _PRODUCT)
        elif node.op == "var":
            done[node] = (node.name, _ATOM)
        elif node.op == "add":
            done[node] = (_sum_text([done[arg][0] for arg in node.args]), _SUM)
        elif node.op == "mul":
            done[node] = (_product_text(node, done), _PRODUCT)
        elif node.op in ("floordiv", "mod"):
            sign = " // " if node.op == "floordiv" else " % "
            left, right = _at_least(done[node.args[0]], _PRODUCT), _at_least(done[node.args[1]], _ATOM)
            # -x // 4 would read as a negative term of a sum, which floor division is not
            left = f"({left})" if left.startswith("-") else left
            done[node] = (left + sign + right, _PRODUCT)
        else:
            done[node] = (f"{node.op}({', '.join(done[arg][0] for arg in node.args)})", _ATOM)
    return done[expr][0]


def _at_least(part: tuple[str, int], level: int) -> str:
    text, own = part
    return text if own >= level else f"({text})"


def _sum_text(terms: list[str]) -> str:
    # A term that starts with a minus is a negative multiple or constant: its text negates by dropping it.
    return terms[0] + "".join(f" - {t[1:]}" if t.startswith("-") else f" + {t}" for t in terms[1:])


def _product_text(node: Expr, done: Mapping[Expr, tuple[str, int]]) -> str:
    first, *others = node.args
    if first == -1:
        head = "-" + _at_least(done[others[0]], _ATOM)
        others = others[1:]
    else:
        head = _at_least(done[first], _PRODUCT)
    return " * ".join([head, *(_at_least(done[arg], _ATOM) for arg in others)])


# Shared with the text forms that contain expressions (graph types, task IR): they append these rules.
EXPR_RULES = r"""
?expr: product
    | expr "+" product -> add
    | expr "-" product -> sub
?product: unary
    | product "*" unary -> mul
    | product "//" unary -> floordiv
    | product "%" unary -> mod
?unary: atom
    | "-" unary -> neg
?atom: INT -> number
    | NAME -> variable
    | NAME "(" expr ("," expr)* ")" -> call
    | "(" expr ")"
INT: /[0-9]+/
NAME: /[A-Za-z_][A-Za-z_0-9]*/
"""

_CALLS: dict[str, tuple[int, Callable[..., Expr]]] = {
    **{name: (2, BUILD[name]) for name in ("min", "max", "lt", "le", "eq")},
    "select": (3, BUILD["select"]),
    "ceildiv": (2, ceildiv),
    "align": (2, align),
}
_OPERATORS: dict[str, Callable[..., Expr]] = {
    "add": add,
    "sub": lambda a, b: add(a, mul(-1, b)),
    "mul": mul,
    "floordiv": floordiv,
    "mod": mod,
    "neg": lambda a: mul(-1, a),
}


def fold_tree(tree: Tree[Token], variables: Mapping[str, Expr]) -> Expr:
    """The expression of a parse tree made by EXPR_RULES. Raises DlavmError for unknown names."""
    done: dict[int, Expr] = {}
    for node in tree.iter_subtrees():
        args = [done[id(child)] for child in node.children if isinstance(child, Tree)]
        head = str(node.children[0]) if isinstance(node.children[0], Token) else ""
        if node.data == "number":
            done[id(node)] = Const(int(head))
        elif node.data == "variable":
            if head not in variables:
                raise DlavmError(f"expression: unknown variable, got {head!r}, known {sorted(variables)!r}")
            done[id(node)] = variables[head]
        elif node.data == "call":
            done[id(node)] = _call(head, args)
        else:
            done[id(node)] = _OPERATORS[str(node.data)](*args)
    return done[id(tree)]


def _call(name: str, args: list[Expr]) -> Expr:
    arity, function = _CALLS.get(name, (-1, add))
    if arity < 0:
        raise DlavmError(f"expression: expected one of {sorted(_CALLS)!r}, got {name!r}")
    if arity != len(args):
        raise DlavmError(f"expression: {name} expected {arity} arguments, got {len(args)!r}")
    return function(*args)


@cache
def _parser() -> Lark:
    return Lark("start: expr\n%ignore /\\s+/\n" + EXPR_RULES, parser="lalr")


def parse(text: str, variables: Mapping[str, Expr]) -> Expr:
    """The expression that `text` spells, over the given variables by name.

    Raises DlavmError for bad syntax (with the column), unknown variables or functions.
    """
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise DlavmError(f"expression: bad syntax at column {error.column}, got {text!r}") from None
    root = tree.children[0]
    assert isinstance(root, Tree)
    return fold_tree(root, variables)
