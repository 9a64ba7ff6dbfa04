"""The task IR for Graphviz: a node a command, a box a loop or a condition, an edge what one leaves for another."""

from __future__ import annotations

from dlavm.target import TargetSpec
from dlavm.task import Call, Copy, For, If, Launch, Program, Stmt
from dlavm.task.ir import Buffer, Path, exprs_of, walk
from dlavm.task.text import statement_text, value_labels
from dlavm.view.dot import Dot, label
from dlavm.view.task_flow import Access, access, edges

ENGINES = {"load": "#e8eaee", "matrix": "#cfe0f5", "vector": "#d6ead9", "store": "#f7e3c4"}
INSIDE = ("weights", "tables")  # roles that are named within the commands that read them
SHAPES = {"kv": "cylinder", "input": "ellipse", "output": "ellipse", "program": "box"}
SHOWN = ("enum", "count")  # kinds of fields that a node shows


def task_dot(program: Program, spec: TargetSpec) -> str:
    """The text for `dot`. Activations are edges, those into a later turn of a loop dashed; caches, inputs and outputs
    are nodes; constants stand in the commands that read them."""
    return _Drawing(program, spec).text()


class _Drawing:
    def __init__(self, program: Program, spec: TargetSpec) -> None:
        self.program, self.spec = program, spec
        self.touched: dict[Path, Access] = {}
        for path, stmt in walk(program):
            if isinstance(stmt, Launch | Copy):
                self.touched[path] = access(stmt, program, spec)
        self.homes = self._buffer_homes()
        args = ", ".join(f"{a.name} {a.lo}..{a.hi}" for a in program.args)
        self.dot = Dot(program.name, f"{program.name}({args}): {len(self.touched)} commands")

    def text(self) -> str:
        self._body(self.program.body, (0,))
        for number, function in enumerate(self.program.functions, 1):
            with self.dot.cluster(f"function {function.name}"):
                self._body(function.body, (number,))
        self._buffers(())
        self._edges()
        return self.dot.text()

    def _role(self, name: str) -> str:
        return self.program.buffer[name].role if name in self.program.buffer else ""

    def _buffer_homes(self) -> dict[str, Path]:
        """For each buffer that is a node, the innermost body around its uses, () for several functions."""
        homes: dict[str, Path] = {}
        for path, touched in self.touched.items():
            for name in (n for n in (*touched.reads, *touched.writes) if self._role(n) in SHAPES):
                homes[name] = _common(homes.get(name, path[:-1]), path[:-1])
        return homes

    def _buffers(self, home: Path) -> None:
        for buffer in (self.program.buffer[name] for name, place in self.homes.items() if place == home):
            notes = (f"{buffer.role} {_type(buffer)}",)
            self.dot.node(_place(buffer.name), label=label(buffer.name, notes=notes), shape=SHAPES[buffer.role])

    def _body(self, stmts: tuple[Stmt, ...], at: Path) -> None:
        self._buffers(at)
        for i, stmt in enumerate(stmts):
            path = (*at, i)
            if isinstance(stmt, For | If):
                with self.dot.cluster(statement_text(stmt).removesuffix(":")):
                    self._body(stmt.body, path)
            elif isinstance(stmt, Launch | Copy):
                self._command(stmt, path)
            elif isinstance(stmt, Call):
                self.dot.node(_id(path), label=label("call", stmt.name), shape="cds")

    def _command(self, stmt: Launch | Copy, path: Path) -> None:
        command = self.spec.commands.get(stmt.op) if isinstance(stmt, Launch) else None
        known = command.by_name if command else {}
        head, where = (stmt.op, stmt.where) if isinstance(stmt, Launch) else ("copy", "")
        labels = value_labels(stmt, self.spec) if isinstance(stmt, Launch) else {}
        shown = [f"{name}={labels.get(name, value)}" for name, value in exprs_of(stmt)
                 if name in known and known[name].kind in SHOWN]  # fmt: skip
        inside = [f"{self._role(n)} {n}" for n in self.touched[path].reads if self._role(n) in INSIDE]
        colour = ENGINES.get(command.engine or "", "white") if command else "white"
        self.dot.node(_id(path), label=label(head, where, (*_lines(shown), *inside)), fillcolor=colour)

    def _edges(self) -> None:
        for path, touched in self.touched.items():
            for name in (n for n in touched.reads if self._role(n) in SHAPES):
                self.dot.edge(_place(name), _id(path))
            for name in (n for n in touched.writes if self._role(n) in SHAPES):
                self.dot.edge(_id(path), _place(name))
        for edge in edges(self.program, self.spec):
            buffer = self.program.buffer.get(edge.buffer)
            if buffer is not None and buffer.role not in (*SHAPES, *INSIDE):
                carried = {"style": "dashed", "constraint": "false"} if edge.carried else {}
                self.dot.edge(_id(edge.source), _id(edge.target), label=f"{buffer.name}\n{_type(buffer)}", **carried)


def _lines(parts: list[str], width: int = 48) -> list[str]:
    """The parts in lines of about that many characters."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) < width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


def _common(a: Path, b: Path) -> Path:
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:same]


def _type(buffer: Buffer) -> str:
    copies = f" x {buffer.copies}" if buffer.copies > 1 else ""
    return f"{buffer.shape_text or f'{buffer.bytes} bytes'}{copies}"


def _id(path: Path) -> str:
    return "at " + ".".join(map(str, path))


def _place(buffer: str) -> str:
    return f"@{buffer}"
