"""The graph IR: types, op table, builder, verifier, text form and numpy reference."""

from dlavm.graph.builder import Builder
from dlavm.graph.constants import constant_array
from dlavm.graph.evaluate import evaluate, new_state
from dlavm.graph.ir import Constant, Graph, Node, Type, Value
from dlavm.graph.opdef import Attr, OpDef
from dlavm.graph.ops import OPS
from dlavm.graph.text import parse_graph, print_graph
from dlavm.graph.verify import verify

__all__ = [
    "OPS",
    "Attr",
    "Builder",
    "Constant",
    "Graph",
    "Node",
    "OpDef",
    "Type",
    "Value",
    "constant_array",
    "evaluate",
    "new_state",
    "parse_graph",
    "print_graph",
    "verify",
]
