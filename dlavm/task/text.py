"""The text form of task programs. Deterministic; `parse_program(print_program(p))` is p again.

    program step(token: 1..128, kv_len: 0..1023)
    assume le(kv_len + token, 1024)
    buffer x: activations 65536 bytes f16[token, 256]
    function setup:
      launch LOAD_TABLE act_slot=1 table=@table.silu
    call setup
    for t in (token + 9) // 10:
      let n: 1..10 = min(10, token - 10 * t)
      launch LINEAR format=int4g128:0 src=@x+320*t rows_o=n  # layer 3 / q_proj
    if lt(8, token):
      await all

Blocks are indented. A value may have a label before a colon, which a reader ignores: with a TargetSpec the printer
writes the names of enum values and the meaning of float bits there. Bounds of a variable are left out where they are
those of its value. A comment behind a launch is its `where`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from dlavm.support.errors import DlavmError
from dlavm.sym import Const, Expr, Var
from dlavm.sym.text import EXPR_RULES, fold_tree
from dlavm.target.spec import TargetSpec
from dlavm.task.ir import (
    BUFFER_NAME,
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
    loop_bounds,
    value_bounds,
    walk_body,
)

# -- printing ------------------------------------------------------------------------------------------------------


def print_program(program: Program, spec: TargetSpec | None = None) -> str:
    """The text, one statement a line, ending in a newline."""
    args = ", ".join(f"{a.name}: {a.lo}..{a.hi}" for a in program.args)
    lines = [f"program {program.name}({args})"]
    lines += [f"assume {condition}" for condition in program.assumptions]
    lines += [_buffer_text(buffer) for buffer in program.buffers]
    for function in program.functions:
        lines += [f"function {function.name}:", *_body_lines(function.body, spec, 1)]
    return "\n".join([*lines, *_body_lines(program.body, spec, 0)]) + "\n"


def _buffer_text(b: Buffer) -> str:
    copies = f" copies {b.copies} every {b.stride}" if b.copies > 1 else ""
    return f"buffer {b.name}: {b.role} {b.bytes} bytes {b.shape_text or b.dtype}{copies}"


def _body_lines(body: tuple[Stmt, ...], spec: TargetSpec | None, depth: int) -> list[str]:
    return ["  " * (depth + len(path) - 1) + statement_text(stmt, spec) for path, stmt in walk_body(body)]


def statement_text(stmt: Stmt, spec: TargetSpec | None = None) -> str:
    """One statement without its body."""
    match stmt:
        case Let(var=var, value=value):
            return f"let {_declared(var, value_bounds(value))} = {value}"
        case For(var=var, count=count):
            return f"for {_declared(var, loop_bounds(count))} in {count}:"
        case If(cond=cond):
            return f"if {cond}:"
        case Launch():
            return _launch_text(stmt, spec)
        case Await(engine=engine):
            return f"await {engine or 'all'}"
        case Signal(engine=engine, sem=sem):
            return f"signal {engine} {sem}"
        case Wait(engine=engine, sem=sem):
            return f"wait {engine} {sem}"
        case RegWrite(register=register, index=index, value=value):
            return f"write {register}[{index}] = {value}"
        case RegRead(var=var, register=register, index=index):
            return f"read {var.name}: {var.lo}..{var.hi} = {register}[{index}]"
        case Load(var=var, base=base, index=index):
            return f"load {var.name}: {var.lo}..{var.hi} = {_compact(base)}[{index}]"
        case Copy(dst=dst, src=src, bytes=size):
            return f"copy dst={_compact(dst)} src={_compact(src)} bytes={_compact(size)}"
        case Call(name=name):
            return f"call {name}"


def _declared(var: Expr, default: tuple[int, int]) -> str:
    return var.name if var.bounds() == default else f"{var.name}: {var.lo}..{var.hi}"


def _launch_text(stmt: Launch, spec: TargetSpec | None) -> str:
    labels = {name: f"{label}:" for name, label in value_labels(stmt, spec).items()} if spec else {}
    fields = "".join(f" {name}={labels.get(name, '')}{_compact(v)}" for name, v in stmt.fields.items())
    return f"launch {stmt.op}{fields}" + (f"  # {stmt.where}" if stmt.where else "")


def value_labels(stmt: Launch, spec: TargetSpec) -> dict[str, str]:
    """Of fields with a constant value: the name of an enum's value, the meaning of float bits."""
    labels: dict[str, str] = {}
    known = spec.commands[stmt.op].by_name if stmt.op in spec.commands else {}
    for name, value in stmt.fields.items():
        if name not in known or not value.is_const:
            continue
        if known[name].values:
            labels.update((name, label) for label, v in known[name].values.items() if v == value.value)
        elif known[name].kind == "f32" and value.value in range(1 << 32):
            labels[name] = str(np.uint32(value.value).view(np.float32))
    return labels


def _compact(expr: Expr) -> str:
    """Without blanks, but around a minus: a buffer's name may contain one."""
    text = str(expr)
    for operator in ("+", "*", "//", "%"):
        text = text.replace(f" {operator} ", operator)
    return text.replace(", ", ",")


# -- parsing -------------------------------------------------------------------------------------------------------

_GRAMMAR = (
    r"""
start: statement [COMMENT]
?statement: "program" PATHNAME "(" [arg ("," arg)*] ")" -> program
    | "assume" expr -> assume
    | "buffer" PATHNAME ":" NAME INT "bytes" TYPE ["copies" INT "every" INT] -> buffer
    | "function" PATHNAME ":" -> function
    | "for" NAME [":" RANGE] "in" expr ":" -> loop
    | "if" expr ":" -> condition
    | "let" NAME [":" RANGE] "=" expr -> let
    | "launch" NAME field* -> launch
    | "copy" field* -> copy
    | "await" NAME -> await
    | "signal" NAME INT -> signal
    | "wait" NAME INT -> wait
    | "read" NAME ":" RANGE "=" NAME "[" expr "]" -> read
    | "load" NAME ":" RANGE "=" expr "[" expr "]" -> load
    | "write" NAME "[" expr "]" "=" expr -> write
    | "call" PATHNAME -> call
arg: NAME ":" RANGE
field: NAME "=" [LABEL] expr
COMMENT: /#[^\n]*/
RANGE: /-?[0-9]+\.\.-?[0-9]+/
TYPE: /\w+(\[[^\n#]*\])?/
LABEL.2: /[A-Za-z0-9_.+\-]+:/
PATHNAME: /"""
    + BUFFER_NAME
    + r"""/
BASE: /@"""
    + BUFFER_NAME
    + r"""/
%extend atom: BASE -> variable
%ignore /[ \t]+/
"""
)


@cache
def _parser() -> Lark:
    return Lark(EXPR_RULES + _GRAMMAR, parser="lalr", maybe_placeholders=False)


def parse_program(text: str, spec: TargetSpec | None = None) -> Program:
    """The program of a text. With a spec, the value of an enum field may be its name alone.

    Raises DlavmError naming the line for bad syntax, indentation, unknown variables and buffers.
    """
    reader = _Reader(spec)
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            tree = _parser().parse(stripped)
            reader.add(len(line) - len(line.lstrip()), tree)
        except UnexpectedInput as error:
            where = f"line {number}, column {len(line) - len(line.lstrip()) + error.column}"
            raise DlavmError(f"task text: bad syntax at {where}, got {stripped!r}") from None
        except DlavmError as error:
            raise DlavmError(f"task text: line {number}: {error}") from None
    return reader.finish()


@dataclass
class _Block:
    """An open body: its header (None: the program, a Function without a body: that function), what is visible."""

    head: For | If | Function | None
    visible: dict[str, Expr]
    header_indent: int = -1
    indent: int | None = None  # of its statements, once one was seen
    body: list[Stmt] = field(default_factory=list)


class _Reader:
    """Collects a program line by line."""

    def __init__(self, spec: TargetSpec | None) -> None:
        self.spec = spec
        self.name: str | None = None
        self.args: dict[str, Expr] = {}
        self.buffers: dict[str, Buffer] = {}
        self.bases: dict[str, Expr] = {}
        self.assumptions: list[Expr] = []
        self.functions: list[Function] = []
        self.blocks = [_Block(None, {}, indent=0)]

    def add(self, indent: int, tree: Tree[Token]) -> None:
        """One line: closes the blocks that it is not part of, then reads it."""
        while indent <= self.blocks[-1].header_indent:
            self._close()
        top = self.blocks[-1]
        if top.indent is None:
            top.indent = indent
        if indent != top.indent:
            raise DlavmError(f"indentation: expected {top.indent} blanks, got {indent!r}")
        statement = tree.children[0]
        assert isinstance(statement, Tree)
        comment = "".join(str(c) for c in tree.children[1:])[1:].strip()
        if (statement.data == "program") != (self.name is None):
            raise DlavmError(f"expected one line `program NAME(...)` first, got {str(statement.data)!r}")
        made = getattr(self, f"read_{statement.data}")(*statement.children)
        if isinstance(made, Launch) and comment:
            made = Launch(made.op, made.fields, comment)
        if made is not None:
            top.body.append(made)

    def finish(self) -> Program:
        while len(self.blocks) > 1:
            self._close()
        if self.name is None:
            raise DlavmError("task text: expected a line `program NAME(...)`, got none")
        body, functions = tuple(self.blocks[0].body), tuple(self.functions)
        buffers = tuple(self.buffers.values())
        return Program(self.name, tuple(self.args.values()), buffers, body, functions, tuple(self.assumptions))

    def _close(self) -> None:
        block = self.blocks.pop()
        body, outer = tuple(block.body), self.blocks[-1].body
        if isinstance(block.head, Function):
            self.functions.append(Function(block.head.name, body))
        elif isinstance(block.head, For):
            outer.append(For(block.head.var, block.head.count, body))
        elif block.head is not None:
            outer.append(If(block.head.cond, body))

    def _open(self, head: For | If | Function, visible: Mapping[str, Expr]) -> None:
        indent = self.blocks[-1].indent
        self.blocks.append(_Block(head, dict(visible), -1 if indent is None else indent))

    # -- one method a statement ------------------------------------------------------------------------------------

    def read_program(self, name: Token, *args: Tree[Token]) -> None:
        self.name = str(name)
        for arg in args:
            label, bounds = (str(child) for child in arg.children)
            self._fresh(self.args, label)
            self.args[label] = _variable(label, bounds, (0, 0))
        self.blocks[0].visible = dict(self.args)

    def read_assume(self, tree: Tree[Token]) -> None:
        self.assumptions.append(self._expr(tree))

    def read_buffer(self, name: Token, role: Token, size: Token, type_: Token, *copies: Token) -> None:
        self._fresh(self.buffers, str(name))
        dtype, bracket, _ = type_.partition("[")
        text = str(type_) if bracket else ""
        self.buffers[str(name)] = Buffer(str(name), str(role), int(size), text, str(dtype), *map(int, copies))
        self.bases[f"@{name}"] = base_of(str(name))

    def read_function(self, name: Token) -> None:
        if len(self.blocks) > 1:
            raise DlavmError(f"function {name}: expected outside of blocks, got {len(self.blocks) - 1} around it")
        self._open(Function(str(name), ()), self.args)

    def read_loop(self, name: Token, *rest: Token | Tree[Token]) -> None:
        bounds, count = self._bounded(rest)
        var = self._define(name, bounds, loop_bounds(count))
        self._open(For(var, count, ()), {**self.blocks[-1].visible, str(name): var})

    def read_condition(self, tree: Tree[Token]) -> None:
        self._open(If(self._expr(tree), ()), self.blocks[-1].visible)

    def read_let(self, name: Token, *rest: Token | Tree[Token]) -> Stmt:
        bounds, value = self._bounded(rest)
        var = self.blocks[-1].visible[str(name)] = self._define(name, bounds, value_bounds(value))
        return Let(var, value)

    def read_launch(self, op: Token, *fields: Tree[Token]) -> Stmt:
        return Launch(str(op), self._fields(fields, str(op)))

    def read_copy(self, *fields: Tree[Token]) -> Stmt:
        found = self._fields(fields, "copy")
        if set(found) != {"dst", "src", "bytes"}:
            raise DlavmError(f"copy: expected dst, src and bytes, got {sorted(found)!r}")
        return Copy(**found)

    def read_await(self, engine: Token) -> Stmt:
        return Await(None if engine == "all" else str(engine))

    def read_signal(self, engine: Token, sem: Token) -> Stmt:
        return Signal(str(engine), int(sem))

    def read_wait(self, engine: Token, sem: Token) -> Stmt:
        return Wait(str(engine), int(sem))

    def read_read(self, name: Token, bounds: Token, register: Token, index: Tree[Token]) -> Stmt:
        var = self._define(name, str(bounds), (0, 0))
        stmt = RegRead(var, str(register), self._expr(index))
        self.blocks[-1].visible[str(name)] = var
        return stmt

    def read_load(self, name: Token, bounds: Token, base: Tree[Token], index: Tree[Token]) -> Stmt:
        var = self._define(name, str(bounds), (0, 0))
        stmt = Load(var, self._expr(base), self._expr(index))
        self.blocks[-1].visible[str(name)] = var
        return stmt

    def read_write(self, register: Token, index: Tree[Token], value: Tree[Token]) -> Stmt:
        return RegWrite(str(register), self._expr(index), self._expr(value))

    def read_call(self, name: Token) -> Stmt:
        return Call(str(name))

    # -- parts -----------------------------------------------------------------------------------------------------

    def _expr(self, tree: Tree[Token], more: Mapping[str, int] | None = None) -> Expr:
        names = {name: Const(value) for name, value in (more or {}).items()}
        bases = self.bases if _mentions_base(tree) else {}
        return fold_tree(tree, ChainMap(self.blocks[-1].visible, names, bases))

    def _bounded(self, rest: tuple[Token | Tree[Token], ...]) -> tuple[str, Expr]:
        """Of `[RANGE] expr`: the range, empty if there is none, and the expression."""
        tree = rest[-1]
        assert isinstance(tree, Tree)
        return "".join(str(token) for token in rest[:-1]), self._expr(tree)

    def _define(self, name: Token, bounds: str, default: tuple[int, int]) -> Expr:
        self._fresh(self.blocks[-1].visible, str(name))
        return _variable(str(name), bounds, default)

    def _fields(self, fields: tuple[Tree[Token], ...], op: str) -> dict[str, Expr]:
        known = self.spec.commands[op].by_name if self.spec and op in self.spec.commands else {}
        found: dict[str, Expr] = {}
        for part in fields:
            name, tree = str(part.children[0]), part.children[-1]
            assert isinstance(tree, Tree)
            self._fresh(found, name)
            found[name] = self._expr(tree, known[name].values if name in known else None)
        return found

    @staticmethod
    def _fresh(taken: Mapping[str, object], name: str) -> None:
        if name in taken:
            raise DlavmError(f"expected a name that is free, got {name!r}")


def _variable(name: str, bounds: str, default: tuple[int, int]) -> Expr:
    lo, hi = (int(end) for end in bounds.split("..")) if bounds else default
    if lo >= hi:
        raise DlavmError(f"variable {name}: expected lo < hi, got {bounds!r}")
    return Var(name, lo, hi)


def _mentions_base(tree: Tree[Token]) -> bool:
    return any(isinstance(token, Token) and token.type == "BASE" for token in tree.scan_values(lambda _: True))
