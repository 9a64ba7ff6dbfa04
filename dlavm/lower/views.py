"""reshape, last_rows, slice: other rows over the same bytes; nothing is launched."""
from __future__ import annotations

from dataclasses import replace

from dlavm.graph import Node
from dlavm.lower.context import Context, Rows
from dlavm.lower.rules import rule
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr
from dlavm.target.spec import ADDRESS_UNIT

ELEMENTS = ADDRESS_UNIT // 2  # fp16 numbers between places where a row can begin


@rule("reshape")
def lower_reshape(c: Context, node: Node) -> None:
    """Heads side by side are one row and the other way round; nothing moves."""
    x, shape = c.flat(node["x"]), node.output.type.shape
    dim = int(shape[-1])
    inner = int(shape[1]) if len(shape) == 3 else 1
    if shape[0] != x.outer or inner * dim != x.dim or len(shape) not in (2, 3):
        raise DlavmError(f"{node}: expected the token axis first and kept, got {node['x'].type} to {node.output.type}")
    if inner > 1 and dim % ELEMENTS:
        raise DlavmError(f"{node}: expected heads of a multiple of {ELEMENTS} elements, got {dim}")
    stride = dim // ELEMENTS if inner > 1 else 0
    c.bind(node.output, Rows(x.base, x.outer, x.outer_stride, inner, stride, dim))


@rule("last_rows")
def lower_last_rows(c: Context, node: Node) -> None:
    x, count = c.rows(node["x"]), node.attrs["count"]
    assert isinstance(count, Expr)
    c.bind(node.output, x.at(x.outer - count, count))


@rule("slice")
def lower_slice(c: Context, node: Node) -> None:
    """Rows that begin `start` elements further on. Raises DlavmError where that is no place for a row."""
    start, size = int(node.number("start")), int(node.number("size"))
    if start % ELEMENTS:
        raise DlavmError(f"{node}: start expected a multiple of {ELEMENTS} elements, got {start}")
    x = c.rows(node["x"])
    c.bind(node.output, replace(x, base=x.base + start // ELEMENTS, dim=size))
