"""TaskBuilder: how lowering rules write task programs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from dlavm.support.errors import DlavmError
from dlavm.sym import Expr, IntoExpr, Var, le, wrap
from dlavm.task.ir import (
    WORD_MAX,
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
)


class TaskBuilder:
    """Collects statements. Loops and conditions are blocks: `with b.loop("t", count) as t:`.

    Names of variables are hints: one that is already visible gets a number behind it.
    """

    def __init__(
        self, name: str = "program", args: Iterable[Expr] = (), assumptions: Iterable[Expr] = (),
        commands: Collection[str] | None = None,
    ) -> None:  # fmt: skip
        """`commands`: those that may be launched; None for any. `where`: the place of what is launched now."""
        self.name, self._commands = name, commands
        self.args: list[Expr] = []
        self.buffers: dict[str, Buffer] = {}
        self.assumptions = tuple(assumptions)
        self._functions: dict[str, Function] = {}
        self._bodies: list[list[Stmt]] = [[]]
        self._scopes: list[set[str]] = [set(), set()]  # arguments, the body, open blocks
        self.where = ""
        for arg in args:
            self._add_arg(arg)

    def arg(self, name: str, lo: int, hi: int) -> Expr:
        """An argument of the program with inclusive bounds; a constant where they meet."""
        return self._add_arg(Var(name, lo, hi))

    def assume(self, condition: Expr) -> None:
        """States a condition (le, lt, eq) that all legal arguments fulfil."""
        if not condition.is_const:
            self.assumptions += (condition,)

    def buffer(self, name: str, role: str, bytes: int, shape_text: str = "", dtype: str = "f16") -> Buffer:
        """Declares a buffer. Raises DlavmError where the name is taken by a different one."""
        made = Buffer(name, role, bytes, shape_text, dtype)
        if self.buffers.setdefault(name, made) != made:
            raise DlavmError(f"buffer {name}: expected one declaration, got {self.buffers[name]!r} and {made!r}")
        return made

    # -- blocks ----------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, name: str, count: IntoExpr) -> Iterator[Expr]:
        """Repeats the block; yields the variable 0 .. count-1. A loop of at most one trip becomes a condition."""
        count = wrap(count)
        if count.hi <= 1:
            with self.when(le(1, count)):
                yield wrap(0)
            return
        var = Var(self._fresh(name), 0, count.hi - 1)
        with self._block(var.name) as body:
            yield var
        self.emit(For(var, count, tuple(body)))

    @contextmanager
    def when(self, cond: IntoExpr) -> Iterator[None]:
        """Runs the block where the condition is not zero; always or never if that is already known."""
        cond = wrap(cond)
        if cond.lo > 0 or cond.hi < 0:
            yield
            return
        with self._block() as body:
            yield
        if not cond.is_const:
            self.emit(If(cond, tuple(body)))

    @contextmanager
    def function(self, name: str) -> Iterator[None]:
        """The block is the body of a function, which sees arguments and buffers only."""
        if name in self._functions:
            raise DlavmError(f"function: expected a name that is free, got {name!r}")
        outer, self._scopes = self._scopes, self._scopes[:1]
        try:
            with self._block() as body:
                yield
        finally:
            self._scopes = outer
        self._functions[name] = Function(name, tuple(body))

    @contextmanager
    def place(self, where: str) -> Iterator[None]:
        """The `where` of the launches in the block, for messages."""
        outer, self.where = self.where, where
        try:
            yield
        finally:
            self.where = outer

    # -- statements ------------------------------------------------------------------------------------------------

    def launch(self, op: str, /, **fields: IntoExpr) -> None:
        """Raises DlavmError for a command that the target does not have."""
        if self._commands is not None and op not in self._commands:
            place = f"{self.where}: " if self.where else ""
            raise DlavmError(f"{place}command expected one of {', '.join(self._commands)}, got {op!r}")
        self.emit(Launch(op, fields, self.where))

    def let(self, name: str, value: IntoExpr) -> Expr:
        """Names a value; a constant or a variable is returned as it is."""
        value = wrap(value)
        if not value.args:
            return value
        var = Var(self._fresh(name), value.lo, value.hi)
        self._scopes[-1].add(var.name)
        self.emit(Let(var, value))
        return var

    def reg_read(self, name: str, register: str, index: IntoExpr = 0, lo: int = 0, hi: int = WORD_MAX) -> Expr:
        """Reads a control register into a variable of the given bounds."""
        var = Var(self._fresh(name), lo, hi)
        self._scopes[-1].add(var.name)
        self.emit(RegRead(var, register, wrap(index)))
        return var

    def load(self, name: str, base: IntoExpr, index: IntoExpr, lo: int = 0, hi: int = WORD_MAX) -> Expr:
        """Reads word `index` of memory from address `base` on into a variable of the given bounds."""
        var = Var(self._fresh(name), lo, hi)
        self._scopes[-1].add(var.name)
        self.emit(Load(var, wrap(base), wrap(index)))
        return var

    def reg_write(self, register: str, value: IntoExpr, index: IntoExpr = 0) -> None:
        self.emit(RegWrite(register, wrap(index), wrap(value)))

    def await_(self, engine: str | None = None) -> None:
        self.emit(Await(engine))

    def signal(self, engine: str, sem: int) -> None:
        self.emit(Signal(engine, sem))

    def wait(self, engine: str, sem: int) -> None:
        self.emit(Wait(engine, sem))

    def copy(self, dst: IntoExpr, src: IntoExpr, bytes: IntoExpr) -> None:
        """A copy by the host; addresses in units of 16 bytes."""
        self.emit(Copy(wrap(dst), wrap(src), wrap(bytes)))

    def call(self, name: str) -> None:
        self.emit(Call(name))

    def emit(self, stmt: Stmt) -> None:
        """Appends a statement as it is."""
        self._bodies[-1].append(stmt)

    def finish(self, prologue: Iterable[Stmt] = (), epilogue: Iterable[Stmt] = ()) -> Program:
        """The program; `prologue` stands before everything that was emitted, `epilogue` behind it."""
        if len(self._bodies) != 1:
            raise DlavmError(f"task program {self.name}: expected every block closed, got {len(self._bodies) - 1} open")
        body = (*prologue, *self._bodies[0], *epilogue)
        functions = tuple(self._functions.values())
        return Program(self.name, tuple(self.args), tuple(self.buffers.values()), body, functions, self.assumptions)

    # -- names and scopes ------------------------------------------------------------------------------------------

    def _add_arg(self, var: Expr) -> Expr:
        if var.op == "var":
            if var.name in self._scopes[0]:
                raise DlavmError(f"argument: expected a name that is free, got {var.name!r}")
            self._scopes[0].add(var.name)
            self.args.append(var)
        elif not var.is_const:
            raise DlavmError(f"argument: expected a variable, got {str(var)!r}")
        return var

    @contextmanager
    def _block(self, *names: str) -> Iterator[list[Stmt]]:
        body: list[Stmt] = []
        self._bodies.append(body)
        self._scopes.append(set(names))
        try:
            yield body
        finally:
            self._bodies.pop()
            self._scopes.pop()

    def _fresh(self, name: str) -> str:
        visible = set().union(*self._scopes)
        candidate, number = name, 0
        while candidate in visible:
            number += 1
            candidate = f"{name}_{number}"
        return candidate
