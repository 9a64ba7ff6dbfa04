"""Parts of tensors: other rows over the same bytes; nothing is launched."""
from __future__ import annotations

from dataclasses import replace

from dlavm.graph import Node
from dlavm.lower.context import Context
from dlavm.lower.rules import rule
from dlavm.support.errors import DlavmError
from dlavm.target.spec import ADDRESS_UNIT

ELEMENTS = ADDRESS_UNIT // 2  # fp16 numbers between places where a row can begin


@rule("slice")
def lower_slice(c: Context, node: Node) -> None:
    """Rows that begin `start` elements further on. Raises DlavmError where that is no place for a row."""
    start, size = int(node.number("start")), int(node.number("size"))
    if start % ELEMENTS:
        raise DlavmError(f"{node}: start expected a multiple of {ELEMENTS} elements, got {start}")
    x = c.rows(node["x"])
    c.bind(node.output, replace(x, base=x.base + start // ELEMENTS, dim=size))
