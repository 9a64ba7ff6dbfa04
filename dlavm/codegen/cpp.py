"""Expressions and register programs as C++: numbers are 64-bit, named as they are in the tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dlavm.codegen.registers import LAUNCH, OP
from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, postorder
from dlavm.target import TargetSpec
from dlavm.target.spec import Command
from dlavm.task import Await, For, If, Let, Program, RegWrite, Stmt, walk_body

INFIX = {"add": " + ", "mul": " * "}
CALLS = {"floordiv": "floor_div", "mod": "floor_mod", "min": "std::min<Number>", "max": "std::max<Number>"}
COMPARISONS = {"lt": " < ", "le": " <= ", "eq": " == "}


def expression(expr: Expr) -> str:
    """C++ of the value, a Number."""
    done: dict[Expr, str] = {}
    for node in postorder(expr):
        args = [done[arg] for arg in node.args]
        if node.op in ("const", "var"):
            done[node] = str(node.value) if node.op == "const" else node.name
        elif node.op in INFIX:
            done[node] = "(" + INFIX[node.op].join(args) + ")"
        elif node.op in COMPARISONS:
            done[node] = "Number{" + COMPARISONS[node.op].join(args) + "}"
        elif node.op == "select":
            done[node] = f"({args[0]} != 0 ? Number{{{args[1]}}} : Number{{{args[2]}}})"
        else:
            done[node] = _folded(CALLS[node.op], args)
    text = done[expr]
    return text[1:-1] if expr.op in INFIX else text


def _folded(function: str, args: Sequence[str]) -> str:
    text = args[0]
    for arg in args[1:]:
        text = f"{function}({text}, {arg})"
    return text


def statements(program: Program, spec: TargetSpec) -> list[str]:
    """Lines of C++ for a register program: `c.op(index, value)` and `c.launch(opcode)`, with the fields that each word
    is for. Raises DlavmError for a statement that has no form."""
    return list(_lines(program.body, spec, ""))


def _lines(body: tuple[Stmt, ...], spec: TargetSpec, indent: str) -> Iterator[str]:
    for place, stmt in enumerate(body):
        match stmt:
            case RegWrite(register=register, index=index, value=value) if register == OP:
                fields = _fields(_next_command(body[place:], spec), int(index))
                yield f"{indent}c.op({int(index)}, {expression(value)});" + (f"  // {fields}" if fields else "")
            case RegWrite(register=register, value=value) if register == LAUNCH:
                yield f"{indent}c.launch(k{_camel(spec.opcodes[int(value)].name)});"
            case Await():
                pass  # launch waits
            case Let(var=var, value=value):
                yield f"{indent}const Number {var.name} = {expression(value)};"
            case For(var=var, count=count, body=inner):
                yield f"{indent}for (Number {var.name} = 0; {var.name} < {expression(count)}; ++{var.name}) {{"
                yield from _lines(inner, spec, indent + "    ")
                yield f"{indent}}}"
            case If(cond=cond, body=inner):
                yield f"{indent}if ({expression(cond)} != 0) {{"
                yield from _lines(inner, spec, indent + "    ")
                yield f"{indent}}}"
            case _:
                raise DlavmError(f"host: expected a statement of a register program, got {type(stmt).__name__}")


def _next_command(body: tuple[Stmt, ...], spec: TargetSpec) -> Command | None:
    """The command that is started next."""
    for _, stmt in walk_body(body):
        if isinstance(stmt, RegWrite) and stmt.register == LAUNCH:
            return spec.opcodes[int(stmt.value)]
    return None


def _fields(command: Command | None, word: int) -> str:
    return ", ".join(f.name for f in command.fields if f.word == word) if command else ""


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.lower().split("_"))
