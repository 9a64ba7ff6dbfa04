"""Task IR: statements over engine commands with symbolic fields; builder, text, verifier, simplifier, interpreter."""

from dlavm.task.builder import TaskBuilder
from dlavm.task.interpret import execute, run, trace
from dlavm.task.ir import (
    Await,
    Buffer,
    Call,
    Copy,
    For,
    Function,
    If,
    Launch,
    Let,
    Load,
    Program,
    RegRead,
    RegWrite,
    Signal,
    Stmt,
    Wait,
    base_of,
    body_of,
    exprs_of,
    map_exprs,
    touched,
    variable_of,
    walk,
    walk_body,
)
from dlavm.task.restrict import restrict
from dlavm.task.roll import Rolled, roll
from dlavm.task.share import share_in_place
from dlavm.task.simplify import simplify
from dlavm.task.text import parse_program, print_program
from dlavm.task.verify import problems, verify

__all__ = [
    "Await",
    "Buffer",
    "Call",
    "Copy",
    "For",
    "Function",
    "If",
    "Launch",
    "Let",
    "Load",
    "Program",
    "RegRead",
    "RegWrite",
    "Rolled",
    "Signal",
    "Stmt",
    "TaskBuilder",
    "Wait",
    "base_of",
    "body_of",
    "execute",
    "exprs_of",
    "map_exprs",
    "parse_program",
    "print_program",
    "problems",
    "restrict",
    "roll",
    "run",
    "share_in_place",
    "simplify",
    "touched",
    "trace",
    "variable_of",
    "verify",
    "walk",
    "walk_body",
]
